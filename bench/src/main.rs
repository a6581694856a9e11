//! `faas-bench`: measures the gateway beside its peers in one run, on one machine, and compares two such runs.
//!
//! It starts the server, the peers and the small processes that spawn them by itself, loads nothing but loopback,
//! and ends all of it. What each bench measures and how stands in `bench/README.md`.

mod bench;
mod cgroup;
mod compare;
mod disk;
mod engine;
mod error;
mod floor;
mod gateway;
mod helper;
mod host;
mod http;
mod image;
mod import;
mod leftover;
mod peer;
mod proc;
mod report;
mod schedule;
mod stats;
mod tree;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

#[derive(Parser)]
#[command(version, about = "Measures the gateway beside its peers")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs benches, one after the other.
    Run(RunArgs),
    /// Compares two result files.
    Compare(compare::CompareArgs),
    /// The small process that spawns what is measured. Not for use by hand.
    #[command(hide = true)]
    Helper,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Bench {
    /// Ephemeral `true` over HTTP, beside the floors, bwrap, runc and docker.
    ColdTrue,
    /// Ephemeral `python3 -c 'print(1)'` over HTTP, beside the same on the host and in bwrap.
    ColdPython,
    /// Ephemeral `true` over HTTP on the runtime docker, beside `docker run --rm` on the same engine.
    ColdDocker,
    /// `true` in live instances over HTTP, native and docker, beside `docker exec` in the same container.
    WarmExec,
    /// What the server holds, and computes, for each of 200 idle instances.
    IdleInstances,
    /// Memory of an idle sandbox's own processes.
    Memory,
    /// What the server holds before and after many executions.
    Growth,
    /// An image from an archive to a root directory, beside `skopeo copy` and `umoci unpack`.
    Unpack,
    /// Ephemeral `true` over HTTP in images of the store with 1 and with 40 layers, beside the same in `host`.
    PresentImage,
    /// Requests per second on a route that does nothing, beside a bare axum server.
    Gateway,
}

#[derive(Args)]
struct RunArgs {
    /// The benches to run.
    #[arg(required = true, value_enum)]
    names: Vec<Bench>,
    /// The server's release binary.
    #[arg(long)]
    server: PathBuf,
    /// The directory for the result files.
    #[arg(long)]
    results: PathBuf,
    /// Measured runs of each variant; of docker a tenth of it, of `unpack` a twentieth.
    #[arg(long, default_value_t = 200)]
    n: usize,
    /// How many at once; several with commas between.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    concurrency: Vec<usize>,
    /// Executions of the bench `growth`.
    #[arg(long, default_value_t = 10_000)]
    executions: usize,
    /// Runs the bench `growth` for so long instead, in seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Leaves the named variants out.
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// Leaves out the runs with 50 ms between.
    #[arg(long)]
    no_pause: bool,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Task::Helper => helper::serve(),
        Task::Compare(args) => compare::run(&args),
        Task::Run(args) => {
            if let Err(error) = proc::become_subreaper() {
                eprintln!("faas-bench: {error}");
                return ExitCode::FAILURE;
            }
            let mut failed = false;
            for &name in &args.names {
                let result = match name {
                    Bench::ColdTrue => bench::cold::true_command(&args),
                    Bench::ColdPython => bench::cold::python(&args),
                    Bench::ColdDocker => bench::docker::cold(&args),
                    Bench::WarmExec => bench::docker::warm(&args),
                    Bench::IdleInstances => bench::idle_instances::run(&args),
                    Bench::Memory => bench::memory::run(&args),
                    Bench::Growth => bench::growth::run(&args),
                    Bench::Unpack => bench::unpack::run(&args),
                    Bench::PresentImage => bench::present_image::run(&args),
                    Bench::Gateway => bench::gateway::run(&args),
                };
                match result {
                    Ok(clean) => failed |= !clean,
                    Err(error) => {
                        eprintln!("faas-bench: {name:?}: {error}");
                        failed = true;
                    }
                }
            }
            if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
    }
}
