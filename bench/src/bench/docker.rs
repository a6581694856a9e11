//! Benches of the runtime `docker`, beside the Docker CLI on the same engine: `cold_docker` and `warm_exec`.

use serde_json::json;

use super::cold::warm_up;
use super::instance::Instance;
use super::{marks, measure_all, scratch};
use crate::RunArgs;
use crate::engine::{Engine, IMAGE};
use crate::error::BenchError;
use crate::gateway::Gateway;
use crate::helper::Order;
use crate::leftover::{self, Baseline};
use crate::report::{Layer, Report, Table};
use crate::schedule::{EXECUTE, Variant, Work};

fn variant(name: &str, layer: Layer, n: usize, work: Work) -> Variant {
    Variant { name: name.to_owned(), layer, work, n }
}

fn spawn(argv: Vec<String>) -> Work {
    Work::Helper(vec![Order::Spawn { argv, stdout: None }])
}

/// Adds figures for each table: how many times as fast as the peer each of ours is, by the medians.
fn compare(report: &mut Report, peer: &str) {
    let of_table = |table: &Table| {
        let at = format!("{} at once, {} ms between", table.concurrency, table.pause_ms);
        let theirs = table.p50_us(peer);
        let ours = table.series.iter().filter(|series| series.layer == Layer::Ours);
        let ratio = |series: &crate::report::Series| {
            Some((format!("p50 of {peer} by {}, {at}", series.name), theirs? / series.summary.p50_us))
        };
        ours.filter_map(ratio).collect::<Vec<_>>()
    };
    let figures: Vec<_> = report.tables.iter().flat_map(of_table).collect();
    for (name, ratio) in figures {
        report.figure(&name, ratio, "times", false);
    }
}

/// Bench `cold_docker`.
pub(crate) fn cold(args: &RunArgs) -> Result<bool, BenchError> {
    let mut report = Report::new("cold_docker");
    let scratch = scratch()?;
    let engine = Engine::start(scratch.path())?;
    report.engine(&engine)?;
    let gateway = Gateway::start_with(&args.server, scratch.path(), &["--docker-host", &engine.host])?;
    let marks = marks(&scratch, &gateway);
    let body = json!({"command": ["true"], "runtime": "docker", "image": IMAGE, "memory_mb": 512,
        "pids_limit": 256, "cpu_cores": 1.0, "network": "none"});
    let n = args.n / 2;
    let variants = [
        variant(
            "faas ephemeral, docker",
            Layer::Ours,
            n,
            Work::Execute { path: EXECUTE.to_owned(), body: body.to_string(), stdout: String::new() },
        ),
        variant("docker run --rm", Layer::Peer, n, spawn(engine.run())),
    ];
    // Its native slots stand by then, as they do in a server that has run for a while.
    warm_up(&gateway)?;
    let baseline = Baseline::take(&gateway)?;
    measure_all(&mut report, args, &variants, Some(gateway.address))?;
    compare(&mut report, "docker run --rm");
    report.leftover.extend(baseline.compare(&gateway)?);
    let id_file = gateway.data_dir.join("gateway-id");
    let gateway_id = std::fs::read_to_string(&id_file).map_err(BenchError::io(&id_file))?;
    gateway.stop()?;
    report.leftover.extend(engine.containers(&gateway_id)?);
    // A process of this run too.
    drop(engine);
    report.leftover.extend(leftover::on_machine(&marks)?);
    report.finish(&args.results)
}

/// Bench `warm_exec`.
pub(crate) fn warm(args: &RunArgs) -> Result<bool, BenchError> {
    let mut report = Report::new("warm_exec");
    let scratch = scratch()?;
    let engine = Engine::start(scratch.path())?;
    report.engine(&engine)?;
    let gateway = Gateway::start_with(&args.server, scratch.path(), &["--docker-host", &engine.host])?;
    let marks = marks(&scratch, &gateway);
    let id_file = gateway.data_dir.join("gateway-id");
    let gateway_id = std::fs::read_to_string(&id_file).map_err(BenchError::io(&id_file))?;
    warm_up(&gateway)?;
    // The first one leaves an empty file system for those that come later.
    Instance::create(&gateway, &json!({"runtime": "native", "image": "host"}))?.delete(&gateway)?;
    let baseline = Baseline::take(&gateway)?;
    let native = Instance::create(&gateway, &json!({"runtime": "native", "image": "host"}))?;
    let docker = Instance::create(&gateway, &json!({"runtime": "docker", "image": IMAGE}))?;
    let container = format!("faas-{}-{}", gateway_id.trim(), docker.id);
    let variants = [
        variant("L0 spawn", Layer::Floor, args.n, spawn(vec!["/usr/bin/true".to_owned()])),
        variant("faas exec, native", Layer::Ours, args.n, native.exec_true()),
        variant("faas exec, docker", Layer::Ours, args.n, docker.exec_true()),
        variant("docker exec", Layer::Peer, args.n / 2, spawn(engine.exec(&container))),
    ];
    measure_all(&mut report, args, &variants, Some(gateway.address))?;
    compare(&mut report, "docker exec");
    native.delete(&gateway)?;
    docker.delete(&gateway)?;
    report.leftover.extend(baseline.compare(&gateway)?);
    gateway.stop()?;
    report.leftover.extend(engine.containers(gateway_id.trim())?);
    drop(engine);
    report.leftover.extend(leftover::on_machine(&marks)?);
    report.finish(&args.results)
}
