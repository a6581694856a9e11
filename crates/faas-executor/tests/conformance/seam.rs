//! One backend at its seam, without an engine, on a data directory of its own: what the promises of lasting sandboxes
//! are tried on. A server that is to be killed is a process of its own ([`Server`]).

use std::collections::BTreeSet;
use std::ffi::OsStr;
#[cfg(feature = "native")]
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use faas_executor::DataDir;
#[cfg(feature = "docker")]
use faas_executor::docker::{DockerConfig, DockerExecutor, TransportChoice};
use faas_executor::guest::{AgentConnection, Collected, ExecCall};
#[cfg(feature = "native")]
use faas_executor::images::{ImageStore, ImageStoreConfig};
#[cfg(feature = "native")]
use faas_executor::native::{NativeConfig, NativeExecutor};
use faas_executor::sandbox::{
    Ended, Found, Leak, Lifetime, Limits, Measures, SandboxError, SandboxExecutor as _, SandboxHandle,
    SandboxRecord, SandboxSpec,
};
use faas_guest_protocol::{ExecRequest, Program};
use faas_types::{Network, SandboxId};

use super::backends;
use super::stock::Image;
use super::subject::{Backend, SETTLE, Subject, text};

/// The first argument with which a case starts this program again as a server.
pub(crate) const SERVE: &str = "serve-lasting";

/// What every sandbox of these cases may use, unless a case says otherwise.
pub(crate) const LIMITS: Limits =
    Limits { memory_bytes: 256 << 20, cpu_millicores: 1000, pids: 64, disk_bytes: None };

/// The only sandbox of a [`Server`].
pub(crate) const ID: &str = "sb-lasting";

/// Where a seam is.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) backend: Backend,
    pub(crate) image: Image,
    /// The engine's data directory, whose images are used too.
    engine_dir: PathBuf,
}

impl Site {
    pub(crate) fn of(subject: &Subject) -> Self {
        let engine_dir = subject.data_dir().to_owned();
        Self { backend: subject.backend, image: subject.image, engine_dir }
    }

    /// The seam's own data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.engine_dir.with_file_name("seam")
    }

    #[cfg(feature = "native")]
    pub(crate) fn gateway_id(&self) -> String {
        fs::read_to_string(self.data_dir().join("gateway-id")).unwrap().trim().to_owned()
    }
}

enum Executor {
    #[cfg(feature = "native")]
    Native(Box<NativeExecutor>),
    #[cfg(feature = "docker")]
    Docker(DockerExecutor),
}

macro_rules! each {
    ($self:expr, $executor:ident => $call:expr) => {
        match &$self.executor {
            #[cfg(feature = "native")]
            Executor::Native($executor) => $call,
            #[cfg(feature = "docker")]
            Executor::Docker($executor) => $call,
        }
    };
}

pub(crate) struct Seam {
    pub(crate) site: Site,
    executor: Executor,
    #[cfg(feature = "native")]
    images: Option<ImageStore>,
    _data_dir: DataDir,
}

impl Seam {
    /// Starts it as a server does that knows of these lasting sandboxes.
    pub(crate) async fn start(site: Site, lasting: Vec<(SandboxId, Option<SandboxRecord>)>) -> Self {
        let data_dir = DataDir::open(&site.data_dir()).unwrap();
        match site.backend {
            #[cfg(feature = "native")]
            Backend::Native => {
                let own_program = std::env::current_exe().unwrap();
                let config = ImageStoreConfig::new(own_program.clone());
                let images = ImageStore::open(&site.engine_dir.join("images"), config).await.unwrap();
                let config = NativeConfig {
                    launcher_exe: own_program,
                    spare_slots: 1,
                    images_dir: Some(images.images_dir()),
                    lasting,
                };
                let executor = NativeExecutor::start(&data_dir, config).await.unwrap();
                let executor = Executor::Native(Box::new(executor));
                Self { site, executor, images: Some(images), _data_dir: data_dir }
            }
            #[cfg(feature = "docker")]
            Backend::Docker => {
                let config = DockerConfig {
                    host: backends::docker_host().parse().unwrap(),
                    transport: TransportChoice::Auto,
                    runtime: None,
                    auth_file: None,
                };
                let executor = DockerExecutor::start(&data_dir, config, lasting, 16).unwrap();
                Self {
                    site,
                    executor: Executor::Docker(executor),
                    #[cfg(feature = "native")]
                    images: None,
                    _data_dir: data_dir,
                }
            }
            #[cfg(not(all(feature = "native", feature = "docker")))]
            other => panic!("this build has no {other:?}"),
        }
    }

    /// Ends it as a server ends that was asked to.
    pub(crate) async fn stop(self) {
        each!(self, executor => executor.stop().await);
    }

    /// What a lasting sandbox of the image is made from, and revived and adopted by.
    pub(crate) fn spec(&self, id: &str, limits: Limits) -> SandboxSpec {
        let name = self.site.image.name().to_owned();
        let mut spec = SandboxSpec::new(SandboxId(id.to_owned()), name, limits, Network::None);
        spec.lifetime = Lifetime::Lasting;
        #[cfg(feature = "native")]
        if let Some(images) = self.images.as_ref().filter(|_| self.site.image != Image::Host) {
            spec.stored = Some(images.get(self.site.image.name()).unwrap().unwrap());
        }
        spec
    }

    pub(crate) async fn try_create(&self, spec: &SandboxSpec) -> Result<SandboxHandle, SandboxError> {
        each!(self, executor => executor.create(spec).await)
    }

    /// Makes one and keeps it.
    pub(crate) async fn create(&self, id: &str) -> (SandboxHandle, SandboxRecord) {
        let sandbox = self.try_create(&self.spec(id, LIMITS)).await.unwrap();
        let record = self.record(&sandbox);
        self.keep(&sandbox).await;
        (sandbox, record)
    }

    pub(crate) fn record(&self, sandbox: &SandboxHandle) -> SandboxRecord {
        each!(self, executor => executor.record(sandbox)).unwrap()
    }

    pub(crate) async fn keep(&self, sandbox: &SandboxHandle) {
        each!(self, executor => executor.keep(sandbox).await).unwrap();
    }

    pub(crate) async fn adopt(&self, spec: &SandboxSpec, record: &SandboxRecord) -> Found {
        each!(self, executor => executor.adopt(spec, record).await).unwrap()
    }

    /// Adopts one that must be alive.
    pub(crate) async fn live(&self, spec: &SandboxSpec, record: &SandboxRecord) -> (SandboxHandle, bool) {
        match self.adopt(spec, record).await {
            Found::Live { handle, paused } => (handle, paused),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn halt(&self, sandbox: SandboxHandle) -> SandboxRecord {
        each!(self, executor => executor.halt(sandbox).await).unwrap()
    }

    pub(crate) async fn revive(&self, spec: &SandboxSpec, record: &SandboxRecord) -> SandboxHandle {
        each!(self, executor => executor.revive(spec, record).await).unwrap()
    }

    pub(crate) async fn remove(&self, id: &str, record: Option<&SandboxRecord>) {
        let id = SandboxId(id.to_owned());
        each!(self, executor => executor.remove(&id, record).await).unwrap();
    }

    pub(crate) async fn destroy(&self, sandbox: SandboxHandle) {
        each!(self, executor => executor.destroy(sandbox).await).unwrap();
    }

    pub(crate) async fn pause(&self, sandbox: &SandboxHandle) -> Result<(), SandboxError> {
        each!(self, executor => executor.pause(sandbox).await)
    }

    pub(crate) async fn resume(&self, sandbox: &SandboxHandle) {
        each!(self, executor => executor.resume(sandbox).await).unwrap();
    }

    pub(crate) async fn set_limits(
        &self,
        sandbox: &SandboxHandle,
        limits: Limits,
    ) -> Result<(), SandboxError> {
        each!(self, executor => executor.set_limits(sandbox, &limits).await)
    }

    pub(crate) fn ended(&self, sandbox: &SandboxHandle) -> Ended {
        each!(self, executor => executor.ended(sandbox)).unwrap()
    }

    pub(crate) async fn measure(&self, sandbox: &SandboxHandle) -> Measures {
        each!(self, executor => executor.measure(sandbox).await).unwrap()
    }

    pub(crate) async fn leaks(&self, lasting: &[&str]) -> Vec<Leak> {
        let lasting: BTreeSet<_> = lasting.iter().map(|id| SandboxId((*id).to_owned())).collect();
        each!(self, executor => executor.leaks(&lasting).await).unwrap()
    }

    /// Runs a line of the shell; its exit code and what it said.
    pub(crate) async fn run(&self, sandbox: &SandboxHandle, line: &str) -> (Option<i32>, String) {
        // A later connection is all that an adopted sandbox has. The agent of a new one may just be starting.
        let begun = std::time::Instant::now();
        let stream = loop {
            match each!(self, executor => executor.connect(sandbox).await) {
                Ok(stream) => break stream,
                Err(error) if begun.elapsed() > SETTLE => panic!("{error}"),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            }
        };
        let request = ExecRequest {
            program: Program::Shell(line.to_owned()),
            env: sandbox.image.env.clone(),
            cwd: None,
            user: None,
            files: Vec::new(),
            stdin: false,
            timeout_ms: Some(u64::try_from(SETTLE.as_millis()).unwrap()),
            max_output_bytes: 1 << 20,
            cpu_time_limit_s: None,
            finish_ms: None,
            lasting: None,
        };
        let call = ExecCall { request, files: Vec::new(), stdin: None, held: None };
        let mut said = Collected::default();
        let exit = AgentConnection::new(stream).exec(call, &mut said).await;
        match exit {
            Ok(exit) => {
                let all = [said.stdout.as_slice(), said.stderr.as_slice()].concat();
                (exit.code, text(&all).trim_end().to_owned())
            }
            // Its agent ended with it.
            Err(error) => (None, error.to_string()),
        }
    }

    /// Runs one that succeeds.
    pub(crate) async fn ok(&self, sandbox: &SandboxHandle, line: &str) -> String {
        let (code, said) = self.run(sandbox, line).await;
        assert_eq!(code, Some(0), "{line}: {said}");
        said
    }

    /// Begins a process that goes on and adds to `/tmp/ticks`.
    pub(crate) async fn begin(&self, sandbox: &SandboxHandle) {
        let line = "setsid sh -c 'while :; do echo tick >>/tmp/ticks; sleep 0.05; done' \
                    </dev/null >/dev/null 2>&1 & while ! [ -s /tmp/ticks ]; do sleep 0.01; done";
        self.ok(sandbox, line).await;
    }

    /// Waits until that process has added more.
    pub(crate) async fn goes_on(&self, sandbox: &SandboxHandle) {
        let line = "n=$(wc -l </tmp/ticks); while [ $(wc -l </tmp/ticks) -le $n ]; do sleep 0.02; done";
        self.ok(sandbox, line).await;
    }
}

/// A server in a process of its own with one lasting sandbox, in which a process goes on (see [`Seam::begin`]).
pub(crate) struct Server {
    child: Child,
    pub(crate) record: SandboxRecord,
}

impl Server {
    /// Starts it; it has done these steps when this returns: `keep`, `pause`, `stop` (its own clean end).
    pub(crate) fn start(site: &Site, steps: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([SERVE, site.backend.as_str(), site.image.recipe()])
            .arg(&site.engine_dir)
            .args(steps)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let record = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        Self { child, record }
    }

    #[cfg(feature = "native")]
    /// The processes that it has started.
    #[cfg(feature = "native")]
    pub(crate) fn children(&self) -> Vec<faas_test_support::gateway::leftovers::Process> {
        let own = i32::try_from(self.child.id()).unwrap();
        let all = faas_test_support::gateway::leftovers::processes();
        all.into_iter().filter(|process| process.parent == own).collect()
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) -> SandboxRecord {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.record
    }

    /// Waits for its own end.
    pub(crate) fn wait(mut self) -> SandboxRecord {
        assert!(self.child.wait().unwrap().success());
        self.record
    }
}

/// The other side of [`Server`]: `BACKEND IMAGE ENGINE_DIR STEP...`.
pub(crate) fn serve(arguments: &[&OsStr]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(|word| word.to_str().unwrap()).collect();
    let [backend, image, engine_dir, steps @ ..] = words.as_slice() else { return ExitCode::from(64) };
    let engine_dir = Path::new(engine_dir).to_owned();
    let site = Site { backend: Backend::of(backend), image: Image::of(image), engine_dir };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let seam = Seam::start(site, Vec::new()).await;
        let sandbox = seam.try_create(&seam.spec(ID, LIMITS)).await.unwrap();
        let record = serde_json::to_string(&seam.record(&sandbox)).unwrap();
        seam.begin(&sandbox).await;
        for step in steps {
            match *step {
                "keep" => seam.keep(&sandbox).await,
                "pause" => seam.pause(&sandbox).await.unwrap(),
                "stop" => {
                    seam.stop().await;
                    println!("{record}");
                    return;
                }
                other => panic!("there is no step {other}"),
            }
        }
        println!("{record}");
        // Until it is killed.
        std::future::pending::<()>().await;
    });
    ExitCode::SUCCESS
}
