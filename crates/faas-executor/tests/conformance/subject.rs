//! One engine with one backend, which a case is run against.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::time::Duration;

#[cfg(feature = "docker")]
use faas_executor::docker::{DockerConfig, TransportChoice};
#[cfg(feature = "native")]
use faas_executor::images::ImageStoreConfig;
use faas_executor::sandbox::Limits;
use faas_executor::{
    Engine, EngineConfig, EngineError, ExecuteSpec, ExecutionOutcome, InputFile, PullPolicy,
};
use faas_guest_protocol::Program;
use faas_test_support::gateway::leftovers;
use faas_types::{ErrorCode, LimitSupport, Network, RequestId, Runtime, RuntimeCapabilities, RuntimeChoice};

use super::backends;
use super::stock::Image;
#[cfg(feature = "native")]
use super::store;

/// How long something may take that is waited for. Not a measure of anything.
pub(crate) const SETTLE: Duration = Duration::from_secs(60);

/// What a subject is asked to do.
pub(crate) type Case = for<'a> fn(&'a Subject) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// The backend under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Native,
    Docker,
}

impl Backend {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Docker => "docker",
        }
    }

    pub(crate) fn of(text: &str) -> Self {
        [Self::Native, Self::Docker].into_iter().find(|backend| backend.as_str() == text).unwrap()
    }

    const fn runtime(self) -> Runtime {
        match self {
            Self::Native => Runtime::Native,
            Self::Docker => Runtime::Docker,
        }
    }
}

pub(crate) struct Subject {
    pub(crate) engine: Engine,
    pub(crate) image: Image,
    pub(crate) capabilities: RuntimeCapabilities,
    pub(crate) backend: Backend,
    data_dir: PathBuf,
    gateway_id: String,
    /// What the data directory had before anything ran.
    entries: Vec<PathBuf>,
}

impl Subject {
    /// Starts it on `dir/home/data`; an image that is not in its store is taken in from `dir/layout`.
    pub(crate) async fn start(backend: Backend, image: Image, dir: &Path) -> Self {
        let data_dir = dir.join("home/data");
        #[cfg(feature = "native")]
        let own_program = std::env::current_exe().unwrap();
        #[cfg(feature = "native")]
        let native = backend == Backend::Native;
        #[cfg(feature = "docker")]
        let docker = || DockerConfig {
            host: backends::docker_host().parse().unwrap(),
            transport: TransportChoice::Auto,
            runtime: None,
            auth_file: None,
        };
        let engine = Engine::start(EngineConfig {
            data_dir: data_dir.clone(),
            database_url: None,
            #[cfg(feature = "docker")]
            docker: (backend == Backend::Docker).then(docker),
            #[cfg(feature = "native")]
            launcher_exe: if native { own_program.clone() } else { "/bin/false".into() },
            #[cfg(feature = "native")]
            native_slots: 2,
            #[cfg(feature = "native")]
            images: ImageStoreConfig::new(own_program),
            pull: PullPolicy::Never,
            max_instances: 16,
            outputs: faas_executor::OutputBudget::default(),
            events: faas_executor::EventRetention {
                max_events: 1000,
                ttl: std::time::Duration::from_secs(60),
            },
            default_runtime: RuntimeChoice::Auto,
            default_image: "no-such-image".to_owned(),
            max_concurrent: 16,
            max_queued: 1000,
        })
        .await
        .unwrap();
        let runtime = backend.runtime();
        let capabilities = engine.capabilities().await.runtimes.remove(&runtime).unwrap();
        assert!(capabilities.available, "{capabilities:?}");
        #[cfg(feature = "native")]
        if native && image != Image::Host && engine.images().get(image.name()).unwrap().is_none() {
            store::import(engine.images(), image, &dir.join("layout")).await;
        }
        let gateway_id = fs::read_to_string(data_dir.join("gateway-id")).unwrap().trim().to_owned();
        let entries = entries(&data_dir);
        Self { engine, image, capabilities, backend, data_dir, gateway_id, entries }
    }

    /// Ends the engine; nothing may be left of what ran, nor of the engine itself.
    pub(crate) async fn stop(self) {
        self.is_clean().await;
        self.engine.shutdown(SETTLE).await;
        let own = i32::try_from(std::process::id()).unwrap();
        // A seam beside it has an id of its own.
        let seam = fs::read_to_string(self.data_dir.with_file_name("seam").join("gateway-id"));
        let marks: Vec<_> =
            seam.into_iter().map(|id| id.trim().to_owned()).chain([self.gateway_id.clone()]).collect();
        let left = leftovers::eventually(|| {
            let mut left = leftovers::still_there(&leftovers::descendants(own));
            left.extend(leftovers::marked(&marks));
            left.extend(self.containers());
            left
        });
        assert_eq!(left, [""; 0], "left after the end");
        assert_eq!(entries(&self.data_dir), self.entries, "the data directory");
    }

    /// Waits until nothing is left of what ran: no process of a sandbox, no container.
    pub(crate) async fn is_clean(&self) {
        let begun = std::time::Instant::now();
        loop {
            let mut left = sandbox_processes();
            left.extend(self.containers());
            if left.is_empty() {
                return;
            }
            assert!(begun.elapsed() < SETTLE, "left: {left:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn containers(&self) -> Vec<String> {
        if self.backend != Backend::Docker {
            return Vec::new();
        }
        let filter = format!("label=faas.gateway={}", self.gateway_id);
        let host = backends::docker_host();
        let output = Command::new("docker")
            .args(["--host", &host, "ps", "--all", "--filter", &filter, "--format", "{{.Names}}"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // One without a name is removed, whatever the engine lists.
        let names = text(&output.stdout).lines().filter(|name| !name.is_empty()).map(str::to_owned);
        names.map(|name| format!("container {name}")).collect()
    }

    /// The engine's data directory.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// An optional ability; none where the backend has no such word, since it can do it as a matter of course.
    pub(crate) fn feature(&self, name: &str) -> Option<&LimitSupport> {
        self.capabilities.features.get(name)
    }

    /// Whether a sandbox has users beyond its root.
    pub(crate) fn has_users(&self) -> bool {
        self.feature("users").is_none_or(|users| users.supported)
    }

    pub(crate) fn spec(&self, program: Program) -> ExecuteSpec {
        ExecuteSpec {
            request_id: RequestId("r".to_owned()),
            program,
            env: Vec::new(),
            image: Some(self.image.name().to_owned()),
            runtime: match self.backend {
                Backend::Native => RuntimeChoice::Native,
                Backend::Docker => RuntimeChoice::Docker,
            },
            working_dir: None,
            user: None,
            stdin: None,
            files: Vec::new(),
            timeout: SETTLE,
            limits: Limits { memory_bytes: 256 << 20, cpu_millicores: 1000, pids: 64, disk_bytes: None },
            network: Network::None,
            max_output_bytes: 1 << 20,
            labels: BTreeMap::new(),
            held: None,
        }
    }

    pub(crate) fn shell(&self, line: &str) -> ExecuteSpec {
        self.spec(Program::Shell(line.to_owned()))
    }

    pub(crate) fn argv(&self, words: &[&str]) -> ExecuteSpec {
        self.spec(Program::Argv(words.iter().map(ToString::to_string).collect()))
    }

    pub(crate) async fn run(&self, spec: ExecuteSpec) -> Result<ExecutionOutcome, EngineError> {
        self.engine.execute(spec).await
    }

    /// Runs what is no error.
    pub(crate) async fn ok(&self, spec: ExecuteSpec) -> ExecutionOutcome {
        self.run(spec).await.unwrap()
    }

    /// The standard output of a command that ends with 0.
    pub(crate) async fn stdout(&self, spec: ExecuteSpec) -> String {
        let outcome = self.ok(spec).await;
        assert_eq!(outcome.exit.code, Some(0), "{}", said(&outcome));
        text(&outcome.stdout).to_owned()
    }

    /// Runs what is refused.
    pub(crate) async fn refused(&self, spec: ExecuteSpec, code: ErrorCode) -> String {
        let error = self.run(spec).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        error.to_string()
    }
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Both streams, for messages.
pub(crate) fn said(outcome: &ExecutionOutcome) -> String {
    let (stdout, stderr) =
        (String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr));
    format!("{:?} {stdout} {stderr}", outcome.exit)
}

pub(crate) fn file(path: &str, mode: u32, content: &[u8]) -> InputFile {
    InputFile { path: path.to_owned(), mode, content: content.to_vec(), secret: false }
}

/// Processes below this one that are in a PID namespace of their own (proc_pid_status(5), `NSpid`).
fn sandbox_processes() -> Vec<String> {
    let own = i32::try_from(std::process::id()).unwrap();
    let below = leftovers::descendants(own).into_iter().filter(|process| {
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap_or_default();
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        ids.split_whitespace().count() > 1
    });
    leftovers::still_there(&below.collect::<Vec<_>>())
}

/// Everything in a data directory by path, but its images and the empty file systems that disks are copied from.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = entry.file_name().into_string().unwrap();
        if name == "images" || name.starts_with("ext4-") {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            found.extend(entries(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}
