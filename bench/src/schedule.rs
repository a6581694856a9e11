//! Runs the variants of a bench interleaved: a few runs of each in turn, round after round, so that whatever else the
//! machine does in that minute falls on all of them alike.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::error::BenchError;
use crate::helper::{Helper, Order};
use crate::http::Connection;
use crate::import::Import;
use crate::report::{Layer, Series, Table};
use crate::stats::summarise;

/// Rounds that the runs are spread over, where there are enough of them.
const ROUNDS: usize = 10;

/// Where a command in a fresh sandbox is asked for.
pub(crate) const EXECUTE: &str = "/api/v1/execute";

/// What a variant does.
pub(crate) enum Work {
    /// Orders for the helper, one for each worker.
    Helper(Vec<Order>),
    /// A POST that runs a command, to this path with this body; the command must exit with 0 and print this.
    Execute { path: String, body: String, stdout: String },
    /// An image added to the server's store, and removed again.
    Import(Import),
}

/// One line of the table.
pub(crate) struct Variant {
    pub(crate) name: String,
    pub(crate) layer: Layer,
    pub(crate) work: Work,
    /// Measured runs over all workers.
    pub(crate) n: usize,
}

/// Blocks this thread.
pub(crate) fn sleep(time: Duration) {
    #[expect(
        clippy::disallowed_methods,
        reason = "a thread of the bench, in no async runtime; the pause is the measure"
    )]
    std::thread::sleep(time);
}

/// Times of one variant, from all workers.
#[derive(Default)]
struct Times {
    ns: Vec<u64>,
    create_ns: Vec<u64>,
    exec_ns: Vec<u64>,
    wall: Duration,
}

/// Measures all variants at one concurrency. `address` is the server's, where a variant needs one.
pub(crate) fn measure(
    variants: &[Variant],
    address: Option<SocketAddr>,
    concurrency: usize,
    pause: Option<Duration>,
) -> Result<Table, BenchError> {
    let barrier = Barrier::new(concurrency);
    let failed = AtomicBool::new(false);
    let error = Mutex::new(None);
    let times: Vec<Mutex<Times>> = variants.iter().map(|_| Mutex::new(Times::default())).collect();
    std::thread::scope(|scope| {
        for worker in 0..concurrency {
            let shared =
                Shared { variants, times: &times, barrier: &barrier, failed: &failed, error: &error };
            scope.spawn(move || shared.work(worker, concurrency, address, pause));
        }
    });
    if let Ok(Some(error)) = error.into_inner() {
        return Err(error);
    }
    let mut series = Vec::new();
    for (variant, times) in variants.iter().zip(times) {
        let times = times.into_inner().map_err(|_| BenchError::Helper("a worker died".to_owned()))?;
        series.push(Series {
            name: variant.name.clone(),
            layer: variant.layer,
            per_second: times.ns.len() as f64 / times.wall.as_secs_f64().max(1e-9),
            server_create_p50_us: (!times.create_ns.is_empty()).then(|| summarise(&times.create_ns).p50_us),
            server_exec_p50_us: (!times.exec_ns.is_empty()).then(|| summarise(&times.exec_ns).p50_us),
            summary: summarise(&times.ns),
        });
    }
    let pause_ms = pause.map_or(0, |pause| pause.as_millis() as u64);
    Ok(Table { title: String::new(), concurrency, pause_ms, series })
}

struct Shared<'a> {
    variants: &'a [Variant],
    times: &'a [Mutex<Times>],
    barrier: &'a Barrier,
    failed: &'a AtomicBool,
    error: &'a Mutex<Option<BenchError>>,
}

impl Shared<'_> {
    /// One worker's whole life. After an error it goes on meeting the others at the barriers, without work.
    fn work(&self, worker: usize, concurrency: usize, address: Option<SocketAddr>, pause: Option<Duration>) {
        let mut tools = match Tools::open(address) {
            Ok(tools) => Some(tools),
            Err(error) => {
                self.fail(error);
                None
            }
        };
        let plans: Vec<Plan> =
            self.variants.iter().map(|variant| Plan::new(variant.n, concurrency)).collect();
        let rounds = plans.iter().map(|plan| plan.rounds).max().unwrap_or(0);
        for round in 0..=rounds {
            for turn in 0..self.variants.len() {
                let index = (turn + round) % self.variants.len();
                let plan = &plans[index];
                // Round 0 warms up: one run of each, not counted.
                let count = if round == 0 { 1 } else { plan.each };
                if round > plan.rounds {
                    continue;
                }
                self.barrier.wait();
                let begin = Instant::now();
                let mut block = Times::default();
                for _ in 0..count {
                    if self.failed.load(Ordering::Relaxed) {
                        break;
                    }
                    if let Some(pause) = pause {
                        sleep(pause);
                    }
                    if let Some(tools) = &mut tools
                        && let Err(error) = tools.once(&self.variants[index], worker, &mut block)
                    {
                        self.fail(error);
                    }
                }
                let leader = self.barrier.wait().is_leader();
                if round == 0 {
                    continue;
                }
                if let Ok(mut times) = self.times[index].lock() {
                    times.ns.append(&mut block.ns);
                    times.create_ns.append(&mut block.create_ns);
                    times.exec_ns.append(&mut block.exec_ns);
                    if leader {
                        times.wall += begin.elapsed();
                    }
                }
            }
        }
    }

    fn fail(&self, error: BenchError) {
        self.failed.store(true, Ordering::Relaxed);
        if let Ok(mut first) = self.error.lock() {
            first.get_or_insert(error);
        }
    }
}

/// How the runs of a variant are spread.
struct Plan {
    rounds: usize,
    each: usize,
}

impl Plan {
    fn new(n: usize, concurrency: usize) -> Self {
        let each = (n / (ROUNDS * concurrency)).max(1);
        Self { rounds: n.div_ceil(each * concurrency).max(1), each }
    }
}

/// What a worker measures with: a helper process and, where there is a server, a kept connection, both its own.
struct Tools {
    helper: Helper,
    connection: Option<Connection>,
}

impl Tools {
    fn open(address: Option<SocketAddr>) -> Result<Self, BenchError> {
        Ok(Self { helper: Helper::start()?, connection: address.map(Connection::open).transpose()? })
    }

    fn connection(&mut self) -> Result<&mut Connection, BenchError> {
        self.connection.as_mut().ok_or_else(|| BenchError::Helper("no server to connect to".to_owned()))
    }

    fn once(&mut self, variant: &Variant, worker: usize, times: &mut Times) -> Result<(), BenchError> {
        match &variant.work {
            Work::Helper(orders) => {
                times.ns.push(self.helper.carry_out(&variant.name, &orders[worker % orders.len()])?)
            }
            Work::Import(import) => times.ns.push(import.once(self.connection()?)?),
            Work::Execute { path, body, stdout } => {
                let connection = self.connection()?;
                let request = connection.request("POST", path, Some(body));
                let begin = Instant::now();
                let answer = connection.send(&request)?;
                times.ns.push(begin.elapsed().as_nanos() as u64);
                let text = String::from_utf8_lossy(&answer.body);
                let value: Value = serde_json::from_str(&text).unwrap_or_default();
                if answer.status != 200 || value["exit_code"] != 0 || value["stdout"] != stdout.as_str() {
                    return Err(BenchError::Answer(format!("status {}: {text}", answer.status)));
                }
                for (name, list) in [("create_us", &mut times.create_ns), ("exec_us", &mut times.exec_ns)] {
                    list.extend(value["timings"][name].as_u64().map(|us| us * 1000));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Plan;

    #[test]
    fn runs_are_spread_over_rounds_and_bounded() {
        for (n, concurrency) in [(200, 1), (200, 4), (200, 32), (20, 1), (1, 32)] {
            let plan = Plan::new(n, concurrency);
            let runs = plan.rounds * plan.each * concurrency;
            assert!(runs >= n && runs < n + plan.each * concurrency, "{n} at {concurrency}: {runs}");
        }
    }
}
