//! Pausing a native sandbox for real. This test program is the launcher, too, and the one of another test.

use std::ffi::OsStr;
use std::process::ExitCode;
use std::time::Duration;

use faas_guest_protocol::{ExecRequest, Program};
use faas_test_support::needs;
use faas_types::{Network, SandboxId};

use super::{NativeConfig, NativeExecutor, launcher};
use crate::data_dir::DataDir;
use crate::guest::{AgentConnection, Collected, ExecCall};
use crate::sandbox::{HOST_IMAGE, Limits, SandboxExecutor as _, SandboxHandle, SandboxSpec};

fn other_program(arguments: &[&OsStr]) -> Option<ExitCode> {
    match arguments {
        [one] if *one == launcher::ARGUMENT => Some(launcher::main()),
        [one] if *one == launcher::tests::ARGUMENT => Some(launcher::tests::ending()),
        _ => None,
    }
}

faas_test_support::before_main!(other_program);

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A sandbox in which one process uses all the CPU time that it is given.
async fn busy(executor: &NativeExecutor) -> (SandboxHandle, tokio::task::JoinHandle<()>) {
    let limits = Limits { memory_bytes: 64 << 20, cpu_millicores: 500, pids: 16, disk_bytes: None };
    let spec =
        SandboxSpec::new(SandboxId("sb-pause".to_owned()), HOST_IMAGE.to_owned(), limits, Network::None);
    let mut sandbox = executor.create(&spec).await.unwrap();
    let stream = match sandbox.agent.take() {
        Some(stream) => stream,
        None => executor.connect(&sandbox).await.unwrap(),
    };
    let run = tokio::spawn(async move {
        let request = ExecRequest {
            program: Program::Shell("while :; do :; done".to_owned()),
            env: Vec::new(),
            cwd: None,
            user: None,
            files: Vec::new(),
            stdin: false,
            timeout_ms: None,
            max_output_bytes: 1024,
            cpu_time_limit_s: None,
            finish_ms: None,
            lasting: None,
        };
        let call = ExecCall { request, files: Vec::new(), stdin: None, held: None };
        // It ends with its sandbox.
        let ended = AgentConnection::new(stream).exec(call, &mut Collected::default()).await;
        assert!(!ended.is_ok_and(|exit| exit.code == Some(0)));
    });
    (sandbox, run)
}

async fn cpu_us(executor: &NativeExecutor, sandbox: &SandboxHandle) -> u64 {
    executor.account(sandbox).await.unwrap().usage.cpu_us.unwrap()
}

/// Returns when it has used more than `beyond`.
async fn until_it_uses_more(executor: &NativeExecutor, sandbox: &SandboxHandle, beyond: u64) {
    while cpu_us(executor, sandbox).await <= beyond {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[tokio::test]
async fn a_paused_sandbox_uses_no_cpu_time_and_goes_on_where_it_was() {
    needs!(Root);
    let dir = tempfile::tempdir().unwrap();
    let data_dir = DataDir::open(&dir.path().join("data")).unwrap();
    let launcher_exe = std::env::current_exe().unwrap();
    let config = NativeConfig { launcher_exe, spare_slots: 1, images_dir: None, lasting: Vec::new() };
    let executor = NativeExecutor::start(&data_dir, config).await.unwrap();
    let (sandbox, run) = busy(&executor).await;
    until_it_uses_more(&executor, &sandbox, 50_000).await;
    // Resumed or not, once more is no error.
    executor.resume(&sandbox).await.unwrap();
    for _ in 0..3 {
        executor.pause(&sandbox).await.unwrap();
        executor.pause(&sandbox).await.unwrap();
        let paused_at = cpu_us(&executor, &sandbox).await;
        for _ in 0..10 {
            tokio::time::sleep(LOOK_EVERY).await;
            assert_eq!(cpu_us(&executor, &sandbox).await, paused_at);
        }
        executor.resume(&sandbox).await.unwrap();
        until_it_uses_more(&executor, &sandbox, paused_at + 10_000).await;
    }
    // One that is paused ends as any other.
    executor.pause(&sandbox).await.unwrap();
    executor.destroy(sandbox).await.unwrap();
    run.await.unwrap();
    executor.stop().await;
}
