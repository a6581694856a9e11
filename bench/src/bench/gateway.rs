//! Bench `gateway`: requests per second on routes that do no work, beside a bare axum server in this process.

use std::net::SocketAddr;
use std::time::Instant;

use axum::Router;
use axum::routing::get;

use super::{cold, marks, scratch};
use crate::RunArgs;
use crate::error::BenchError;
use crate::gateway::Gateway;
use crate::http::Connection;
use crate::leftover;
use crate::report::{Layer, Report, Series, Table};
use crate::stats::summarise;

/// Connections at once.
const WORKERS: usize = 8;

/// Requests of each variant in a round, over all connections.
const REQUESTS: usize = 8000;

/// Rounds over all variants.
const ROUNDS: usize = 5;

/// What the bare server answers: about as long as the gateway's own answer to `/livez`.
const HELLO: &str = r#"{"status":"ok"}"#;

pub(crate) fn run(args: &RunArgs) -> Result<bool, BenchError> {
    let mut report = Report::new("gateway");
    let scratch = scratch()?;
    let bare = Bare::start()?;
    let gateway = Gateway::start(&args.server, scratch.path())?;
    let marks = marks(&scratch, &gateway);
    cold::warm_up(&gateway)?;
    let variants = [
        ("bare axum", Layer::Floor, bare.address, "/"),
        ("faas /livez", Layer::Ours, gateway.address, "/livez"),
        ("faas /health", Layer::Ours, gateway.address, "/health"),
    ];
    let mut times: Vec<(Vec<u64>, f64)> = variants.iter().map(|_| (Vec::new(), 0.0)).collect();
    for _ in 0..ROUNDS {
        for (&(_, _, address, path), (all, wall)) in variants.iter().zip(&mut times) {
            let begin = Instant::now();
            all.extend(load(address, path)?);
            *wall += begin.elapsed().as_secs_f64();
        }
    }
    let series = variants
        .iter()
        .zip(&times)
        .map(|(&(name, layer, _, _), (all, wall))| Series {
            name: name.to_owned(),
            layer,
            per_second: all.len() as f64 / wall,
            server_create_p50_us: None,
            server_exec_p50_us: None,
            summary: summarise(all),
        })
        .collect::<Vec<_>>();
    for series in &series[1..] {
        let share = series.per_second / first_rate(&times) * 100.0;
        report.figure(&format!("{}: requests per second, of bare axum's", series.name), share, "%", false);
    }
    report.tables.push(Table { title: String::new(), concurrency: WORKERS, pause_ms: 0, series });
    gateway.stop()?;
    report.leftover.extend(leftover::on_machine(&marks)?);
    report.finish(&args.results)
}

fn first_rate(times: &[(Vec<u64>, f64)]) -> f64 {
    times.first().map_or(0.0, |(all, wall)| all.len() as f64 / wall)
}

fn load(address: SocketAddr, path: &str) -> Result<Vec<u64>, BenchError> {
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                scope.spawn(|| -> Result<Vec<u64>, BenchError> {
                    let mut connection = Connection::open(address)?;
                    let request = connection.request("GET", path, None);
                    let mut times = Vec::with_capacity(REQUESTS / WORKERS);
                    for _ in 0..REQUESTS / WORKERS {
                        let begin = Instant::now();
                        let answer = connection.send(&request)?;
                        times.push(begin.elapsed().as_nanos() as u64);
                        if answer.status != 200 {
                            return Err(BenchError::Answer(format!("{path}: status {}", answer.status)));
                        }
                    }
                    Ok(times)
                })
            })
            .collect();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.join().map_err(|_| BenchError::Answer("a worker died".to_owned()))??);
        }
        Ok(all)
    })
}

/// The bare server: one route, no layers. Ends with its runtime.
struct Bare {
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Bare {
    fn start() -> Result<Self, BenchError> {
        let failed = BenchError::io("bare axum server");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed)?;
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .map_err(BenchError::io("bare axum server"))?;
        let address = listener.local_addr().map_err(BenchError::io("bare axum server"))?;
        let routes = Router::new()
            .route("/", get(|| async { ([(axum::http::header::CONTENT_TYPE, "application/json")], HELLO) }));
        runtime.spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                eprintln!("faas-bench: bare axum server: {error}");
            }
        });
        Ok(Self { address, _runtime: runtime })
    }
}
