//! A fresh sandbox for each command: `cold_true` and `cold_python`.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::{marks, peer_name, scratch};
use crate::RunArgs;
use crate::cgroup::{Version, own_directory};
use crate::error::BenchError;
use crate::floor::Floor;
use crate::gateway::Gateway;
use crate::helper::Order;
use crate::http::Connection;
use crate::leftover::{self, Baseline};
use crate::peer::docker::Docker;
use crate::peer::{bwrap, runc};
use crate::report::{Layer, Report};
use crate::schedule::{EXECUTE, Variant, Work, measure};

/// The pause of the paused runs.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// The variants of a bench and the reasons for those that are not here.
#[derive(Default)]
struct Field {
    variants: Vec<Variant>,
    absent: Vec<(String, String)>,
}

impl Field {
    fn add(&mut self, name: &str, layer: Layer, n: usize, orders: Result<Vec<Order>, String>) {
        match orders {
            Ok(orders) => {
                self.variants.push(Variant { name: name.to_owned(), layer, work: Work::Helper(orders), n });
            }
            Err(reason) => self.absent.push((name.to_owned(), reason)),
        }
    }

    fn ours(&mut self, name: &str, n: usize, command: &[&str], stdout: &str) {
        let body = json!({"command": command, "runtime": "native", "memory_mb": 512, "pids_limit": 256, "cpu_cores": 1.0});
        let work =
            Work::Execute { path: EXECUTE.to_owned(), body: body.to_string(), stdout: stdout.to_owned() };
        self.variants.push(Variant { name: name.to_owned(), layer: Layer::Ours, work, n });
    }
}

fn spawn(argv: Vec<String>, stdout: Option<&str>) -> Order {
    Order::Spawn { argv, stdout: stdout.map(str::to_owned) }
}

fn floor(floor: Floor, scratch: &Path, workers: usize) -> Result<Vec<Order>, String> {
    match floor {
        Floor::CgroupV1 => ["memory", "pids", "cpu"]
            .iter()
            .try_for_each(|controller| own_directory(Version::V1, controller).map(drop))?,
        Floor::CgroupV2 => own_directory(Version::V2, "").map(drop)?,
        Floor::Spawn | Floor::Namespaces | Floor::Overlay => {}
    }
    (0..workers)
        .map(|worker| {
            let scratch = scratch.join(format!("floor-{worker}"));
            std::fs::create_dir_all(&scratch).map_err(|e| format!("{}: {e}", scratch.display()))?;
            Ok(Order::Floor { floor, scratch })
        })
        .collect()
}

/// Whether the v2 tree can limit anything here.
fn v2_name() -> &'static str {
    let root = own_directory(Version::V2, "").map(|root| root.join("cgroup.controllers"));
    let controllers = root.ok().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    if controllers.contains("memory") { "L0 + cgroup v2" } else { "L0 + cgroup v2 (no limits)" }
}

/// Bench `cold_true`.
pub(crate) fn true_command(args: &RunArgs) -> Result<bool, BenchError> {
    let scratch = scratch()?;
    let path = scratch.path();
    let workers = args.concurrency.iter().copied().max().unwrap_or(1);
    let mut field = Field::default();
    for (name, what) in [
        ("L0 spawn", Floor::Spawn),
        ("L0 namespaces", Floor::Namespaces),
        ("L0 + overlay root", Floor::Overlay),
        ("L0 + cgroup v1", Floor::CgroupV1),
        (v2_name(), Floor::CgroupV2),
    ] {
        field.add(name, Layer::Floor, args.n, floor(what, path, workers));
    }
    field.ours("faas ephemeral", args.n, &["true"], "");
    field.add("bwrap", Layer::Peer, args.n, bwrap::argv(&["true"]).map(|argv| vec![spawn(argv, None)]));
    for (name, seccomp) in [("runc run", true), ("runc run (no seccomp)", false)] {
        let orders = runc_orders(path, workers, &["true"], seccomp, None)?;
        field.add(name, Layer::Peer, args.n / 2, orders);
    }
    let docker = Docker::prepare(path);
    let orders = docker.as_ref().map(|docker| vec![spawn(docker.argv(), None)]).map_err(Clone::clone);
    field.add("docker run", Layer::Peer, args.n / 10, orders);
    compete("cold_true", args, field, scratch)
}

/// Bench `cold_python`.
pub(crate) fn python(args: &RunArgs) -> Result<bool, BenchError> {
    const COMMAND: [&str; 3] = ["/usr/bin/python3", "-c", "print(1)"];
    let scratch = scratch()?;
    let workers = args.concurrency.iter().copied().max().unwrap_or(1);
    let mut field = Field::default();
    let host = COMMAND.iter().map(|&text| text.to_owned()).collect();
    field.add("python3 on the host", Layer::Floor, args.n, Ok(vec![spawn(host, Some("1\n"))]));
    field.ours("faas ephemeral", args.n, &COMMAND, "1\n");
    let bwrap = bwrap::argv(&COMMAND).map(|argv| vec![spawn(argv, Some("1\n"))]);
    field.add("bwrap", Layer::Peer, args.n, bwrap);
    let runc = runc_orders(scratch.path(), workers, &COMMAND, true, Some("1\n"))?;
    field.add("runc run", Layer::Peer, args.n / 2, runc);
    compete("cold_python", args, field, scratch)
}

fn runc_orders(
    scratch: &Path,
    workers: usize,
    command: &[&str],
    seccomp: bool,
    stdout: Option<&str>,
) -> Result<Result<Vec<Order>, String>, BenchError> {
    let kind = if seccomp { "runc" } else { "runcplain" };
    let mut orders = Vec::new();
    for worker in 0..workers {
        match runc::argv(scratch, &peer_name(&format!("{kind}-{worker}")), command, seccomp)? {
            Ok(argv) => orders.push(spawn(argv, stdout)),
            Err(reason) => return Ok(Err(reason)),
        }
    }
    Ok(Ok(orders))
}

/// Starts the server, runs all variants at each concurrency, stops the server and looks for what is left.
fn compete(name: &str, args: &RunArgs, field: Field, scratch: tempfile::TempDir) -> Result<bool, BenchError> {
    let mut report = Report::new(name);
    report.absent.extend(field.absent);
    let variants: Vec<Variant> = field
        .variants
        .into_iter()
        .filter(|variant| !args.without.iter().any(|left_out| variant.name.contains(left_out.as_str())))
        .collect();
    let gateway = Gateway::start(&args.server, scratch.path())?;
    let marks = marks(&scratch, &gateway);
    warm_up(&gateway)?;
    let baseline = Baseline::take(&gateway)?;
    let pauses = if args.no_pause { vec![None] } else { vec![None, Some(PAUSE)] };
    for &concurrency in &args.concurrency {
        for &pause in &pauses {
            report.tables.push(measure(&variants, Some(gateway.address), concurrency.max(1), pause)?);
        }
    }
    report.leftover.extend(baseline.compare(&gateway)?);
    gateway.stop()?;
    report.leftover.extend(leftover::on_machine(&marks)?);
    report.finish(&args.results)
}

/// The first executions of a server: it has opened, unpacked and started afterwards what it does once.
pub(super) fn warm_up(gateway: &Gateway) -> Result<(), BenchError> {
    let mut connection = Connection::open(gateway.address)?;
    let request = connection.request("POST", "/api/v1/execute", Some(r#"{"command":["true"]}"#));
    for _ in 0..20 {
        let answer = connection.send(&request)?;
        if answer.status != 200 {
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            return Err(BenchError::Answer(format!("status {}: {text}\n{}", answer.status, gateway.log())));
        }
    }
    Ok(())
}
