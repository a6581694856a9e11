//! Lasting sandboxes, at the seam: what becomes of them when the server, the engine or the container is ended.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use faas_executor::DataDir;
use faas_executor::docker::{DockerConfig, DockerExecutor, TransportChoice};
use faas_executor::guest::{AgentConnection, AgentStream, Collected, ExecCall};
use faas_executor::sandbox::{
    Found, Lifetime, Limits, SandboxError, SandboxExecutor as _, SandboxHandle, SandboxRecord, SandboxSpec,
};
use faas_guest_protocol::{ExecRequest, Program};
use faas_test_support::needs;
use faas_types::{Network, SandboxId};

use super::{OwnEngine, SETTLE, containers, docker, eventually, temporary, test_host};

type Lasting = Vec<(SandboxId, Option<SandboxRecord>)>;

/// A server's backend, with its data directory.
struct Server {
    executor: DockerExecutor,
    data_dir: DataDir,
}

impl Server {
    fn start(host: &str, dir: &Path, lasting: Lasting) -> Self {
        Self::start_by(host, dir, lasting, TransportChoice::Auto)
    }

    fn start_by(host: &str, dir: &Path, lasting: Lasting, transport: TransportChoice) -> Self {
        let data_dir = DataDir::open(dir).unwrap();
        let docker = DockerConfig { host: host.parse().unwrap(), transport, runtime: None, auth_file: None };
        let executor = DockerExecutor::start(&data_dir, docker, lasting, 1).unwrap();
        Self { executor, data_dir }
    }

    /// A sandbox that is kept.
    async fn kept(&self, id: &str) -> (SandboxHandle, SandboxRecord) {
        let sandbox = self.executor.create(&spec(id)).await.unwrap();
        let record = self.executor.record(&sandbox).unwrap();
        self.executor.keep(&sandbox).await.unwrap();
        (sandbox, record)
    }

    /// What a shell says in a sandbox, over a connection of its own.
    async fn shell(&self, sandbox: &SandboxHandle, line: &str) -> String {
        say(self.executor.connect(sandbox).await.unwrap(), line).await
    }

    async fn adopt(&self, id: &str, record: &SandboxRecord) -> Found {
        self.executor.adopt(&spec(id), record).await.unwrap()
    }

    async fn live(&self, id: &str, record: &SandboxRecord) -> (SandboxHandle, bool) {
        match self.adopt(id, record).await {
            Found::Live { handle, paused } => (handle, paused),
            other => panic!("{other:?}"),
        }
    }

    async fn stopped(&self, id: &str, record: &SandboxRecord) -> String {
        match self.adopt(id, record).await {
            Found::Stopped { reason } => reason,
            other => panic!("{other:?}"),
        }
    }

    async fn revived(&self, id: &str, record: &SandboxRecord) -> (SandboxHandle, SandboxRecord) {
        let sandbox = self.executor.revive(&spec(id), record).await.unwrap();
        let record = self.executor.record(&sandbox).unwrap();
        self.executor.keep(&sandbox).await.unwrap();
        (sandbox, record)
    }

    /// Ends it, as a server that is told to end.
    async fn stop(self) -> DataDir {
        self.executor.stop().await;
        self.data_dir
    }
}

fn id(text: &str) -> SandboxId {
    SandboxId(text.to_owned())
}

const LIMITS: Limits = Limits { memory_bytes: 128 << 20, cpu_millicores: 1000, pids: 64, disk_bytes: None };

fn spec(name: &str) -> SandboxSpec {
    let mut spec = SandboxSpec::new(id(name), "alpine".to_owned(), LIMITS, Network::None);
    spec.lifetime = Lifetime::Lasting;
    spec
}

async fn say(agent: AgentStream, line: &str) -> String {
    let request = ExecRequest {
        program: Program::Shell(line.to_owned()),
        env: Vec::new(),
        cwd: None,
        user: None,
        files: Vec::new(),
        stdin: false,
        timeout_ms: None,
        max_output_bytes: 1 << 16,
        cpu_time_limit_s: None,
        finish_ms: None,
        lasting: None,
    };
    let call = ExecCall { request, files: Vec::new(), stdin: None, held: None };
    let mut collected = Collected::default();
    let mut agent = AgentConnection::new(agent);
    within(agent.exec(call, &mut collected)).await.unwrap();
    String::from_utf8(collected.stdout).unwrap()
}

/// Counts in a file for as long as it lives.
const COUNT: &str = "setsid sh -c 'n=0; while :; do n=$((n + 1)); echo $n >/count.new; mv /count.new /count; \
                     sleep 0.05; done' >/dev/null 2>&1 </dev/null & while [ ! -f /count ]; do sleep 0.05; done";

async fn counts_on(server: &Server, sandbox: &SandboxHandle) {
    let said = server.shell(sandbox, "cat /count; sleep 0.5; cat /count").await;
    let counts: Vec<u64> = said.lines().map(|line| line.parse().unwrap()).collect();
    assert!(counts.len() == 2 && counts[0] < counts[1], "{said}");
}

fn container_of(data_dir: &Path, sandbox: &str) -> String {
    let gateway = std::fs::read_to_string(data_dir.join("gateway-id")).unwrap();
    format!("faas-{}-{sandbox}", gateway.trim())
}

/// By its id, whatever its name.
fn container_id(record: &SandboxRecord) -> String {
    record.0["container"].as_str().unwrap().to_owned()
}

fn state(host: &str, container: &str) -> String {
    docker(host, &["inspect", "--format", "{{.State.Status}}", container]).trim().to_owned()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SETTLE, future).await.unwrap()
}

/// The first argument with which a test starts this program again as a server.
const SERVER: &str = "lasting-server";

/// `SERVER HOST DATA_DIR`: keeps one sandbox and makes another that it does not keep, says the record, and waits for its
/// end.
pub(super) fn server(arguments: &[&OsStr]) -> Option<ExitCode> {
    let words: Vec<&str> = arguments.iter().map(|word| word.to_str()).collect::<Option<_>>()?;
    let &[SERVER, host, dir] = words.as_slice() else { return None };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server = Server::start(host, Path::new(dir), Vec::new());
        let (kept, record) = server.kept("sb-kept").await;
        server.shell(&kept, COUNT).await;
        let other = server.executor.create(&spec("sb-not-kept")).await.unwrap();
        server.executor.record(&other).unwrap();
        println!("{}", serde_json::to_string(&record).unwrap());
        std::future::pending::<()>().await;
    });
    Some(ExitCode::SUCCESS)
}

/// A server in a process of its own.
struct Process(Child);

impl Process {
    fn start(host: &str, dir: &Path) -> (Self, SandboxRecord) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(SERVER).arg(host).arg(dir).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Self(command.spawn().unwrap());
        let mut line = String::new();
        BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (process, serde_json::from_str(&line).unwrap())
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        std::mem::forget(self);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended = self.0.kill().and_then(|()| self.0.wait());
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_server_kept_goes_on_and_what_it_did_not_keep_ends() {
    needs!(Root, Docker);
    let (host, dir) = (test_host(), temporary("lasting"));
    let (process, record) = Process::start(&host, &dir);
    process.kill();
    assert_eq!(containers(&host, &dir).len(), 2);
    let lasting = vec![(id("sb-kept"), Some(record.clone())), (id("sb-not-kept"), None)];
    let server = Server::start(&host, &dir, lasting);
    let (sandbox, paused) = server.live("sb-kept", &record).await;
    assert!(!paused);
    counts_on(&server, &sandbox).await;
    // Until somebody says what is to become of it.
    assert_eq!(containers(&host, &dir).len(), 2);
    server.executor.remove(&id("sb-not-kept"), None).await.unwrap();
    server.executor.remove(&id("sb-not-kept"), None).await.unwrap();
    assert_eq!(containers(&host, &dir), [container_of(&dir, "sb-kept")]);
    server.executor.destroy(sandbox).await.unwrap();
    assert_eq!(server.executor.leaks(&BTreeSet::new()).await.unwrap(), []);
    drop(server.stop().await);
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_a_record_of_ends_with_the_next_start() {
    needs!(Root, Docker);
    let (host, dir) = (test_host(), temporary("lasting"));
    let (process, _record) = Process::start(&host, &dir);
    process.kill();
    let server = Server::start(&host, &dir, Vec::new());
    eventually("containers are left", || containers(&host, &dir).is_empty()).await;
    drop(server.stop().await);
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_told_to_end_leaves_what_it_kept_and_nothing_else() {
    needs!(Root, Docker);
    let (host, dir) = (test_host(), temporary("lasting"));
    let server = Server::start(&host, &dir, Vec::new());
    // One place for executions, and it is free: lasting ones have none of it.
    let (kept, record) = server.kept("sb-1").await;
    let (halted, _) = server.kept("sb-2").await;
    let not_kept = server.executor.create(&spec("sb-3")).await.unwrap();
    let ended = server.executor.ended(&kept).unwrap();
    let ephemeral = SandboxSpec { lifetime: Lifetime::Server, ..spec("sb-4") };
    let ephemeral = within(server.executor.create(&ephemeral)).await.unwrap();
    assert!(matches!(server.executor.record(&ephemeral), Err(SandboxError::Unsupported(_))));
    assert!(matches!(server.executor.keep(&ephemeral).await, Err(SandboxError::Unsupported(_))));
    let halted = server.executor.halt(halted).await.unwrap();
    let owned = BTreeSet::from([id("sb-2")]);
    assert_eq!(server.executor.leaks(&owned).await.unwrap(), []);
    let data_dir = server.stop().await;
    drop((kept, not_kept, ephemeral, data_dir));
    let mut left = containers(&host, &dir);
    left.sort();
    assert_eq!(left, [container_of(&dir, "sb-1"), container_of(&dir, "sb-2")]);
    assert_eq!(state(&host, &left[0]), "running");
    assert_eq!(state(&host, &left[1]), "exited");

    let lasting = vec![(id("sb-1"), Some(record.clone())), (id("sb-2"), Some(halted.clone()))];
    let server = Server::start(&host, &dir, lasting);
    let (kept, _) = server.live("sb-1", &record).await;
    let reason = server.stopped("sb-2", &halted).await;
    assert!(tells_of(&reason, "was killed") && !reason.contains("was restarted"), "{reason}");
    server.executor.destroy(kept).await.unwrap();
    // It was watched by the server before.
    assert!(!within(ended).await.is_empty());
    server.executor.remove(&id("sb-2"), Some(&halted)).await.unwrap();
    drop(server.stop().await);
    assert_eq!(containers(&host, &dir), [""; 0]);
    std::fs::remove_dir_all(dir).unwrap();
}

/// Whether a reason has the words, or those of an engine that lost its own word of the end: where two of its threads come
/// upon a dying container at once it keeps exit code 255 for it (Docker's `DeleteTask`), seldom but in every version.
fn tells_of(reason: &str, words: &str) -> bool {
    reason.contains(words) || reason.contains("the engine does not know how")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_does_to_a_container_is_told() {
    needs!(Root, Docker);
    let (host, dir) = (test_host(), temporary("lasting"));
    let server = Server::start(&host, &dir, Vec::new());
    for (arguments, words) in [
        (["kill"].as_slice(), "was killed"),
        (&["stop", "--time", "0"], "was killed"),
        (&["restart", "--time", "0"], ""),
        // It is killed first, and then removed.
        (&["rm", "--force"], ""),
    ] {
        let (sandbox, record) = server.kept("sb-1").await;
        let ended = server.executor.ended(&sandbox).unwrap();
        let container = container_of(&dir, "sb-1");
        docker(&host, &[arguments, &[container.as_str()]].concat());
        let told = within(ended).await;
        // Where it is started again at once the engine has no word of how it ended.
        assert!(tells_of(&told, words), "{arguments:?}: {told}");
        drop(sandbox);
        match (server.adopt("sb-1", &record).await, arguments[0]) {
            (Found::Gone { reason }, "rm") => assert!(reason.contains("removed"), "{reason}"),
            (Found::Stopped { reason }, "restart") => {
                assert!(reason.contains("somebody else"), "{reason}");
                assert_eq!(state(&host, &container), "exited");
            }
            (Found::Stopped { reason }, "kill" | "stop") => assert!(tells_of(&reason, words), "{reason}"),
            (found, verb) => panic!("{verb}: {found:?}"),
        }
        server.executor.remove(&id("sb-1"), Some(&record)).await.unwrap();
    }
    let (sandbox, record) = server.kept("sb-1").await;
    server.shell(&sandbox, COUNT).await;
    docker(&host, &["pause", &container_of(&dir, "sb-1")]);
    drop(sandbox);
    let (sandbox, paused) = server.live("sb-1", &record).await;
    assert!(paused);
    server.executor.resume(&sandbox).await.unwrap();
    counts_on(&server, &sandbox).await;
    // Paused, and ended by the server itself.
    docker(&host, &["pause", &container_of(&dir, "sb-1")]);
    let record = server.executor.halt(sandbox).await.unwrap();
    let (sandbox, _) = server.revived("sb-1", &record).await;
    docker(&host, &["pause", &container_of(&dir, "sb-1")]);
    server.executor.destroy(sandbox).await.unwrap();
    drop(server.stop().await);
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revival_that_comes_to_nothing_leaves_the_files_and_no_process() {
    needs!(Root, Docker);
    let (host, dir) = (test_host(), temporary("lasting"));
    let server = Server::start(&host, &dir, Vec::new());
    let (sandbox, _) = server.kept("sb-1").await;
    server.shell(&sandbox, "echo here >/file").await;
    let record = server.executor.halt(sandbox).await.unwrap();
    let container = container_id(&record);
    for wait_ms in [0, 5, 20, 60, 120, 250] {
        let revival = spec("sb-1");
        let revival = server.executor.revive(&revival, &record);
        // Given up by its caller before or after it is done; either way it is not kept.
        drop(tokio::time::timeout(Duration::from_millis(wait_ms), revival).await);
        // The next does not wait for what is left of the one before.
        let again = server.executor.revive(&spec("sb-1"), &record).await.unwrap();
        assert_eq!(server.shell(&again, "cat /file").await, "here\n");
        drop(again);
        eventually("it runs", || state(&host, &container) == "exited").await;
    }
    // A server that is killed in the middle: what runs is on nobody's record.
    let again = server.executor.revive(&spec("sb-1"), &record).await.unwrap();
    server.executor.keep(&again).await.unwrap();
    drop(again);
    let data_dir = server.data_dir;
    drop(server.executor);
    drop(data_dir);
    assert_eq!(state(&host, &container), "running");
    let server = Server::start(&host, &dir, vec![(id("sb-1"), Some(record.clone()))]);
    eventually("it runs", || state(&host, &container) == "exited").await;
    assert!(matches!(server.adopt("sb-1", &record).await, Found::Stopped { .. }));
    let (sandbox, record) = server.revived("sb-1", &record).await;
    assert_eq!(server.shell(&sandbox, "cat /file").await, "here\n");
    drop(sandbox);
    server.executor.remove(&id("sb-1"), Some(&record)).await.unwrap();
    drop(server.stop().await);
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_changed_or_refused_as_a_whole() {
    needs!(Root, Docker);
    let (host, dir) = (test_host(), temporary("lasting"));
    let server = Server::start(&host, &dir, Vec::new());
    let (sandbox, record) = server.kept("sb-1").await;
    let container = container_id(&record);
    let has = || {
        let format = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}";
        docker(&host, &["inspect", "--format", format, &container]).trim().to_owned()
    };
    server.shell(&sandbox, "head -c 50000000 /dev/zero >/dev/shm/held").await;
    let below = Limits { memory_bytes: 16 << 20, cpu_millicores: 500, pids: 20, disk_bytes: None };
    let before = has();
    let error = server.executor.set_limits(&sandbox, &below).await.unwrap_err();
    assert!(error.to_string().contains("memory limit"), "{error}");
    assert_eq!(has(), before);
    // The processes are as many as they were.
    let line = "for i in $(seq 40); do sleep 0.3 & done 2>&1; wait";
    assert_eq!(server.shell(&sandbox, line).await, "");
    for (limits, words) in [
        (Limits { disk_bytes: Some(1 << 30), ..LIMITS }, "disk_mb"),
        (Limits { cpu_millicores: 4_000_000, ..LIMITS }, "limits"),
    ] {
        let error = server.executor.set_limits(&sandbox, &limits).await.unwrap_err();
        assert!(
            matches!(error, SandboxError::Unsupported(_)) && error.to_string().contains(words),
            "{error}"
        );
        assert_eq!(has(), before);
    }
    let other = Limits { memory_bytes: 200 << 20, cpu_millicores: 500, pids: 20, disk_bytes: None };
    server.executor.set_limits(&sandbox, &other).await.unwrap();
    assert_eq!(has(), format!("{} 500000000 20", 200 << 20));
    assert!(server.shell(&sandbox, line).await.contains("fork"));
    server.executor.set_limits(&sandbox, &LIMITS).await.unwrap();
    // It begins anew with what its specification says then.
    let record = server.executor.halt(sandbox).await.unwrap();
    let revived = SandboxSpec { limits: other, ..spec("sb-1") };
    let sandbox = server.executor.revive(&revived, &record).await.unwrap();
    assert_eq!(has(), format!("{} 500000000 20", 200 << 20));
    server.executor.destroy(sandbox).await.unwrap();
    drop(server.stop().await);
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_of_one_engine_leave_each_other_alone() {
    needs!(Root, Docker);
    let (host, dirs) = (test_host(), [temporary("lasting"), temporary("lasting")]);
    let servers = dirs.each_ref().map(|dir| Server::start(&host, dir, Vec::new()));
    let [one, other] = servers;
    let (sandbox, record) = one.kept("sb-1").await;
    let (others, _) = other.kept("sb-1").await;
    one.shell(&sandbox, "echo one >/file").await;
    assert!(matches!(other.executor.adopt(&spec("sb-1"), &record).await.unwrap(), Found::Gone { .. }));
    other.executor.remove(&id("sb-1"), None).await.unwrap();
    drop(others);
    assert_eq!(other.executor.leaks(&BTreeSet::new()).await.unwrap(), []);
    drop(other.stop().await);
    assert_eq!(one.shell(&sandbox, "cat /file").await, "one\n");
    one.executor.destroy(sandbox).await.unwrap();
    drop(one.stop().await);
    for dir in dirs {
        assert_eq!(containers(&host, &dir), [""; 0]);
        std::fs::remove_dir_all(dir).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_bears_the_mark_and_is_nobodys_is_a_leak() {
    needs!(Root, Docker);
    let (host, dir) = (test_host(), temporary("lasting"));
    let server = Server::start(&host, &dir, Vec::new());
    let (sandbox, record) = server.kept("sb-1").await;
    assert_eq!(server.executor.leaks(&BTreeSet::new()).await.unwrap(), []);
    let container = container_of(&dir, "sb-1");
    drop(sandbox);
    let lasting = BTreeSet::from([id("sb-1")]);
    assert_eq!(server.executor.leaks(&lasting).await.unwrap(), []);
    // Nobody holds it, and the caller does not know it.
    let leaks = server.executor.leaks(&BTreeSet::new()).await.unwrap();
    assert_eq!(leaks.iter().map(|leak| leak.kind).collect::<Vec<_>>(), ["container"]);
    assert!(docker(&host, &["inspect", "--format", "{{.Name}}", &leaks[0].name]).contains(&container));
    std::fs::create_dir(dir.join("docker/left")).unwrap();
    let leaks = server.executor.leaks(&lasting).await.unwrap();
    assert_eq!(leaks.iter().map(|leak| leak.kind).collect::<Vec<_>>(), ["directory"]);
    std::fs::remove_dir(dir.join("docker/left")).unwrap();
    server.executor.remove(&id("sb-1"), Some(&record)).await.unwrap();
    assert_eq!(server.executor.leaks(&BTreeSet::new()).await.unwrap(), []);
    drop(server.stop().await);
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_agents_are_attached_to_there_are_none() {
    needs!(Root, Docker);
    let (host, dir) = (test_host(), temporary("lasting"));
    let server = Server::start(&host, &dir, Vec::new());
    let (sandbox, record) = server.kept("sb-1").await;
    drop((server.stop().await, sandbox));
    let lasting = vec![(id("sb-1"), Some(record.clone()))];
    let server = Server::start_by(&host, &dir, lasting, TransportChoice::Attach);
    assert!(!server.executor.capabilities().await.features["instances"].supported);
    assert!(matches!(server.executor.check(&spec("sb-2")).await, Err(SandboxError::Unsupported(_))));
    assert!(matches!(server.executor.create(&spec("sb-2")).await, Err(SandboxError::Unsupported(_))));
    // It cannot be reached, and is not said to be gone.
    let adopted = server.executor.adopt(&spec("sb-1"), &record).await;
    assert!(matches!(adopted, Err(SandboxError::RuntimeUnavailable { .. })), "{adopted:?}");
    assert_eq!(state(&host, &container_of(&dir, "sb-1")), "running");
    server.executor.remove(&id("sb-1"), Some(&record)).await.unwrap();
    drop(server.stop().await);
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_engine_is_restarted_the_files_are_there() {
    needs!(Root, Docker);
    engine_is_restarted("-TERM").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_engine_is_killed_the_files_are_there() {
    needs!(Root, Docker);
    engine_is_restarted("-KILL").await;
}

async fn engine_is_restarted(signal: &str) {
    let (own, dir) = (OwnEngine::start(), temporary("lasting"));
    let host = own.host();
    let server = Server::start(&host, &dir, Vec::new());
    let (watched, watched_record) = server.kept("sb-1").await;
    let (unwatched, unwatched_record) = server.kept("sb-2").await;
    server.shell(&watched, "echo one >/file").await;
    server.shell(&unwatched, "echo two >/file").await;
    drop(unwatched);
    let ended = server.executor.ended(&watched).unwrap();
    own.signal(signal);
    eventually("the engine still answers", || {
        let ping = ["--host", host.as_str(), "version"];
        !Command::new("docker").args(ping).output().unwrap().status.success()
    })
    .await;
    // Nothing is said to be gone while there is nobody to be asked.
    let away = server.executor.adopt(&spec("sb-2"), &unwatched_record).await;
    assert!(matches!(away, Err(SandboxError::RuntimeUnavailable { .. })), "{away:?}");
    let away = server.executor.remove(&id("sb-none"), None).await;
    assert!(matches!(away, Err(SandboxError::RuntimeUnavailable { .. })), "{away:?}");
    own.script("restart", &[]);
    let told = within(ended).await;
    assert!(!told.is_empty());
    drop(watched);
    for (name, record, text) in [("sb-1", watched_record, "one\n"), ("sb-2", unwatched_record, "two\n")] {
        let begun = Instant::now();
        let reason = loop {
            match server.executor.adopt(&spec(name), &record).await {
                Ok(Found::Stopped { reason }) => break reason,
                Ok(other) => panic!("{other:?}"),
                Err(error) => assert!(begun.elapsed() < SETTLE, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        assert!(reason.contains("engine was restarted"), "{reason}");
        let (sandbox, record) = server.revived(name, &record).await;
        assert_eq!(server.shell(&sandbox, "cat /file").await, text);
        // The engine is away when it is to be removed: the caller is told, and the sweep does it.
        drop(sandbox);
        if name == "sb-1" {
            server.executor.remove(&id(name), Some(&record)).await.unwrap();
        } else {
            own.signal("-STOP");
            server.executor.remove(&id(name), Some(&record)).await.unwrap_err();
            own.signal("-CONT");
        }
    }
    eventually("containers are left", || containers(&host, &dir).is_empty()).await;
    drop(server.stop().await);
    std::fs::remove_dir_all(PathBuf::from(&dir)).unwrap();
    drop(own);
}
