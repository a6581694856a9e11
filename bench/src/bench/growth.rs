//! Bench `growth`: what the server and the machine hold before and after many executions. More than a bound fails.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{cold, marks, scratch};
use crate::RunArgs;
use crate::error::BenchError;
use crate::gateway::Gateway;
use crate::http::Connection;
use crate::leftover::{self, Baseline};
use crate::proc;
use crate::report::Report;

/// Executions at once.
const WORKERS: usize = 8;

/// Executions before the first count: allocator arenas, thread stacks and slots are there afterwards.
const WARM_UP: usize = 400;

/// How much each number may grow from after the warm-up to the end.
const BOUNDS: [(&str, f64); 6] = [
    ("PSS KiB", 4096.0),
    ("RSS KiB", 4096.0),
    ("descriptors", 8.0),
    ("threads", 4.0),
    ("processes", 0.0),
    ("mounts", 0.0),
];

/// One count of everything, in the order of [`BOUNDS`].
fn count(gateway: &Gateway) -> Result<[f64; 6], BenchError> {
    let descendants = proc::descendants(gateway.pid())?;
    let mounts = "/proc/self/mountinfo";
    let mut lines = 0;
    for pid in std::iter::once(gateway.pid()).chain(descendants.iter().map(|process| process.pid)) {
        // One that has just ended has no mounts.
        let text = std::fs::read_to_string(format!("/proc/{pid}/mountinfo"));
        lines += text.map_or(0, |text| text.lines().count());
    }
    if lines == 0 {
        return Err(BenchError::Answer(format!("no mounts in {mounts}")));
    }
    Ok([
        proc::pss_kib(gateway.pid())? as f64,
        proc::rss_kib(gateway.pid())? as f64,
        proc::descriptors(gateway.pid())? as f64,
        proc::threads(gateway.pid())? as f64,
        descendants.len() as f64,
        lines as f64,
    ])
}

pub(crate) fn run(args: &RunArgs) -> Result<bool, BenchError> {
    let mut report = Report::new("growth");
    let scratch = scratch()?;
    let gateway = Gateway::start(&args.server, scratch.path())?;
    let marks = marks(&scratch, &gateway);
    cold::warm_up(&gateway)?;
    execute(gateway.address, WARM_UP, None)?;
    crate::schedule::sleep(Duration::from_secs(1));
    let baseline = Baseline::take(&gateway)?;
    let before = count(&gateway)?;
    let begin = Instant::now();
    let executed = match args.seconds {
        Some(seconds) => execute(gateway.address, usize::MAX, Some(begin + Duration::from_secs(seconds)))?,
        None => execute(gateway.address, args.executions, None)?,
    };
    let seconds = begin.elapsed().as_secs_f64();
    report.leftover.extend(baseline.compare(&gateway)?);
    let after = count(&gateway)?;
    report.figure("executions", executed as f64, "executions", false);
    report.figure("executions per second, 8 at once", executed as f64 / seconds, "1/s", false);
    for (((name, bound), before), after) in BOUNDS.iter().zip(before).zip(after) {
        report.figure(&format!("{name}, after warm-up"), before, "", true);
        report.figure(&format!("{name}, at the end"), after, "", true);
        if after - before > *bound {
            report.exceeded.push(format!("{name} grew from {before} to {after}, more than {bound}"));
        }
    }
    gateway.stop()?;
    report.leftover.extend(leftover::on_machine(&marks)?);
    report.finish(&args.results)
}

/// Runs `true` up to `total` times or until `end`, [`WORKERS`] at once; each must have exited with 0. Returns how many.
fn execute(address: SocketAddr, total: usize, end: Option<Instant>) -> Result<usize, BenchError> {
    let begun = AtomicUsize::new(0);
    let another =
        || end.is_none_or(|end| Instant::now() < end) && begun.fetch_add(1, Ordering::Relaxed) < total;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                scope.spawn(|| -> Result<usize, BenchError> {
                    let mut connection = Connection::open(address)?;
                    let request =
                        connection.request("POST", "/api/v1/execute", Some(r#"{"command":["true"]}"#));
                    let mut done = 0;
                    while another() {
                        let answer = connection.send(&request)?;
                        let text = String::from_utf8_lossy(&answer.body);
                        if answer.status != 200 || !text.contains(r#""exit_code":0"#) {
                            return Err(BenchError::Answer(format!("status {}: {text}", answer.status)));
                        }
                        done += 1;
                    }
                    Ok(done)
                })
            })
            .collect();
        let mut done = 0;
        for worker in workers {
            done += worker.join().map_err(|_| BenchError::Answer("a worker died".to_owned()))??;
        }
        Ok(done)
    })
}
