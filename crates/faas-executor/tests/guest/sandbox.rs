//! The real agent in namespaces of its own, with the host's programs and nothing else of a sandbox.

use std::fs;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use faas_executor::guest::{AgentClient, AgentStream, LastingCall};
use faas_guest_protocol::{ExecRequest, Lasting, LastingId, Program};
use faas_test_support::gateway::leftovers::{self, Process};

use super::SETTLE;

/// Makes the sandbox's root below `$1` from the program `$2`. All mounts are in a namespace that ends with its processes.
const MAKE: &str = "set -e
mount -t tmpfs none \"$1\"; cd \"$1\"
mkdir -p .faas/run dev/pts proc tmp
cp \"$2\" .faas/agent
for dir in bin sbin lib lib64 usr etc; do
  [ -e /$dir ] || continue
  mkdir $dir; mount --bind -o ro /$dir $dir
done
for device in null zero; do : >dev/$device; mount --bind /dev/$device dev/$device; done
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts; ln -s pts/ptmx dev/ptmx
mount -t proc proc proc
exec chroot . /.faas/agent init";

/// A sandbox; its processes end with it.
pub(crate) struct Sandbox {
    outermost: Child,
    dir: tempfile::TempDir,
}

impl Sandbox {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (root, program) = (dir.path().join("root"), dir.path().join("agent"));
        fs::create_dir(&root).unwrap();
        fs::write(&program, faas_executor::agent_binary()).unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--pid", "--mount", "--fork", "--kill-child", "sh", "-c", MAKE, "sh"]);
        command.arg(root).arg(program).stdin(Stdio::null()).process_group(0);
        Self { outermost: command.spawn().unwrap(), dir }
    }

    /// Its processes as the host sees them: init, keeper, agent, and what they started.
    fn processes(&self) -> Vec<Process> {
        let outermost = i32::try_from(self.outermost.id()).unwrap();
        leftovers::descendants(outermost)
    }

    /// The host's numbers of its processes of a name.
    pub(crate) fn named(&self, name: &str) -> Vec<i32> {
        self.processes().iter().filter(|process| process.name == name).map(|process| process.pid).collect()
    }

    fn socket(&self) -> Option<UnixStream> {
        let init = self.processes().first()?.pid;
        UnixStream::connect(format!("/proc/{init}/root/.faas/run/agent.sock")).ok()
    }

    /// A new connection to whichever agent is there, as soon as one is.
    pub(crate) async fn connect(&self) -> AgentClient {
        let begun = Instant::now();
        loop {
            if let Some(socket) = self.socket()
                && let Ok(client) = AgentClient::connect(AgentStream::from_socket(socket).unwrap()).await
            {
                return client;
            }
            assert!(begun.elapsed() < SETTLE, "no agent answers");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Kills the agent, and waits until it is gone.
    pub(crate) async fn kill_agent(&self) {
        // Three processes of one name; the agent is the last of the chain.
        let ours = self.named("agent");
        let agent = *ours.iter().max().unwrap();
        assert_eq!(ours.len(), 3, "{:?}", self.processes());
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(agent).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        let begun = Instant::now();
        while self.named("agent").contains(&agent) {
            assert!(begun.elapsed() < SETTLE);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let processes = self.processes();
        self.outermost.kill().unwrap();
        self.outermost.wait().unwrap();
        let left = leftovers::eventually(|| leftovers::still_there(&processes));
        if !std::thread::panicking() {
            assert_eq!(left, [""; 0]);
            assert!(fs::read_dir(self.dir.path().join("root")).unwrap().next().is_none());
        }
    }
}

pub(crate) fn id(number: u64) -> LastingId {
    LastingId::new(number).unwrap()
}

pub(crate) fn request(program: Program) -> ExecRequest {
    ExecRequest {
        program,
        env: Vec::new(),
        cwd: None,
        user: None,
        files: Vec::new(),
        stdin: false,
        timeout_ms: None,
        max_output_bytes: u64::MAX,
        cpu_time_limit_s: None,
        finish_ms: None,
        lasting: Some(Lasting::default()),
    }
}

pub(crate) fn call(request: ExecRequest) -> LastingCall {
    LastingCall { request, files: Vec::new(), held: None }
}

pub(crate) fn shell(line: &str) -> LastingCall {
    call(request(Program::Shell(line.to_owned())))
}

pub(crate) fn with_stdin(line: &str) -> LastingCall {
    call(ExecRequest { stdin: true, ..request(Program::Shell(line.to_owned())) })
}
