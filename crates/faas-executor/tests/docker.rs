//! The engine with the Docker backend alone, against a real Docker engine: the one that `FAAS_TEST_DOCKER_HOST` names
//! (`scripts/test-engine.sh start DIR` makes one, with the images that are used here).
#![cfg(feature = "docker")]
#![expect(clippy::unwrap_used, reason = "helpers of tests, whose failure is the test's")]

#[cfg(target_os = "linux")]
#[path = "docker/lasting.rs"]
mod lasting;
#[cfg(target_os = "linux")]
#[path = "docker/own_program.rs"]
mod own_program;
#[cfg(all(target_os = "linux", feature = "native"))]
#[path = "docker/sharing.rs"]
mod sharing;
#[path = "docker/tls.rs"]
mod tls;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use faas_executor::PullPolicy;
use faas_executor::docker::{DockerConfig, EngineAddress, TransportChoice};
use faas_executor::sandbox::Limits;
use faas_executor::{Engine, EngineConfig, EngineError, ExecuteSpec, ExecutionOutcome, InputFile};
use faas_guest_protocol::Program;
use faas_test_support::needs;
use faas_types::{ErrorCode, Network, RequestId, Runtime, RuntimeChoice};
use tokio::task::JoinSet;

/// How long something may take that is waited for. Not a measure of anything.
const SETTLE: Duration = Duration::from_secs(60);

/// A gateway's engine with a data directory of its own.
struct Gateway {
    engine: Engine,
    host: String,
    data_dir: PathBuf,
}

#[expect(clippy::disallowed_methods, reason = "a test's switch, not a setting of the server")]
fn test_host() -> String {
    std::env::var("FAAS_TEST_DOCKER_HOST").unwrap()
}

fn temporary(name: &str) -> PathBuf {
    // The last digits are the random ones; paths of Unix sockets have to be short.
    let id = uuid::Uuid::now_v7().simple().to_string();
    std::env::temp_dir().join(format!("faas-docker-{name}-{}", &id[20..]))
}

async fn engine(host: &str, data_dir: &Path, transport: TransportChoice, pull: PullPolicy) -> Engine {
    let host = host.parse::<EngineAddress>().unwrap();
    engine_of(data_dir, DockerConfig { host, transport, runtime: None, auth_file: None }, pull).await
}

async fn engine_of(data_dir: &Path, docker: DockerConfig, pull: PullPolicy) -> Engine {
    Engine::start(EngineConfig {
        data_dir: data_dir.to_owned(),
        database_url: None,
        docker: Some(docker),
        // No launcher: the native runtime is not available, which these tests see to.
        #[cfg(feature = "native")]
        launcher_exe: "/bin/false".into(),
        #[cfg(feature = "native")]
        native_slots: 1,
        #[cfg(feature = "native")]
        images: faas_executor::images::ImageStoreConfig::new("/bin/false".into()),
        pull,
        default_runtime: RuntimeChoice::Auto,
        default_image: "alpine".to_owned(),
        max_concurrent: 8,
        max_queued: 1000,
        max_instances: 16,
        outputs: faas_executor::OutputBudget::default(),
        events: faas_executor::EventRetention { max_events: 1000, ttl: std::time::Duration::from_secs(60) },
    })
    .await
    .unwrap()
}

impl Gateway {
    async fn start(transport: TransportChoice) -> Self {
        Self::at(&test_host(), transport).await
    }

    async fn at(host: &str, transport: TransportChoice) -> Self {
        let data_dir = temporary("data");
        let engine = engine(host, &data_dir, transport, PullPolicy::Never).await;
        Self { engine, host: host.to_owned(), data_dir }
    }

    /// The containers of this gateway that the Docker engine has.
    fn containers(&self) -> Vec<String> {
        containers(&self.host, &self.data_dir)
    }

    /// Waits until nothing of what ran is left.
    async fn is_clean(&self) {
        eventually("containers are left", || self.containers().is_empty()).await;
    }

    /// Ends it; nothing may be left.
    async fn stop(self) {
        self.engine.shutdown(SETTLE).await;
        assert_eq!(self.containers(), [""; 0]);
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let own = self.data_dir.to_str().unwrap();
        assert!(!mounts.contains(own), "a mount of {own} is left");
        std::fs::remove_dir_all(&self.data_dir).unwrap();
    }

    async fn run(&self, spec: ExecuteSpec) -> Result<ExecutionOutcome, EngineError> {
        self.engine.execute(spec).await
    }

    async fn shell(&self, line: &str) -> ExecutionOutcome {
        self.run(shell(line)).await.unwrap()
    }
}

fn containers(host: &str, data_dir: &Path) -> Vec<String> {
    let gateway = std::fs::read_to_string(data_dir.join("gateway-id")).unwrap();
    let filter = format!("label=faas.gateway={}", gateway.trim());
    let output = docker(host, &["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"]);
    // One that is removed has no name. Docker 20.10 may list it all the same, for ever, where its end and its removal
    // came at the same time; nothing of it is there.
    output.lines().filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn docker(host: &str, arguments: &[&str]) -> String {
    let output = Command::new("docker").args(["--host", host]).args(arguments).output().unwrap();
    assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < SETTLE, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn spec(program: Program) -> ExecuteSpec {
    ExecuteSpec {
        request_id: RequestId("r".to_owned()),
        program,
        env: Vec::new(),
        image: Some("alpine".to_owned()),
        runtime: RuntimeChoice::Docker,
        working_dir: None,
        user: None,
        stdin: None,
        files: Vec::new(),
        timeout: Duration::from_secs(60),
        limits: Limits { memory_bytes: 128 << 20, cpu_millicores: 1000, pids: 64, disk_bytes: None },
        network: Network::None,
        max_output_bytes: 1 << 20,
        labels: BTreeMap::new(),
        held: None,
    }
}

fn shell(line: &str) -> ExecuteSpec {
    spec(Program::Shell(line.to_owned()))
}

fn argv(words: &[&str]) -> ExecuteSpec {
    spec(Program::Argv(words.iter().map(ToString::to_string).collect()))
}

fn of(image: &str, spec: ExecuteSpec) -> ExecuteSpec {
    ExecuteSpec { image: Some(image.to_owned()), ..spec }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Makes each test once for each transport.
macro_rules! over_both_transports {
    ($($name:ident),+ $(,)?) => {
        mod by_socket {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    faas_test_support::needs!(Root, Docker);
                    let gateway = super::Gateway::start(super::TransportChoice::Socket).await;
                    super::$name(&gateway).await;
                    gateway.is_clean().await;
                    gateway.stop().await;
                }
            )+
        }
        mod attached {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    faas_test_support::needs!(Docker);
                    let gateway = super::Gateway::start(super::TransportChoice::Attach).await;
                    super::$name(&gateway).await;
                    gateway.is_clean().await;
                    gateway.stop().await;
                }
            )+
        }
    };
}

over_both_transports!(
    a_command_runs_in_its_image,
    an_image_without_a_shell_runs_its_program,
    what_cannot_be_started_is_127_or_126,
    users_and_their_groups_are_the_images,
    an_images_environment_directory_and_user_apply,
    files_secrets_and_standard_input_arrive,
    much_output_is_kept_to_its_limit,
    memory_and_pids_are_limited,
    a_timeout_keeps_the_output_until_then,
    a_cancelled_execution_leaves_nothing,
    a_sandbox_whose_agent_is_killed_is_lost,
    a_sandbox_has_no_more_rights_than_it_should,
);

async fn a_command_runs_in_its_image(gateway: &Gateway) {
    let outcome = gateway.shell("echo out; echo err >&2; hostname; exit 3").await;
    let (first, host) = text(&outcome.stdout).split_once('\n').unwrap();
    assert_eq!((first, text(&outcome.stderr), outcome.exit.code), ("out", "err\n", Some(3)));
    assert!(host.starts_with("sb-"), "{host}");
    assert_eq!((outcome.runtime, outcome.image.as_str()), (Runtime::Docker, "alpine"));
    let killed = gateway.shell("kill -9 $$").await;
    assert_eq!((killed.exit.code, killed.exit.signal), (None, Some(9)));
    assert!(!killed.oom_killed);
    let bytes = gateway.shell("printf '\\377\\000\\376'").await;
    assert_eq!(bytes.stdout, [0xff, 0, 0xfe]);
}

async fn an_image_without_a_shell_runs_its_program(gateway: &Gateway) {
    let spec = ExecuteSpec { stdin: Some(b"input".to_vec()), ..of("scratch", argv(&["/echo", "a", "b"])) };
    let outcome = gateway.run(spec).await.unwrap();
    assert_eq!((text(&outcome.stdout), outcome.exit.code), ("a b\ninput", Some(0)));
    let no_shell = gateway.run(of("scratch", shell("true"))).await.unwrap();
    assert_eq!(no_shell.exit.code, Some(127));
    let nobody = ExecuteSpec { user: Some("ann".into()), ..of("scratch", argv(&["/echo"])) };
    assert_eq!(gateway.run(nobody).await.unwrap_err().code(), ErrorCode::InvalidRequest);
    let number = ExecuteSpec { user: Some("1234:5".into()), ..of("scratch", argv(&["/echo", "x"])) };
    assert_eq!(text(&gateway.run(number).await.unwrap().stdout), "x\n");
}

async fn what_cannot_be_started_is_127_or_126(gateway: &Gateway) {
    assert_eq!(gateway.run(argv(&["no-such-program"])).await.unwrap().exit.code, Some(127));
    assert_eq!(gateway.run(argv(&["/etc/passwd"])).await.unwrap().exit.code, Some(126));
    let nowhere = ExecuteSpec { working_dir: Some("/no/such".into()), ..shell("true") };
    assert_eq!(gateway.run(nowhere).await.unwrap_err().code(), ErrorCode::InvalidRequest);
}

async fn users_and_their_groups_are_the_images(gateway: &Gateway) {
    for (user, expected) in [
        (None, "0 0 root /root"),
        (Some("app"), "1000 1000 29 app /home"),
        (Some("1000:29"), "1000 29 app /home"),
        (Some("65534"), "65534 65534 nobody /"),
    ] {
        let asked =
            ExecuteSpec { user: user.map(str::to_owned), ..shell("echo $(id -u) $(id -G) $USER $HOME") };
        let outcome = gateway.run(asked).await.unwrap();
        assert_eq!(text(&outcome.stdout).trim(), expected, "{user:?}");
    }
}

async fn an_images_environment_directory_and_user_apply(gateway: &Gateway) {
    let line = "echo $GREETING $(pwd) $(id -un)";
    let outcome = gateway.run(of("users", shell(line))).await.unwrap();
    assert_eq!(text(&outcome.stdout), "hello /var app\n");
    let over = ExecuteSpec {
        env: vec![("GREETING".into(), "bye".into())],
        working_dir: Some("/tmp".into()),
        user: Some("root".into()),
        ..of("users", shell(line))
    };
    assert_eq!(text(&gateway.run(over).await.unwrap().stdout), "bye /tmp root\n");
}

async fn files_secrets_and_standard_input_arrive(gateway: &Gateway) {
    let file = |path: &str, content: &[u8], secret| InputFile {
        path: path.to_owned(),
        mode: if secret { 0o400 } else { 0o755 },
        content: content.to_vec(),
        secret,
    };
    let spec = ExecuteSpec {
        files: vec![
            file("/work/run", b"#!/bin/sh\ncat; cat /run/secrets/token", false),
            file("token", b"s3", true),
        ],
        stdin: Some(b"in ".to_vec()),
        user: Some("app".into()),
        ..shell("/work/run; stat -f -c ' %T' /run/secrets")
    };
    let outcome = gateway.run(spec).await.unwrap();
    assert_eq!(text(&outcome.stdout), "in s3 tmpfs\n", "{}", text(&outcome.stderr));
    let large = vec![7u8; 3 << 20];
    let spec = ExecuteSpec { stdin: Some(large.clone()), ..shell("wc -c; cat >/dev/null") };
    assert_eq!(text(&gateway.run(spec).await.unwrap().stdout), format!("{}\n", large.len()));
}

async fn much_output_is_kept_to_its_limit(gateway: &Gateway) {
    let spec = ExecuteSpec { max_output_bytes: 3 << 20, ..shell("head -c 20000000 /dev/zero; echo end >&2") };
    let outcome = gateway.run(spec).await.unwrap();
    assert_eq!((outcome.stdout.len(), outcome.exit.stdout_truncated), (3 << 20, true));
    assert_eq!(text(&outcome.stderr), "end\n");
}

async fn memory_and_pids_are_limited(gateway: &Gateway) {
    // In the container's memory, which a tmpfs of it takes too.
    let spec = ExecuteSpec {
        limits: Limits { memory_bytes: 32 << 20, cpu_millicores: 1000, pids: 20, disk_bytes: None },
        ..shell("head -c 200000000 /dev/zero | tail >/dev/null; echo $?")
    };
    let outcome = gateway.run(spec).await;
    match outcome {
        Ok(outcome) => {
            assert!(outcome.oom_killed, "the kernel killed a process for want of memory: {outcome:?}");
            // It may take the shell too, before that can tell.
            if outcome.exit.signal != Some(9) {
                assert_eq!(text(&outcome.stdout), "137\n", "{outcome:?}");
            }
        }
        // The kernel may take the agent, whatever it was told.
        Err(error) => assert!(error.to_string().contains("memory"), "{error}"),
    }
    let spec = ExecuteSpec {
        limits: Limits { memory_bytes: 64 << 20, cpu_millicores: 1000, pids: 20, disk_bytes: None },
        ..shell("for i in $(seq 40); do sleep 30 & done 2>&1; echo done")
    };
    let outcome = gateway.run(spec).await.unwrap();
    let said = format!("{}{}", text(&outcome.stdout), text(&outcome.stderr));
    assert!(said.contains("can't fork"), "{said}");
    let smallest = ExecuteSpec {
        limits: Limits { memory_bytes: 8 << 20, cpu_millicores: 10, pids: 4, disk_bytes: None },
        ..argv(&["true"])
    };
    assert_eq!(gateway.run(smallest).await.unwrap().exit.code, Some(0));
}

async fn a_timeout_keeps_the_output_until_then(gateway: &Gateway) {
    let spec = ExecuteSpec {
        timeout: Duration::from_millis(700),
        ..shell("echo begun; (setsid sleep 3600 &); sleep 3600")
    };
    match gateway.run(spec).await.unwrap_err() {
        EngineError::Timeout { outcome } => {
            assert_eq!((text(&outcome.stdout), outcome.exit.signal), ("begun\n", Some(9)));
        }
        other => panic!("{other}"),
    }
}

async fn a_cancelled_execution_leaves_nothing(gateway: &Gateway) {
    // At every stage of its life: while it is made, while its agent starts, while it runs.
    for wait_ms in [0, 5, 20, 60, 120, 200, 400, 800] {
        let running = gateway.run(shell("sleep 3600"));
        assert!(tokio::time::timeout(Duration::from_millis(wait_ms), running).await.is_err());
    }
    gateway.is_clean().await;
    assert_eq!(gateway.shell("true").await.exit.code, Some(0));
}

async fn a_sandbox_whose_agent_is_killed_is_lost(gateway: &Gateway) {
    // Every process but the first, whom the kernel does not let be killed from inside.
    let spec = shell("kill -9 -1; sleep 3600");
    let error = gateway.run(spec).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::SandboxLost, "{error}");
}

async fn a_sandbox_has_no_more_rights_than_it_should(gateway: &Gateway) {
    let outcome = gateway
        .shell(
            "ping -c 1 -W 5 localhost >/dev/null || echo no loopback; grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; ls /sys/class/net; \
             touch /.faas/agent 2>/dev/null && echo agent is writable; mount -t tmpfs x /mnt 2>/dev/null && echo mounted; \
             df -k /.faas/run | tail -1 | awk '{print $2}'; ls /proc/1/fd | wc -l",
        )
        .await;
    let said = text(&outcome.stdout);
    for line in ["CapEff:\t00000000a80425fb", "CapBnd:\t00000000a80425fb", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(said.lines().any(|other| other == line), "{line} in {said}");
    }
    let rest: Vec<_> = said.lines().skip(4).collect();
    let writable = rest.contains(&"agent is writable");
    // A copy of the agent belongs to its container; the one that is mounted is everybody's.
    let attached = gateway.engine.capabilities().await.runtimes[&Runtime::Docker].features["agent_transport"]
        .detail
        .starts_with("attached");
    assert_eq!(writable, attached);
    let rest: Vec<_> = rest.into_iter().filter(|line| *line != "agent is writable").collect();
    assert_eq!(rest, ["lo", "64", "3"], "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_executions_eight_at_a_time() {
    needs!(Root, Docker);
    let gateway = Arc::new(Gateway::start(TransportChoice::Auto).await);
    let mut all = JoinSet::new();
    for n in 0..100u32 {
        let gateway = Arc::clone(&gateway);
        all.spawn(async move {
            let outcome = gateway.shell(&format!("echo {n}; exit {}", n % 7)).await;
            assert_eq!(text(&outcome.stdout), format!("{n}\n"));
            assert_eq!(outcome.exit.code, i32::try_from(n % 7).ok());
        });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
    let gateway = Arc::into_inner(gateway).unwrap();
    gateway.is_clean().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_is_refused_with_what_to_do() {
    needs!(Root, Docker);
    let gateway = Gateway::start(TransportChoice::Auto).await;
    for (spec, code, words) in [
        (of("ghost", shell("true")), ErrorCode::ImageUnavailable, "docker pull"),
        (of("host", shell("true")), ErrorCode::ImageUnavailable, "native"),
        (of("UPPER", shell("true")), ErrorCode::ImageUnavailable, "name"),
        (ExecuteSpec { network: Network::Egress, ..shell("true") }, ErrorCode::Unsupported, "bridge"),
        (
            ExecuteSpec { limits: Limits { disk_bytes: Some(1 << 28), ..shell("").limits }, ..shell("true") },
            ErrorCode::Unsupported,
            "quotas",
        ),
    ] {
        let (image, network, limits) = (spec.image.clone(), spec.network, spec.limits);
        let error = gateway.run(spec).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(words), "{words} in {error}");
        // Nobody else can either; each says why.
        let auto = ExecuteSpec { image, network, limits, runtime: RuntimeChoice::Auto, ..shell("true") };
        assert_eq!(gateway.run(auto).await.unwrap_err().code(), code);
    }
    let auto = ExecuteSpec { runtime: RuntimeChoice::Auto, ..shell("true") };
    assert_eq!(gateway.run(auto).await.unwrap().runtime, Runtime::Docker);
    let native = ExecuteSpec { runtime: RuntimeChoice::Native, ..shell("true") };
    assert_eq!(gateway.run(native).await.unwrap_err().code(), ErrorCode::RuntimeUnavailable);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_fetched_is_told() {
    needs!(Root, Docker);
    let data_dir = temporary("data");
    let host = test_host();
    let engine = engine(&host, &data_dir, TransportChoice::Auto, PullPolicy::IfMissing).await;
    // A port that nobody listens at stands for a registry that cannot be reached.
    let gateway = Gateway { engine, host, data_dir };
    let error = gateway.run(of("127.0.0.1:1/ghost:1", shell("true"))).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ImageUnavailable, "{error}");
    assert!(error.to_string().contains("cannot reach the registry"), "{error}");
    assert_eq!(gateway.shell("true").await.exit.code, Some(0));
    gateway.stop().await;
}

/// An image of the engine for another machine.
struct Foreign {
    host: String,
    name: String,
}

impl Foreign {
    const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" };

    fn load() -> Self {
        let (host, name) = (test_host(), format!("foreign-{}:latest", uuid::Uuid::now_v7().simple()));
        // As `docker save` writes it: one layer that is an empty archive.
        let dir = temporary("foreign");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("layer.tar"), [0u8; 1024]).unwrap();
        let config = format!(
            r#"{{"architecture":"{}","os":"linux","config":{{"Cmd":["{name}"]}},"rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}}}}"#,
            Self::ARCHITECTURE,
            "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
        );
        std::fs::write(dir.join("config.json"), config).unwrap();
        let manifest =
            format!(r#"[{{"Config":"config.json","RepoTags":["{name}"],"Layers":["layer.tar"]}}]"#);
        std::fs::write(dir.join("manifest.json"), manifest).unwrap();
        let archive = dir.join("image.tar");
        let path = archive.to_str().unwrap();
        let files = ["cf", path, "config.json", "layer.tar", "manifest.json"];
        assert!(Command::new("tar").current_dir(&dir).args(files).status().unwrap().success());
        docker(&host, &["load", "--input", path]);
        std::fs::remove_dir_all(dir).unwrap();
        Self { host, name }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        docker(&self.host, &["rmi", &self.name]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_for_another_machine_is_refused() {
    needs!(Root, Docker);
    let gateway = Gateway::start(TransportChoice::Auto).await;
    let foreign = Foreign::load();
    let error = gateway.run(of(&foreign.name, argv(&["/x"]))).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ImageUnavailable, "{error}");
    assert!(error.to_string().contains(Foreign::ARCHITECTURE), "{error}");
    gateway.is_clean().await;
    drop(foreign);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_gateway_left_is_removed_and_nothing_else() {
    needs!(Root, Docker);
    let first = Gateway::start(TransportChoice::Auto).await;
    let id = std::fs::read_to_string(first.data_dir.join("gateway-id")).unwrap();
    let (id, data_dir, host) = (id.trim().to_owned(), first.data_dir.clone(), first.host.clone());
    first.engine.shutdown(SETTLE).await;
    drop(first);
    let gateway_label = format!("faas.gateway={id}");
    let run = |name: &str, sandbox: &str| {
        let sandbox = format!("faas.sandbox={sandbox}");
        let labels = ["--label", gateway_label.as_str(), "--label", sandbox.as_str()];
        let mut arguments = vec!["run", "--detach", "--network", "none", "--name", name];
        arguments.extend(labels);
        arguments.extend(["alpine", "sleep", "3600"]);
        docker(&host, &arguments);
    };
    run(&format!("faas-{id}-sb-left"), "sb-left");
    // With labels that an image could bring, under another name.
    let other = format!("not-ours-{id}");
    run(&other, "sb-left");
    let engine = engine(&host, &data_dir, TransportChoice::Auto, PullPolicy::Never).await;
    eventually("the left container is removed", || containers(&host, &data_dir) == [other.as_str()]).await;
    docker(&host, &["rm", "--force", &other]);
    engine.shutdown(SETTLE).await;
    std::fs::remove_dir_all(data_dir).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_engine_the_reason_is_told_and_one_that_comes_is_used() {
    needs!(Root, Docker);
    let data_dir = temporary("data");
    let real = test_host();
    let dir = temporary("engine");
    std::fs::create_dir(&dir).unwrap();
    let link = dir.join("docker.sock");
    let host = format!("unix://{}", link.display());
    let gateway = Gateway {
        engine: engine(&host, &data_dir, TransportChoice::Auto, PullPolicy::Never).await,
        host: real.clone(),
        data_dir,
    };
    let error = gateway.run(shell("true")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::RuntimeUnavailable);
    assert!(error.to_string().contains("install and start"), "{error}");
    assert!(!gateway.engine.capabilities().await.runtimes[&Runtime::Docker].available);
    std::os::unix::fs::symlink(real.trim_start_matches("unix://"), &link).unwrap();
    let begun = Instant::now();
    while !gateway.engine.capabilities().await.runtimes[&Runtime::Docker].available {
        assert!(begun.elapsed() < SETTLE);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(gateway.shell("true").await.exit.code, Some(0));
    gateway.stop().await;
    std::fs::remove_dir_all(dir).unwrap();
}

/// A registry of a test's own, with one user.
struct Registry {
    process: std::process::Child,
    dir: PathBuf,
    address: String,
}

impl Registry {
    const USER: &str = "ann";
    /// In base64 it has the two characters in which the alphabets differ.
    const PASSWORD: &str = "p~~?>?~~>";

    fn start() -> Self {
        let dir = temporary("registry");
        std::fs::create_dir(&dir).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let users = Command::new("htpasswd").args(["-Bbn", Self::USER, Self::PASSWORD]).output().unwrap();
        std::fs::write(dir.join("users"), users.stdout).unwrap();
        let path = dir.display();
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {path}/data}}}}\nhttp: {{addr: '{address}'}}\n\
             auth: {{htpasswd: {{realm: r, path: {path}/users}}}}\n"
        );
        std::fs::write(dir.join("config.yml"), config).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.join("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, dir, address }
    }

    /// A `config.json` that has the credentials.
    fn login(&self, host: &str) -> PathBuf {
        let config = self.dir.join("client");
        let config = config.to_str().unwrap();
        let login = [
            "--config",
            config,
            "login",
            "--username",
            Self::USER,
            "--password",
            Self::PASSWORD,
            &self.address,
        ];
        let begun = Instant::now();
        // It may not listen yet.
        while !Command::new("docker").args(["--host", host]).args(login).output().unwrap().status.success() {
            assert!(begun.elapsed() < SETTLE, "no login at the registry");
            std::thread::yield_now();
        }
        self.dir.join("client/config.json")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_fetched_with_the_credentials_for_its_registry() {
    needs!(Root, Docker, DockerRegistry);
    let (registry, host) = (Registry::start(), test_host());
    let auth_file = registry.login(&host);
    let image = format!("{}/team/alpine:1", registry.address);
    let config = registry.dir.join("client");
    docker(&host, &["tag", "alpine:latest", &image]);
    docker(&host, &["--config", config.to_str().unwrap(), "push", "--quiet", &image]);
    docker(&host, &["rmi", &image]);
    for (pull, auth_file, works) in [
        (PullPolicy::IfMissing, None, false),
        (PullPolicy::Never, Some(auth_file.clone()), false),
        (PullPolicy::IfMissing, Some(auth_file.clone()), true),
        (PullPolicy::Always, Some(auth_file), true),
        (PullPolicy::Always, None, false),
        (PullPolicy::IfMissing, None, true),
    ] {
        let data_dir = temporary("data");
        let docker = DockerConfig {
            host: host.parse().unwrap(),
            transport: TransportChoice::Auto,
            runtime: None,
            auth_file,
        };
        let engine = engine_of(&data_dir, docker, pull).await;
        let gateway = Gateway { engine, host: host.clone(), data_dir };
        match gateway.run(of(&image, shell("echo fetched"))).await {
            Ok(outcome) => assert!(works && text(&outcome.stdout) == "fetched\n", "{pull:?}"),
            Err(error) => {
                assert!(!works, "{pull:?}: {error}");
                assert_eq!(error.code(), ErrorCode::ImageUnavailable, "{error}");
            }
        }
        gateway.stop().await;
    }
    docker(&host, &["rmi", &image]);
}

/// An engine that a test may end. When it is dropped nothing of it may be left.
struct OwnEngine {
    dir: PathBuf,
    /// What its cgroups are called, and nobody else's.
    group: String,
}

impl OwnEngine {
    fn script(&self, verb: &str, images: &[&str]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/test-engine.sh");
        let output = Command::new(script).arg(verb).arg(&self.dir).args(images).stdin(Stdio::null()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{verb}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further options of `dockerd`.
    fn start_with(options: &[String]) -> Self {
        let mut own = Self { dir: temporary("own"), group: String::new() };
        std::fs::create_dir(&own.dir).unwrap();
        std::fs::write(own.dir.join("options"), options.join("\n")).unwrap();
        own.script("start", &["alpine"]);
        let cgroups = std::fs::read_to_string(format!("/proc/{}/cgroup", own.pid())).unwrap();
        let group = cgroups.split('/').find(|part| part.starts_with("test-engine-"));
        own.group = group.unwrap().to_owned();
        own
    }

    fn host(&self) -> String {
        format!("unix://{}/docker.sock", self.dir.display())
    }

    fn pid(&self) -> String {
        std::fs::read_to_string(self.dir.join("pid")).unwrap().trim().to_owned()
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.pid()]).status().unwrap().success());
    }

    /// The command lines of processes in its cgroups, and of those that name its directory.
    fn processes(&self) -> Vec<String> {
        let mut found = Vec::new();
        for process in std::fs::read_dir("/proc").unwrap() {
            let process = process.unwrap().path();
            let read = |file: &str| std::fs::read(process.join(file)).unwrap_or_default();
            let text = |file: &str| String::from_utf8_lossy(&read(file)).replace('\0', " ");
            let line = text("cmdline");
            let is_own = text("cgroup").contains(&self.group) || line.contains(self.dir.to_str().unwrap());
            // One that has ended and waits for its parent has no command line.
            if is_own && !line.is_empty() {
                found.push(line);
            }
        }
        found
    }

    /// Its cgroups, in every hierarchy.
    fn cgroups(&self) -> Vec<PathBuf> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let mounts = mounts.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let (at, kind) = (words.nth(1)?, words.next()?);
            kind.starts_with("cgroup").then(|| Path::new(at).join(&self.group))
        });
        mounts.filter(|path| path.exists()).collect()
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        self.script("stop", &[]);
        if !std::thread::panicking() {
            assert_eq!((self.processes(), self.cgroups()), (Vec::new(), Vec::new()));
            assert!(!self.dir.exists());
        }
    }
}

/// How many executions there are when an engine ends.
const EXECUTIONS: usize = 50;

/// Fifty executions, of which some have ended, some run, some are being made and some wait, when the engine ends; it
/// comes back.
async fn engine_ends_in_the_middle(signal: &str, transport: TransportChoice) {
    let own = OwnEngine::start();
    let gateway = Arc::new(Gateway::at(&own.host(), transport).await);
    gateway.shell("true").await;
    let mut all = JoinSet::new();
    for n in 0..EXECUTIONS {
        let gateway = Arc::clone(&gateway);
        let spec = ExecuteSpec { timeout: Duration::from_secs(20), ..shell(&format!("sleep 1; echo {n}")) };
        all.spawn(async move { (n, gateway.run(spec).await) });
    }
    let (mut answered, mut failed) = (0, 0);
    while let Some(done) = all.join_next().await {
        answered += 1;
        if answered == 10 {
            own.signal(signal);
        }
        match done.unwrap() {
            (n, Ok(outcome)) if outcome.exit.signal.is_none() => {
                assert_eq!(text(&outcome.stdout), format!("{n}\n"));
            }
            // Killed with its container, and its agent could still say so.
            (_, Ok(outcome)) => assert_eq!(outcome.exit.signal, Some(9)),
            (_, Err(error)) => {
                failed += 1;
                let code = error.code();
                assert!(
                    matches!(code, ErrorCode::SandboxLost | ErrorCode::RuntimeUnavailable),
                    "{code}: {error}"
                );
            }
        }
    }
    assert_eq!(answered, EXECUTIONS);
    assert!(failed > 0, "the engine ended after all was done");
    own.script("restart", &[]);
    let begun = Instant::now();
    loop {
        match gateway.run(shell("echo again")).await {
            Ok(outcome) => break assert_eq!(text(&outcome.stdout), "again\n"),
            Err(error) => assert!(begun.elapsed() < SETTLE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let gateway = Arc::into_inner(gateway).unwrap();
    gateway.is_clean().await;
    gateway.stop().await;
    drop(own);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_stopped_loses_no_answer_and_leaves_nothing() {
    needs!(Root, Docker);
    engine_ends_in_the_middle("-TERM", TransportChoice::Socket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_killed_loses_no_answer_and_leaves_nothing() {
    needs!(Root, Docker);
    engine_ends_in_the_middle("-KILL", TransportChoice::Attach).await;
}

#[test]
#[expect(clippy::disallowed_methods, reason = "no runtime is here, and there is no event to wait for")]
fn a_test_engine_that_is_killed_while_it_makes_containers_leaves_nothing() {
    needs!(Root, Docker);
    let own = OwnEngine::start();
    let host = own.host();
    let run = || {
        let run = ["run", "--network", "none", "--rm", "alpine", "sleep", "3600"];
        let mut docker = Command::new("docker");
        docker.args(["--host", &host]).args(run).stdout(Stdio::null()).stderr(Stdio::null());
        docker.spawn().unwrap()
    };
    for wait_ms in [100, 200, 300, 400] {
        let clients: Vec<_> = (0..6).map(|_| run()).collect();
        std::thread::sleep(Duration::from_millis(wait_ms));
        own.signal("-KILL");
        for mut client in clients {
            client.wait().unwrap();
        }
        own.script("restart", &[]);
        let left = own.processes();
        assert!(!left.iter().any(|line| line.contains("runc") && !line.contains("shim")), "{left:?}");
    }
    own.signal("-KILL");
    drop(own);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_hangs_holds_nobody_up() {
    needs!(Root, Docker);
    let own = OwnEngine::start();
    let gateway = Gateway::at(&own.host(), TransportChoice::Auto).await;
    gateway.shell("true").await;
    gateway.is_clean().await;
    own.signal("-STOP");
    let error = gateway.run(shell("true")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::RuntimeUnavailable, "{error}");
    let docker = &gateway.engine.capabilities().await.runtimes[&Runtime::Docker];
    assert!(docker.reason.as_deref().is_some_and(|reason| reason.contains("does not answer")), "{docker:?}");
    own.signal("-CONT");
    let begun = Instant::now();
    while let Err(error) = gateway.run(shell("true")).await {
        assert!(begun.elapsed() < SETTLE, "{error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    gateway.is_clean().await;
    gateway.stop().await;
    drop(own);
}
