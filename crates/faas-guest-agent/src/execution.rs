//! One execution: its files, its process, its pipes, its end. Everything is driven by the agent's loop; nothing here
//! blocks.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use faas_guest_protocol::{AgentError, AgentErrorKind, ExecRequest, ExitReport, FrameKind, Started};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, WaitStatus};

use crate::connection::Connection;
use crate::files::{FileError, Target};
use crate::oom;
use crate::processes;
use crate::program;
use crate::spawn::{SpawnError, Stdio, spawn};
use crate::users::{self, Identity};

/// The most that is kept of standard input while the program does not read it.
const STDIN_BYTES: usize = 1 << 20;

/// How much of a pipe is read when its program has ended: as much as a pipe can hold, so that a background process
/// that goes on writing does not keep the execution from ending.
const LAST_READ_BYTES: usize = 1 << 20;

/// The largest `/etc/passwd` or `/etc/group` that is looked at.
const USERS_BYTES: u64 = 4 << 20;

/// One of a program's output streams.
#[derive(Debug)]
pub(crate) struct Output {
    kind: FrameKind,
    pipe: Option<OwnedFd>,
    /// How many bytes may still be sent.
    left: u64,
    truncated: bool,
}

impl Output {
    fn new(kind: FrameKind, pipe: OwnedFd, limit: u64) -> Self {
        Self { kind, pipe: Some(pipe), left: limit, truncated: false }
    }

    pub(crate) fn pipe(&self) -> Option<&OwnedFd> {
        self.pipe.as_ref()
    }

    /// Takes in what was read: the first bytes are passed on, the rest is dropped.
    fn pass_on(&mut self, bytes: &[u8], id: u64, client: Option<&mut Connection>) {
        let keep = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        self.truncated |= keep < bytes.len();
        self.left -= u64::try_from(keep).unwrap_or(0);
        if let (Some(client), true) = (client, keep > 0) {
            client.queue_bytes(self.kind, id, &bytes[..keep]);
        }
    }

    /// Reads once. Whether there may be more.
    pub(crate) fn read(&mut self, buffer: &mut Vec<u8>, id: u64, client: Option<&mut Connection>) -> bool {
        let Some(pipe) = &self.pipe else { return false };
        buffer.clear();
        match rustix::io::read(pipe, rustix::buffer::spare_capacity(buffer)) {
            Ok(0) => {
                self.pipe = None;
                false
            }
            Ok(_) => {
                self.pass_on(buffer, id, client);
                true
            }
            Err(rustix::io::Errno::INTR) => true,
            Err(rustix::io::Errno::WOULDBLOCK) => false,
            Err(_) => {
                self.pipe = None;
                false
            }
        }
    }
}

/// A program that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) pid: Pid,
    started: Instant,
    pub(crate) deadline: Option<Instant>,
    pub(crate) outputs: [Output; 2],
    pub(crate) stdin: Option<OwnedFd>,
    pending_stdin: Vec<u8>,
    stdin_ended: bool,
    timed_out: bool,
    cancelled: bool,
}

/// Where an execution stands.
#[derive(Debug)]
pub(crate) enum State {
    /// Its files are arriving.
    Receiving {
        request: Box<ExecRequest>,
        identity: Identity,
        cwd: PathBuf,
        next: usize,
        target: Option<Target>,
    },
    /// Its process runs.
    Running(Box<Running>),
    /// It ended or failed; frames for it are passed over until it is forgotten.
    Over,
}

/// One execution.
#[derive(Debug)]
pub(crate) struct Execution {
    /// The client's number for it.
    pub(crate) id: u64,
    /// The connection that started it.
    pub(crate) client: u64,
    pub(crate) state: State,
}

fn error(kind: AgentErrorKind, errno: i32, message: impl Into<String>) -> AgentError {
    AgentError { kind, message: message.into(), errno }
}

fn describe(errno: i32) -> String {
    io::Error::from_raw_os_error(errno).to_string()
}

fn file_error(failed: &FileError) -> AgentError {
    let errno = failed.source.raw_os_error().unwrap_or(0);
    error(AgentErrorKind::File, errno, format!("{}: {}", failed.path.display(), failed.source))
}

/// Reads a file of users or groups: nothing where there is none.
fn read_users(path: &str) -> String {
    use std::io::Read as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let read = || {
        // Not blocking: a FIFO in its place must not hold up the agent.
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let mut bytes = Vec::new();
        if file.metadata()?.is_file() {
            file.take(USERS_BYTES).read_to_end(&mut bytes)?;
        }
        io::Result::Ok(bytes)
    };
    // One that cannot be read is as good as none: whom it would have named is reported as unknown.
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

fn identify(user: Option<&str>) -> Result<Identity, AgentError> {
    users::resolve(user, &read_users("/etc/passwd"), &read_users("/etc/group"))
        .map_err(|message| error(AgentErrorKind::User, 0, message))
}

impl Execution {
    /// Begins an execution; without files its program starts at once.
    pub(crate) fn begin(id: u64, request: ExecRequest, client: &mut Connection) -> Self {
        let mut execution = Self { id, client: client.id, state: State::Over };
        match identify(request.user.as_deref()) {
            Err(failed) => client.queue(FrameKind::Error, id, &failed),
            Ok(identity) => {
                let cwd = PathBuf::from(request.cwd.as_deref().unwrap_or("/"));
                let request = Box::new(request);
                execution.state = State::Receiving { request, identity, cwd, next: 0, target: None };
                execution.take_file_bytes(&[], client);
            }
        }
        execution
    }

    /// Takes in bytes of its files. When the last is whole the program starts.
    pub(crate) fn take_file_bytes(&mut self, bytes: &[u8], client: &mut Connection) {
        let State::Receiving { request, identity, cwd, next, target } = &mut self.state else { return };
        let mut rest = bytes;
        loop {
            if let Some(open) = target {
                match open.write(rest) {
                    Err(failed) => return self.fail(&file_error(&failed), client),
                    Ok(left) => rest = left,
                }
                if !open.is_whole() {
                    return;
                }
                *target = None;
                *next += 1;
            }
            let Some(file) = request.files.get(*next) else { break };
            match Target::open(file, cwd, identity) {
                Err(failed) => return self.fail(&file_error(&failed), client),
                Ok(open) => *target = Some(open),
            }
        }
        if !rest.is_empty() {
            let message = "more bytes of files than were announced";
            return self.fail(&error(AgentErrorKind::BadRequest, 0, message), client);
        }
        self.start(client);
    }

    fn fail(&mut self, failed: &AgentError, client: &mut Connection) {
        self.state = State::Over;
        client.queue(FrameKind::Error, self.id, failed);
    }

    fn start(&mut self, client: &mut Connection) {
        let State::Receiving { request, identity, cwd, .. } = std::mem::replace(&mut self.state, State::Over)
        else {
            return;
        };
        match start(&request, &identity, &cwd) {
            Ok(running) => {
                let pid = running.pid.as_raw_nonzero().get().unsigned_abs();
                client.queue(FrameKind::Started, self.id, &Started { pid });
                self.state = State::Running(Box::new(running));
            }
            Err(NotStarted::Refused(failed)) => client.queue(FrameKind::Error, self.id, &failed),
            Err(NotStarted::Exit { code, message }) => {
                let mut stderr = Output {
                    kind: FrameKind::Stderr,
                    pipe: None,
                    left: request.max_output_bytes,
                    truncated: false,
                };
                stderr.pass_on(message.as_bytes(), self.id, Some(client));
                let report = ExitReport {
                    code: Some(code),
                    stderr_truncated: stderr.truncated,
                    duration_us: 1,
                    ..ExitReport::default()
                };
                client.queue(FrameKind::Exit, self.id, &report);
            }
        }
    }

    /// Takes in standard input.
    pub(crate) fn take_stdin(&mut self, bytes: &[u8]) {
        if let State::Running(running) = &mut self.state
            && running.stdin.is_some()
        {
            running.pending_stdin.extend_from_slice(bytes);
            running.write_stdin();
        }
    }

    /// Takes in the end of standard input.
    pub(crate) fn end_stdin(&mut self) {
        if let State::Running(running) = &mut self.state {
            running.stdin_ended = true;
            running.write_stdin();
        }
    }

    /// Kills everything it started. Its end is reported when its process has ended.
    pub(crate) fn cancel(&mut self, client: Option<&mut Connection>) {
        match &mut self.state {
            State::Running(running) => {
                running.cancelled = true;
                processes::kill_started_by(running.pid);
            }
            State::Receiving { .. } => {
                self.state = State::Over;
                if let Some(client) = client {
                    let report =
                        ExitReport { signal: Some(libc::SIGKILL), cancelled: true, ..ExitReport::default() };
                    client.queue(FrameKind::Exit, self.id, &report);
                }
            }
            State::Over => {}
        }
    }
}

impl Running {
    /// Writes to the program's standard input what it takes.
    pub(crate) fn write_stdin(&mut self) {
        let Some(pipe) = &self.stdin else { return };
        let mut written = 0;
        let mut gone = false;
        while written < self.pending_stdin.len() {
            match rustix::io::write(pipe, &self.pending_stdin[written..]) {
                Ok(n) => written += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => break,
                // The program does not read any more, which is its own affair.
                Err(_) => {
                    gone = true;
                    break;
                }
            }
        }
        self.pending_stdin.drain(..written);
        if gone || (self.stdin_ended && self.pending_stdin.is_empty()) {
            self.stdin = None;
            self.pending_stdin = Vec::new();
        }
    }

    /// Whether it waits for the program to read.
    pub(crate) fn has_pending_stdin(&self) -> bool {
        !self.pending_stdin.is_empty()
    }

    /// Whether no more of standard input is wanted now.
    pub(crate) fn stdin_is_full(&self) -> bool {
        self.pending_stdin.len() >= STDIN_BYTES
    }

    /// Gives it more time.
    pub(crate) fn add_time(&mut self, time: Duration) {
        self.deadline = self.deadline.and_then(|deadline| deadline.checked_add(time));
    }

    /// Ends it when its time is over.
    pub(crate) fn check_deadline(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.deadline = None;
            self.timed_out = true;
            processes::kill_started_by(self.pid);
        }
    }

    /// What is left in its pipes, and its report.
    pub(crate) fn finish(
        &mut self,
        status: WaitStatus,
        id: u64,
        buffer: &mut Vec<u8>,
        mut client: Option<&mut Connection>,
    ) {
        let ended = Instant::now();
        for output in &mut self.outputs {
            let mut read = 0;
            while read < LAST_READ_BYTES && output.read(buffer, id, client.as_deref_mut()) {
                read += buffer.len();
            }
        }
        let [stdout, stderr] = &self.outputs;
        // It may have ended by itself just before it would have been killed.
        let killed = status.terminating_signal() == Some(libc::SIGKILL);
        let report = ExitReport {
            code: status.exit_status(),
            signal: status.terminating_signal(),
            timed_out: self.timed_out && killed,
            cancelled: self.cancelled && killed,
            stdout_truncated: stdout.truncated,
            stderr_truncated: stderr.truncated,
            duration_us: u64::try_from((ended - self.started).as_micros()).unwrap_or(u64::MAX).max(1),
            oom_kills: oom::kills(),
        };
        if let Some(client) = client {
            client.queue(FrameKind::Exit, id, &report);
        }
    }
}

/// Why a program did not start.
enum NotStarted {
    /// The request cannot be carried out.
    Refused(AgentError),
    /// A shell would have said this and given this exit code.
    Exit { code: i32, message: String },
}

fn refused(kind: AgentErrorKind, errno: i32, message: impl Into<String>) -> NotStarted {
    NotStarted::Refused(error(kind, errno, message))
}

fn of_limit(failed: &rustix::io::Errno) -> NotStarted {
    let errno = failed.raw_os_error();
    refused(AgentErrorKind::Limit, errno, format!("cannot make a pipe: {}", describe(errno)))
}

/// A pipe whose end for the agent does not block.
fn output_pipe() -> Result<(OwnedFd, OwnedFd), NotStarted> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| of_limit(&e))?;
    rustix::io::ioctl_fionbio(&read, true).map_err(|e| of_limit(&e))?;
    Ok((read, write))
}

fn start(request: &ExecRequest, identity: &Identity, cwd: &std::path::Path) -> Result<Running, NotStarted> {
    let image = program::prepare(&request.program, &request.env, identity)
        .map_err(|failed| refused(AgentErrorKind::BadRequest, 0, failed.to_string()))?;
    let cwd_c = CString::new(cwd.as_os_str().as_encoded_bytes())
        .map_err(|failed| refused(AgentErrorKind::BadRequest, 0, failed.to_string()))?;
    let (stdout, stdout_write) = output_pipe()?;
    let (stderr, stderr_write) = output_pipe()?;
    let (stdin_read, stdin) = if request.stdin {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| of_limit(&e))?;
        rustix::io::ioctl_fionbio(&write, true).map_err(|e| of_limit(&e))?;
        (Some(read), Some(write))
    } else {
        (None, None)
    };
    let null = rustix::stdio::stdin();
    let stdio = Stdio {
        stdin: stdin_read.as_ref().map_or(null, |pipe| pipe.as_fd()),
        stdout: stdout_write.as_fd(),
        stderr: stderr_write.as_fd(),
    };
    let started = Instant::now();
    let pid =
        spawn(&image, identity, &cwd_c, stdio, request.cpu_time_limit_s).map_err(|failed| match failed {
            SpawnError::NotFound => {
                NotStarted::Exit { code: 127, message: format!("{}: not found\n", image.name) }
            }
            SpawnError::NotExecutable(errno) => {
                NotStarted::Exit { code: 126, message: format!("{}: {}\n", image.name, reason(errno)) }
            }
            SpawnError::TooLarge => refused(
                AgentErrorKind::TooLarge,
                libc::E2BIG,
                "arguments and environment together are larger than the kernel takes",
            ),
            SpawnError::Fork(errno) => refused(
                AgentErrorKind::Limit,
                errno,
                format!("the sandbox's limits leave no room for a process: {}", describe(errno)),
            ),
            SpawnError::Identity(errno) => refused(
                AgentErrorKind::User,
                errno,
                format!("cannot become uid {} gid {}: {}", identity.uid, identity.gid, describe(errno)),
            ),
            SpawnError::WorkingDir(errno) => {
                refused(AgentErrorKind::WorkingDir, errno, format!("{}: {}", cwd.display(), describe(errno)))
            }
            SpawnError::Other(errno) => refused(AgentErrorKind::Internal, errno, describe(errno)),
        })?;
    Ok(Running {
        pid,
        started,
        deadline: request.timeout_ms.and_then(|ms| started.checked_add(Duration::from_millis(ms))),
        outputs: [
            Output::new(FrameKind::Stdout, stdout, request.max_output_bytes),
            Output::new(FrameKind::Stderr, stderr, request.max_output_bytes),
        ],
        stdin,
        pending_stdin: Vec::new(),
        stdin_ended: false,
        timed_out: false,
        cancelled: false,
    })
}

/// An errno as a shell words it.
fn reason(errno: i32) -> String {
    match errno {
        libc::EACCES => "Permission denied".to_owned(),
        libc::ENOEXEC => "Exec format error".to_owned(),
        other => describe(other),
    }
}
