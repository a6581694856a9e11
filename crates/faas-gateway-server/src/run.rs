//! From a configuration to a serving process and back: log, port, engine, connections, shutdown.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use faas_executor::store::StoreError;
use faas_executor::{Engine, EngineConfig, StartError};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::answer_budget::AnswerBudget;
use crate::app::App;
use crate::body_budget::BodyBudget;
use crate::config::Config;
use crate::idempotency::Keys;
use crate::serve::{ConnectionLimits, Server};
use crate::state::State;

/// `EX_USAGE` of sysexits(3): the configuration is wrong.
pub const EXIT_USAGE: u8 = 64;
/// How long answers may take to go out after everything that ran was ended.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// How long the removal of sandboxes may take before they are ended together with all else.
const LAST_REMOVALS: Duration = Duration::from_secs(10);

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("{0}")]
    Log(String),
    #[error("cannot listen on {address}: {source}{}", port_hint(source))]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
    #[error("cannot start the engine: {0}")]
    Engine(#[from] StartError),
    #[error("{what}: {source}")]
    Io { what: &'static str, source: std::io::Error },
}

fn port_hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "; another program has this port: choose another with --listen",
        _ => "",
    }
}

fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> RunError {
    move |source| RunError::Io { what, source }
}

impl RunError {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Engine(
                StartError::InUse { .. } | StartError::Store { source: StoreError::Foreign { .. }, .. },
            ) => ExitCode::from(EXIT_USAGE),
            Self::Log(_) | Self::Listen { .. } | Self::Engine(_) | Self::Io { .. } => ExitCode::FAILURE,
        }
    }
}

/// Serves until a signal ends it.
#[must_use]
pub fn run(config: Config) -> ExitCode {
    let ended = crate::logging::start(config.log_format, &config.log_filter).map_err(RunError::Log);
    let ended = ended.and_then(|()| {
        #[cfg(target_os = "linux")]
        raise_open_files();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(io("async runtime"))?;
        runtime.block_on(serve(config))
    });
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("faas-gateway-server: {error}");
            error.exit_code()
        }
    }
}

/// Lets this process have as many descriptors open as its hard limit says: a connection takes one, a stream of output two.
/// The soft limit is low, as a rule, for the sake of programs that use select(2) (getrlimit(2), `RLIMIT_NOFILE`).
#[cfg(target_os = "linux")]
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::debug!(?current, ?maximum, "more descriptors may be open"),
        Err(error) => tracing::warn!(%error, ?current, "no more descriptors may be open than that"),
    }
}

async fn serve(config: Config) -> Result<ExitCode, RunError> {
    let mut signals = Signals::catch()?;
    let address = config.listen;
    let listener = TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
    let address = listener.local_addr().map_err(io("address of the port"))?;

    let engine = Engine::start(EngineConfig {
        data_dir: config.data_dir.clone(),
        database_url: config.database_url.clone(),
        #[cfg(feature = "docker")]
        docker: config.docker.clone(),
        #[cfg(all(target_os = "linux", feature = "native"))]
        launcher_exe: crate::config::OWN_PROGRAM.into(),
        default_runtime: config.runtime,
        default_image: config.default_image.clone(),
        max_concurrent: config.max_concurrent,
        max_queued: config.max_queued,
        #[cfg(all(target_os = "linux", feature = "native"))]
        native_slots: config.native_slots,
        #[cfg(all(target_os = "linux", feature = "native"))]
        images: config.images.clone(),
        pull: config.pull,
        max_instances: config.max_instances,
        outputs: config.outputs,
        events: config.events,
    })
    .await?;

    let state = Arc::new(State {
        #[cfg(all(target_os = "linux", feature = "native"))]
        images: engine.images().clone(),
        instances: engine.instances(),
        events: engine.events(),
        engine: Box::new(engine.clone()),
        store: engine.store().clone(),
        keys: Keys::new(engine.store().clone(), config.idempotency_ttl),
        limits: config.limits,
        bodies: BodyBudget::new(config.max_body_bytes, config.max_body_bytes_total),
        answers: AnswerBudget::new(config.max_answer_bytes_total),
        body_timeout: config.read_timeout,
        started: Instant::now(),
        draining: CancellationToken::new(),
    });
    let limits = ConnectionLimits { connections: config.max_connections, stalled_after: config.read_timeout };
    let server = Server::start(listener, App::new(Arc::clone(&state)), limits);
    announce(address)?;
    tracing::info!(%address, data_dir = %config.data_dir.display(), "ready; no authentication: loopback only");

    let first = signals.next().await;
    tracing::info!(signal = first.name, "shutting down");
    state.set_draining();
    let ending = async {
        end(server, &engine, config.drain_timeout).await;
        // The last requests have still to say how they ended.
        state.keys.settle().await;
        engine.close_store().await;
    };
    tokio::select! {
        () = ending => {
            tracing::info!("ended");
            Ok(ExitCode::SUCCESS)
        }
        second = signals.next() => {
            // The launcher ends its sandboxes when this process is gone.
            tracing::warn!(signal = second.name, "ended at once by a second signal");
            std::process::exit(128 + second.number)
        }
    }
}

/// Takes no more connections, lets what runs come to its end, and ends it when the time is up.
async fn end(server: Server, engine: &Engine, drain_timeout: Duration) {
    server.stop_accepting();
    if tokio::time::timeout(drain_timeout, server.all_closed()).await.is_ok() {
        // Nothing runs any more; the last sandboxes are still being removed.
        engine.shutdown(LAST_REMOVALS).await;
        return;
    }
    tracing::warn!("requests are still running after the drain timeout; they are ended");
    // Whoever waits is told so: executions end as lost, and their answers go out.
    engine.shutdown(Duration::ZERO).await;
    if tokio::time::timeout(LAST_ANSWERS, server.all_closed()).await.is_err() {
        server.abort();
        server.all_closed().await;
    }
}

/// The one line on stdout, for whoever waits for it. A reader that is gone is no reason to stop.
fn announce(address: std::net::SocketAddr) -> Result<(), RunError> {
    let mut stdout = std::io::stdout().lock();
    let said = writeln!(stdout, "listening on http://{address}").and_then(|()| stdout.flush());
    match said {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(io("stdout")(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A signal that ends the server.
#[derive(Clone, Copy)]
struct Ending {
    name: &'static str,
    number: i32,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> Result<Self, RunError> {
        let catch = |kind| signal(kind).map_err(io("signal handlers"));
        Ok(Self { terminate: catch(SignalKind::terminate())?, interrupt: catch(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> Ending {
        tokio::select! {
            _ = self.terminate.recv() => {
                Ending { name: "SIGTERM", number: SignalKind::terminate().as_raw_value() }
            }
            _ = self.interrupt.recv() => {
                Ending { name: "SIGINT", number: SignalKind::interrupt().as_raw_value() }
            }
        }
    }
}
