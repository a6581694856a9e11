//! Benches of the runtime `docker`, beside the Docker CLI on the same engine: `cold_docker` and `warm_exec`.

use std::sync::Arc;

use serde_json::json;

use super::cold::warm_up;
use super::{marks, measure_all, peer_name, scratch};
use crate::RunArgs;
use crate::engine::{Engine, IMAGE};
use crate::error::BenchError;
use crate::gateway::Gateway;
use crate::helper::Order;
use crate::leftover::{self, Baseline};
use crate::live::Live;
use crate::report::{Layer, Report, Table};
use crate::schedule::{Variant, Work};

fn variant(name: &str, layer: Layer, n: usize, work: Work) -> Variant {
    Variant { name: name.to_owned(), layer, work, n }
}

fn spawn(argv: Vec<String>) -> Work {
    Work::Helper(vec![Order::Spawn { argv, stdout: None }])
}

/// Adds a figure for each table: how many times as fast as the peer ours is, by the medians.
fn compare(report: &mut Report, peer: &str) {
    let p50 = |table: &Table, wanted: &dyn Fn(&crate::report::Series) -> bool| {
        table.series.iter().find(|series| wanted(series)).map(|series| series.summary.p50_us)
    };
    let figures: Vec<_> = report
        .tables
        .iter()
        .filter_map(|table| {
            let ours = p50(table, &|series| series.layer == Layer::Ours)?;
            let theirs = p50(table, &|series| series.name == peer)?;
            let at = format!("{} at once, {} ms between", table.concurrency, table.pause_ms);
            Some((format!("p50 of {peer} by ours, {at}"), theirs / ours))
        })
        .collect();
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
            Work::Execute { body: body.to_string(), stdout: String::new() },
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
    let workers = args.concurrency.iter().copied().max().unwrap_or(1);
    let live = Arc::new(Live::make(&engine, scratch.path(), workers)?);
    let variants = vec![
        variant("L0 spawn", Layer::Floor, args.n, spawn(vec!["/usr/bin/true".to_owned()])),
        variant("faas live container", Layer::Ours, args.n, Work::Live(Arc::clone(&live))),
        variant("docker exec", Layer::Peer, args.n / 2, spawn(engine.exec(&live.container))),
    ];
    measure_all(&mut report, args, &variants, None)?;
    compare(&mut report, "docker exec");
    drop(variants);
    let gateway_id = live.gateway_id.clone();
    let live = Arc::into_inner(live).ok_or_else(|| BenchError::Helper("a worker still runs".to_owned()))?;
    live.end()?;
    report.leftover.extend(engine.containers(&gateway_id)?);
    drop(engine);
    let path = scratch.path().to_string_lossy().into_owned();
    report.leftover.extend(leftover::on_machine(&[path, peer_name(""), format!("faas-{gateway_id}")])?);
    report.finish(&args.results)
}
