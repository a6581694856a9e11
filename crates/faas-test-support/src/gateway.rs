//! One gateway process: started on a port of its own, asked over HTTP, stopped politely, looked after.

pub mod http;
pub mod leftovers;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::images;
use crate::users::User;
use http::{Answer, Client};

/// How long a gateway may take to say that it listens, and to end. Not a measure of anything.
const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(90);

/// How much of a log a failure shows, from its end.
const SHOWN_LOG_BYTES: usize = 8_000;

/// How long a gateway that wants to be alone waits for others. After that it does without.
const PATIENCE: Duration = Duration::from_secs(100);

/// The lock that gateways of tests share, whatever process they are started from, and that one which wants to be alone
/// has for itself: there are things of which the whole machine has little (pseudo-terminals). It is on the directory of
/// temporary files itself, so that nothing is left of it.
fn lock(alone: bool) -> File {
    let path = std::env::temp_dir();
    let opened = File::open(&path);
    let file = opened.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if !alone {
        file.lock_shared().unwrap_or_else(|error| panic!("lock {}: {error}", path.display()));
        return file;
    }
    let deadline = Instant::now() + PATIENCE;
    while file.try_lock().is_err() {
        if Instant::now() > deadline {
            println!("NOTE not alone on the machine");
            break;
        }
        leftovers::pause(Duration::from_millis(50));
    }
    file
}

/// A gateway that is about to be started.
#[derive(Debug)]
pub struct Builder {
    program: PathBuf,
    wrapper: Vec<OsString>,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    alone: bool,
    /// The ids of an ordinary user, and the command line that becomes it.
    user: Option<(u32, u32, Vec<String>)>,
    image: Option<&'static str>,
}

impl Builder {
    /// Waits until there is no gateway of another test, and keeps them waiting.
    #[must_use]
    pub const fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// One more environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// A command line that ends by executing what follows it: it decides what the gateway inherits.
    #[must_use]
    pub fn wrapper(mut self, command_line: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.wrapper = command_line.into_iter().map(|part| part.as_ref().to_owned()).collect();
        self
    }

    /// Has it run as an ordinary user who is in `groups`, from a copy of the program that this user can read.
    #[must_use]
    pub fn run_as(mut self, user: &User, groups: &[u32]) -> Self {
        self.user = Some((user.uid, user.gid, user.wrapper(groups)));
        self
    }

    /// Has the image of a recipe in its store, and as its default.
    #[must_use]
    pub fn image(mut self, recipe: &'static str) -> Self {
        self.image = Some(recipe);
        self.arg("--default-image").arg(recipe)
    }

    /// Starts it and waits until it listens.
    ///
    /// # Panics
    /// When it does not; the message has the end of its log.
    #[must_use]
    pub fn start(self) -> Gateway {
        leftovers::become_subreaper().expect("become a subreaper");
        let lock = lock(self.alone);
        let data = tempfile::Builder::new().prefix("faas-test-").tempdir().expect("make a data directory");
        let log = std::env::temp_dir()
            .join(format!("{}.log", data.path().file_name().unwrap_or_default().display()));
        let log_file = File::create(&log).expect("make a log file");
        if let Some(recipe) = self.image {
            import(&self.program, recipe, data.path());
        }
        let mut line = self.wrapper;
        let mut copy = None;
        let mut environment = self.environment;
        if let Some((uid, gid, wrapper)) = self.user {
            std::os::unix::fs::chown(data.path(), Some(uid), Some(gid))
                .expect("give the data directory away");
            environment.push(("HOME".into(), data.path().into()));
            let dir = open_dir();
            let program = dir.path().join("faas-gateway-server");
            images::link_or_copy(&self.program, &program);
            line.extend(wrapper.into_iter().map(OsString::from));
            line.push(program.into());
            copy = Some(dir);
        } else {
            line.push(self.program.into());
        }
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(data.path());
        command.args(self.arguments).env("RUST_LOG", "debug").envs(environment);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file);
        let child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", line[0].display()));
        let mut gateway = Gateway {
            child,
            client: Client::new(SocketAddr::from(([127, 0, 0, 1], 0))),
            data: Some(data),
            log,
            _copy: copy,
            _lock: lock,
        };
        gateway.client = Client::new(gateway.wait_until_listening());
        gateway
    }
}

/// A directory that everybody may enter.
fn open_dir() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().prefix("faas-test-").permissions(mode).tempdir().expect("make a directory")
}

/// Takes the image of a recipe into the store of a data directory.
fn import(program: &Path, recipe: &str, data: &Path) {
    let layout = open_dir();
    images::write_layout(recipe, layout.path());
    let output = Command::new(program)
        .args(["images", "import", "--quiet", "--name", recipe, "--data-dir"])
        .args([data, layout.path()])
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    assert!(output.status.success(), "import {recipe}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A running gateway. When it is dropped without [`Gateway::stop`] it is killed.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    client: Client,
    data: Option<tempfile::TempDir>,
    log: PathBuf,
    /// Where the program is that an ordinary user executes.
    _copy: Option<tempfile::TempDir>,
    _lock: File,
}

impl Gateway {
    /// The program `program` with a data directory of its own.
    ///
    /// # Panics
    /// As [`Builder::start`].
    #[must_use]
    pub fn start(program: impl AsRef<Path>) -> Self {
        Self::builder(program).start()
    }

    /// The same, with more to be said about it.
    #[must_use]
    pub fn builder(program: impl AsRef<Path>) -> Builder {
        Builder {
            program: program.as_ref().to_owned(),
            wrapper: Vec::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            alone: false,
            user: None,
            image: None,
        }
    }

    /// Its PID.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(0)
    }

    /// Where it listens: `http://HOST:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.client.address())
    }

    /// Its data directory.
    ///
    /// # Panics
    /// Never before it is stopped.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        self.data.as_ref().expect("it runs").path()
    }

    /// Its id, which is in the name of each thing that it makes on the host.
    ///
    /// # Panics
    /// When its data directory has none.
    #[must_use]
    pub fn id(&self) -> String {
        let path = self.data_dir().join("gateway-id");
        let id = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        id.trim().to_owned()
    }

    /// A client, for other threads.
    #[must_use]
    pub const fn client(&self) -> Client {
        self.client
    }

    /// As [`Client::request`].
    ///
    /// # Panics
    /// As there.
    #[must_use]
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.client.request(method, path, headers, body)
    }

    /// As [`Client::execute`].
    ///
    /// # Panics
    /// As there.
    #[must_use]
    pub fn execute(&self, request: Value) -> Answer {
        self.client.execute(request)
    }

    /// The end of its log.
    #[must_use]
    pub fn log_text(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(SHOWN_LOG_BYTES)..]).into_owned()
    }

    /// Ends it with SIGTERM; it must end with code 0 and leave nothing on the machine.
    ///
    /// # Panics
    /// When it does not.
    pub fn stop(mut self) {
        let marks = [self.data_dir().display().to_string(), self.id()];
        let below = leftovers::descendants(self.pid());
        let beside = leftovers::children();
        self.signal(Signal::TERM);
        let Some(status) = self.wait() else {
            panic!("the gateway does not end on SIGTERM; its log:\n{}", self.log_text());
        };
        assert_eq!(status.code(), Some(0), "after SIGTERM; its log:\n{}", self.log_text());
        let left = leftovers::eventually(|| {
            let mut adopted = leftovers::children();
            adopted.retain(|process| !beside.contains(process));
            let mut left = leftovers::still_there(&below);
            left.extend(leftovers::still_there(&adopted));
            left.extend(leftovers::marked(&marks));
            left
        });
        assert!(left.is_empty(), "left behind: {left:#?}; its log:\n{}", self.log_text());
        // Nobody needs it after a stop that went well.
        match fs::remove_file(&self.log) {
            Ok(()) | Err(_) => {}
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid()).expect("a child has a PID");
        // Not reaped yet, so the PID is its own; one that has ended already is found by wait.
        match rustix::process::kill_process(pid, signal) {
            Ok(()) | Err(_) => {}
        }
    }

    fn wait(&mut self) -> Option<ExitStatus> {
        let deadline = Instant::now() + STOP;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            leftovers::pause(Duration::from_millis(10));
        }
        None
    }

    fn wait_until_listening(&mut self) -> SocketAddr {
        let stdout = self.child.stdout.take().expect("it was piped");
        let (lines, received) = mpsc::channel();
        // Reads to the end, so that the gateway never writes to a pipe that nobody reads.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // After the first line nobody listens.
                match lines.send(line) {
                    Ok(()) | Err(_) => {}
                }
            }
        });
        let deadline = Instant::now() + START;
        loop {
            match received.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(address) = line.strip_prefix("listening on http://") {
                        return address.parse().unwrap_or_else(|error| panic!("{line:?}: {error}"));
                    }
                }
                Err(_) => panic!("the gateway does not say that it listens; its log:\n{}", self.log_text()),
            }
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        // Without a chance to clear up: a test has failed, and its message is what counts.
        match (self.child.kill(), self.child.wait()) {
            (Ok(()), Ok(_)) | (Err(_), _) | (_, Err(_)) => {}
        }
        eprintln!("the gateway was killed; its log is {}", self.log.display());
    }
}
