//! A live container with the guest agent in it, made and used through the library's seam as a server would.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use faas_executor::DataDir;
use faas_executor::docker::{DockerConfig, DockerExecutor, TransportChoice};
use faas_executor::guest::{AgentConnection, Collected, ExecCall};
use faas_executor::sandbox::{Limits, SandboxExecutor, SandboxHandle, SandboxSpec};
use faas_guest_protocol::{ExecRequest, Program};
use faas_types::{Network, SandboxId};
use tokio::runtime::Runtime;

use crate::engine::{Engine, IMAGE};
use crate::error::BenchError;

/// A container, and a connection to its agent for each worker.
pub(crate) struct Live {
    runtime: Runtime,
    executor: DockerExecutor,
    sandbox: SandboxHandle,
    connections: Vec<Mutex<AgentConnection>>,
    /// The container's name.
    pub(crate) container: String,
    pub(crate) gateway_id: String,
    /// Its lock.
    _data_dir: DataDir,
}

fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::Variant { variant: "faas live container".to_owned(), reason: error.to_string() }
}

impl Live {
    /// Makes it, with a data directory below `scratch`.
    pub(crate) fn make(engine: &Engine, scratch: &Path, workers: usize) -> Result<Self, BenchError> {
        let path = scratch.join("data");
        let runtime = Runtime::new().map_err(BenchError::io("async runtime"))?;
        let data_dir = DataDir::open(&path).map_err(failed)?;
        let gateway_id = data_dir.gateway_id().to_string();
        let config = DockerConfig {
            host: engine.host.parse().map_err(failed)?,
            transport: TransportChoice::Auto,
            runtime: None,
            auth_file: None,
        };
        let limits = Limits { memory_bytes: 512 << 20, cpu_millicores: 1000, pids: 256, disk_bytes: None };
        let id = SandboxId("sb-bench".to_owned());
        let spec = SandboxSpec::new(id, IMAGE.to_owned(), limits, Network::None);
        let (executor, sandbox, connections) = runtime.block_on(async {
            let executor = DockerExecutor::start(&data_dir, config, Vec::new(), 1).map_err(failed)?;
            let mut sandbox = executor.create(&spec).await.map_err(failed)?;
            let mut connections = Vec::new();
            for _ in 0..workers {
                let stream = match sandbox.agent.take() {
                    Some(stream) => stream,
                    None => executor.connect(&sandbox).await.map_err(failed)?,
                };
                connections.push(Mutex::new(AgentConnection::new(stream)));
            }
            Ok::<_, BenchError>((executor, sandbox, connections))
        })?;
        let container = format!("faas-{gateway_id}-sb-bench");
        Ok(Self { runtime, executor, sandbox, connections, container, gateway_id, _data_dir: data_dir })
    }

    /// Runs `true` in it; its time in nanoseconds, from the request until its end is known.
    pub(crate) fn run_true(&self, worker: usize) -> Result<u64, BenchError> {
        let call = ExecCall {
            request: ExecRequest {
                program: Program::Argv(vec!["true".to_owned()]),
                env: vec![("PATH".to_owned(), "/bin".to_owned())],
                cwd: None,
                user: None,
                files: Vec::new(),
                stdin: false,
                timeout_ms: Some(30_000),
                max_output_bytes: 1 << 20,
                cpu_time_limit_s: None,
                lasting: None,
            },
            files: Vec::new(),
            stdin: None,
            held: None,
        };
        let mut connection = self.connections[worker].lock().unwrap_or_else(PoisonError::into_inner);
        let mut collected = Collected::default();
        let begin = Instant::now();
        let ended = self.runtime.block_on(connection.exec(call, &mut collected));
        let took = begin.elapsed().as_nanos() as u64;
        let exit = ended.map_err(failed)?;
        if exit.code != Some(0) || !collected.stdout.is_empty() || !collected.stderr.is_empty() {
            return Err(failed(format!("{exit:?} {collected:?}")));
        }
        Ok(took)
    }

    /// Removes it.
    pub(crate) fn end(self) -> Result<(), BenchError> {
        let Self { runtime, executor, sandbox, connections, .. } = self;
        drop(connections);
        runtime.block_on(async {
            executor.destroy(sandbox).await.map_err(failed)?;
            executor.stop().await;
            Ok(())
        })
    }
}
