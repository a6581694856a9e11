//! A gateway under the worst starter, and around it everything that a sandbox must not reach, each with one token in it.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use faas_test_support::gateway::http::Answer;
use faas_test_support::gateway::leftovers;
use serde_json::{Value, json};

use super::standing::{Served, Standing};

/// Where the attacker is in a sandbox.
pub(crate) const ATTACKER: &str = "/tmp/attacker";

/// How long a command of the suite may run, in milliseconds. Every attempt has a shorter limit of its own.
const TIMEOUT_MS: u64 = 150_000;

/// The outside.
pub(crate) struct Scene {
    pub(crate) standing: Standing,
    canary: Child,
    pub(crate) gateway: Served,
    /// Directories of the host: one of the scene's, one below `/usr`, which sandboxes see.
    host: tempfile::TempDir,
    usr: tempfile::TempDir,
    token: String,
    kept_at: u64,
    options: Vec<String>,
    in_sandbox: Vec<String>,
    on_host: Vec<String>,
    /// The image in the store, as it was.
    image: Vec<String>,
}

impl Scene {
    /// Starts everything. What must not be reached belongs to whoever the gateway runs as, who could reach it.
    pub(crate) fn start(standing: Standing) -> Self {
        let token = random();
        let user = standing.user();
        let own = |path: &Path| user.iter().for_each(|user| user.own(path));
        let host = tempfile::Builder::new().prefix("faas-attack-").tempdir().unwrap();
        let usr = tempfile::Builder::new().prefix("faas-attack-").tempdir_in("/usr/local/share").unwrap();
        for dir in [&host, &usr] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let attacker = host.path().join("attacker");
        write(&attacker, faas_attacker::program(), 0o755);
        let work = host.path().join("work");
        fs::create_dir(&work).unwrap();
        fs::set_permissions(&work, fs::Permissions::from_mode(0o1777)).unwrap();
        let files = [host.path().join("private"), host.path().join("readable")];
        write(&files[0], token.as_bytes(), 0o600);
        write(&files[1], token.as_bytes(), 0o644);
        write(&usr.path().join("secret"), token.as_bytes(), 0o600);
        write(&usr.path().join("readable"), b"anybody may read this", 0o644);
        write(&usr.path().join("spare"), b"spare", 0o644);
        for file in
            files.iter().cloned().chain(["secret", "readable", "spare"].map(|name| usr.path().join(name)))
        {
            own(&file);
        }
        own(usr.path());
        write(&usr.path().join("set-user-id"), faas_attacker::program(), 0o6755);

        let backwards: String = token.chars().rev().collect();
        let mut options = vec![format!("token={backwards}"), format!("usr_dir={}", usr.path().display())];
        options.extend(files.iter().map(|file| format!("file={}", file.display())));
        let mut starter = vec![attacker.display().to_string(), "starter".to_owned()];
        starter.extend(options.iter().cloned());
        if standing.is_rootless() {
            // Nobody but the host's root can take it back (proc_pid_oom_score_adj(5)).
            starter.push("shield=no".to_owned());
        }
        starter.extend([format!("cwd={}", work.display()), "--".to_owned()]);
        let gateway =
            standing.start_as(user, |builder| builder.wrapper(&starter).arg("--max-concurrent").arg("32"));

        let mut canary = gateway
            .user()
            .map_or_else(|| Command::new(&attacker), |user| user.command(&attacker))
            .arg("canary")
            .args(&options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut victim = String::new();
        BufReader::new(canary.stdout.take().unwrap()).read_line(&mut victim).unwrap();
        let kept_at = victim.trim().split_once(':').unwrap().1.parse().unwrap();
        options.push(format!("victim={}", victim.trim()));
        // The slots stand by then.
        assert_eq!(stdout(&gateway.execute(json!({"command": "echo"}))), "\n");
        options.extend(
            leftovers::descendants(gateway.pid()).iter().map(|process| format!("pid={}", process.pid)),
        );
        options.push(format!("pid={}", gateway.pid()));
        options.extend(listeners(&token, host.path()));
        options.extend(namespaces());
        options.push(format!("gateway={}", gateway.url().trim_start_matches("http://")));
        options.push(format!("gateway_id={}", gateway.id()));
        options.push(format!("data_dir={}", gateway.data_dir().display()));
        options.push(format!("host_dir={}", host.path().display()));
        let mut in_sandbox = vec!["dir=/tmp".to_owned()];
        in_sandbox.extend(standing.option().map(str::to_owned));
        let on_host = vec![format!("dir={}", work.display())];
        let image = image_in_store(&gateway);
        Self { image, standing, gateway, host, usr, token, canary, kept_at, options, in_sandbox, on_host }
    }

    /// The attacker's arguments for a group, in a sandbox.
    pub(crate) fn arguments(&self, group: &str) -> Vec<String> {
        let own = ["try".to_owned(), group.to_owned()].into_iter();
        own.chain(self.options.iter().cloned()).chain(self.in_sandbox.iter().cloned()).collect()
    }

    /// Runs the attacker on the host, as its root, perhaps under the starter.
    pub(crate) fn run_on_host(&self, started: bool, arguments: &[String]) -> String {
        let attacker = self.attacker();
        let mut command = Command::new(&attacker);
        if started {
            command.arg("starter").args(&self.options).args(&self.on_host);
            command.arg(format!("cwd={}", self.host.path().join("work").display()));
            command.arg("--").arg(&attacker);
        }
        // The first of several values counts: those of the caller.
        let output = command.args(arguments).args(&self.options).args(&self.on_host).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?} on the host: {}, {stderr}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the attacker on the host as the gateway's user, where that is not root.
    pub(crate) fn run_as_the_user(&self, arguments: &[String]) -> Option<String> {
        let mut command = self.gateway.user()?.command(&self.attacker());
        let output = command.args(arguments).args(&self.options).args(&self.on_host).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?} as the user: {}, {stderr}", output.status);
        Some(String::from_utf8(output.stdout).unwrap())
    }

    /// Where the host has what is at `path` in a sandbox, if it is something that sandboxes have in common.
    pub(crate) fn on_the_host(&self, path: &str) -> Option<String> {
        match path {
            _ if path.starts_with("/.faas") => None,
            _ if self.standing == Standing::InImage && !path.starts_with("/dev") => {
                let root = root_in_store(&self.gateway.data_dir().join("images")).unwrap();
                Some(format!("{}{path}", root.display()))
            }
            _ => Some(path.to_owned()),
        }
    }

    /// A directory that sandboxes have in common, and a file in it.
    pub(crate) fn shared(&self) -> (String, String) {
        match self.standing {
            Standing::InImage => ("/bin".to_owned(), "/bin/busybox".to_owned()),
            _ => {
                let usr = self.usr.path().display();
                (usr.to_string(), format!("{usr}/readable"))
            }
        }
    }

    /// The attacker's program on the host.
    pub(crate) fn attacker(&self) -> PathBuf {
        self.host.path().join("attacker")
    }

    /// Where attempts on the host may write.
    pub(crate) fn work(&self) -> PathBuf {
        self.host.path().join("work")
    }

    /// The address at which every process of the attacker that holds the token has it.
    pub(crate) const fn kept_at(&self) -> u64 {
        self.kept_at
    }

    /// The scene's directory below `/usr`.
    pub(crate) fn usr_dir(&self) -> &Path {
        self.usr.path()
    }

    /// The token, backwards, as the attacker takes it.
    pub(crate) fn token_option(&self) -> String {
        format!("token={}", self.token.chars().rev().collect::<String>())
    }

    /// Ends everything; the gateway must leave nothing, and the canary must have been left alone.
    pub(crate) fn stop(mut self) {
        assert!(self.canary.try_wait().unwrap().is_none(), "the canary was ended");
        drop(self.canary.stdin.take());
        assert!(self.canary.wait().unwrap().success(), "the canary did not end well");
        for name in ["private", "readable"] {
            let text = fs::read_to_string(self.host.path().join(name)).unwrap();
            assert_eq!(text, self.token, "{name} was changed");
        }
        assert_eq!(image_in_store(&self.gateway), self.image, "the image was changed");
        self.gateway.stop();
    }
}

/// A request that brings the attacker along.
pub(crate) fn attack(arguments: &[impl AsRef<str>]) -> Value {
    let command: Vec<&str> =
        [ATTACKER].into_iter().chain(arguments.iter().map(std::convert::AsRef::as_ref)).collect();
    with_attacker(json!({"command": command, "timeout_ms": TIMEOUT_MS}))
}

/// The same request with the attacker among its files.
pub(crate) fn with_attacker(mut request: Value) -> Value {
    let program = base64::engine::general_purpose::STANDARD.encode(faas_attacker::program());
    let file = json!({"path": ATTACKER, "content_base64": program, "mode": "0755"});
    request["files"] = json!([file]);
    request
}

/// The standard output of a command that ended with exit code 0.
pub(crate) fn stdout(answer: &Answer) -> String {
    let body = answer.ok();
    assert_eq!(body["exit_code"], 0, "{body:#}");
    body["stdout"].as_str().unwrap().to_owned()
}

pub(crate) fn random() -> String {
    use std::io::Read as _;
    let mut bytes = [0u8; 16];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The root directory of the one image in a store.
fn root_in_store(dir: &Path) -> Option<PathBuf> {
    if dir.join("bin/busybox").exists() {
        return Some(dir.to_owned());
    }
    let below = fs::read_dir(dir).ok()?.flatten();
    below
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .find_map(|entry| root_in_store(&entry.path()))
}

/// Everything of the image in a gateway's store, with what a change of it would change.
fn image_in_store(gateway: &Served) -> Vec<String> {
    let mut found = Vec::new();
    let mut dirs: Vec<_> = root_in_store(&gateway.data_dir().join("images")).into_iter().collect();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            let (path, meta) = (entry.path(), entry.metadata().unwrap());
            let (ids, changed) = ((meta.uid(), meta.gid()), (meta.ctime(), meta.ctime_nsec()));
            found.push(format!("{} {:o} {ids:?} {} {changed:?}", path.display(), meta.mode(), meta.len()));
            if meta.is_dir() {
                dirs.push(path);
            }
        }
    }
    found.sort();
    found
}

fn write(path: &Path, bytes: &[u8], mode: u32) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The inodes of this process's namespaces, which are the host's.
fn namespaces() -> Vec<String> {
    ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup", "time"]
        .into_iter()
        .filter_map(|kind| {
            Some(format!("ns={kind}:{}", fs::metadata(format!("/proc/self/ns/{kind}")).ok()?.ino()))
        })
        .collect()
}

/// Sockets of the host that give the token to whoever reaches them. Their threads end with the test.
fn listeners(token: &str, dir: &Path) -> Vec<String> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let tcp = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], 0))).unwrap();
    let udp = UdpSocket::bind(any).unwrap();
    let name = format!("faas-attack-{}", random());
    let hidden = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let hidden = UnixListener::bind_addr(&hidden).unwrap();
    let path = dir.join("socket");
    let by_path = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let tcp_port = tcp.local_addr().unwrap().port();
    let udp_address = udp.local_addr().unwrap();
    let mut options = vec![
        format!("tcp={tcp_port}"),
        format!("udp={}", udp_address.port()),
        format!("abstract={name}"),
        format!("socket={}", path.display()),
    ];
    // The address that the host would send from, where it has a network. Nothing is sent.
    let probe = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], 0))).unwrap();
    if probe.connect(SocketAddr::from(([192, 0, 2, 1], 9))).is_ok() {
        options.push(format!("address={}", probe.local_addr().unwrap().ip()));
    }
    for listener in [hidden, by_path] {
        let token = token.to_owned();
        std::thread::spawn(move || {
            listener.incoming().flatten().for_each(|mut stream| drop(stream.write_all(token.as_bytes())))
        });
    }
    let said = token.to_owned();
    std::thread::spawn(move || {
        tcp.incoming().flatten().for_each(|mut stream| drop(stream.write_all(said.as_bytes())))
    });
    let said = token.to_owned();
    std::thread::spawn(move || {
        let mut asked = [0; 64];
        while let Ok((_, from)) = udp.recv_from(&mut asked) {
            drop(udp.send_to(said.as_bytes(), from));
        }
    });
    // Something to be heard by whoever listens on the host's loopback.
    let said = token.to_owned();
    std::thread::spawn(move || {
        let sender = UdpSocket::bind(any).unwrap();
        let receiver = UdpSocket::bind(any).unwrap();
        let to = receiver.local_addr().unwrap();
        while sender.send_to(said.as_bytes(), to).is_ok() {
            leftovers::pause(Duration::from_millis(20));
        }
    });
    options
}
