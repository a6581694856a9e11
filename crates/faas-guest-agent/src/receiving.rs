//! An execution before its program runs: its files, and the start.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use faas_guest_protocol::{AgentError, AgentErrorKind, ExecRequest, ExitReport, OutputStream};
use rustix::pipe::PipeFlags;

use crate::files::{FileError, Target};
use crate::output::{Output, Sink};
use crate::program;
use crate::pty;
use crate::running::Running;
use crate::spawn::{SpawnError, Stdio, spawn};
use crate::users::{self, Identity};

/// The largest `/etc/passwd` or `/etc/group` that is looked at.
const USERS_BYTES: u64 = 4 << 20;

/// An execution whose files are arriving.
#[derive(Debug)]
pub(crate) struct Receiving {
    request: Box<ExecRequest>,
    identity: Identity,
    cwd: PathBuf,
    next: usize,
    target: Option<Target>,
}

/// Why a program did not start.
pub(crate) enum NotStarted {
    /// The request cannot be carried out.
    Refused(AgentError),
    /// A shell would have said this and given this exit code.
    Exit { code: i32, message: String },
}

impl NotStarted {
    /// What is told of a program that is not there: what it would have said goes to `sink`. Or why it was refused.
    pub(crate) fn report(self, max_output_bytes: u64, sink: &mut Sink<'_>) -> Result<ExitReport, AgentError> {
        match self {
            Self::Refused(failed) => Err(failed),
            Self::Exit { code, message } => {
                let mut stderr = Output::new(OutputStream::Stderr, None, max_output_bytes);
                stderr.pass_on(message.as_bytes(), sink);
                Ok(ExitReport {
                    code: Some(code),
                    stderr_truncated: stderr.truncated,
                    duration_us: 1,
                    ..ExitReport::default()
                })
            }
        }
    }
}

pub(crate) fn error(kind: AgentErrorKind, errno: i32, message: impl Into<String>) -> AgentError {
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
pub(crate) fn read_users(path: &str) -> String {
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
    users::resolve(user, &read_users(users::PASSWD), &read_users(users::GROUP))
        .map_err(|message| error(AgentErrorKind::User, 0, message))
}

impl Receiving {
    /// Begins an execution. Nothing of it runs yet, whether it has files or not.
    pub(crate) fn new(request: ExecRequest) -> Result<Self, AgentError> {
        let identity = identify(request.user.as_deref())?;
        let cwd = PathBuf::from(request.cwd.as_deref().unwrap_or("/"));
        Ok(Self { request: Box::new(request), identity, cwd, next: 0, target: None })
    }

    /// How many bytes of each of its streams are passed on.
    pub(crate) fn max_output_bytes(&self) -> u64 {
        self.request.max_output_bytes
    }

    /// Takes in bytes of its files. Whether the last is whole, so that it can start.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<bool, AgentError> {
        let Self { request, identity, cwd, next, target } = self;
        let mut rest = bytes;
        loop {
            if let Some(open) = target {
                rest = open.write(rest).map_err(|failed| file_error(&failed))?;
                if !open.is_whole() {
                    return Ok(false);
                }
                *target = None;
                *next += 1;
            }
            let Some(file) = request.files.get(*next) else { break };
            *target = Some(Target::open(file, cwd, identity).map_err(|failed| file_error(&failed))?);
        }
        if !rest.is_empty() {
            let message = "more bytes of files than were announced";
            return Err(error(AgentErrorKind::BadRequest, 0, message));
        }
        Ok(true)
    }

    /// Starts its program.
    pub(crate) fn start(&self) -> Result<Running, NotStarted> {
        start(&self.request, &self.identity, &self.cwd)
    }
}

fn refused(kind: AgentErrorKind, errno: i32, message: impl Into<String>) -> NotStarted {
    NotStarted::Refused(error(kind, errno, message))
}

fn of_limit(failed: &rustix::io::Errno) -> NotStarted {
    let errno = failed.raw_os_error();
    refused(AgentErrorKind::Limit, errno, format!("cannot make a pipe: {}", describe(errno)))
}

/// What a program is started with: its ends and ours.
struct Channels {
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: OwnedFd,
    outputs: [Output; 2],
    our_stdin: Option<OwnedFd>,
    tty: Option<OwnedFd>,
}

/// A pipe whose end for the agent does not block.
fn output_pipe() -> Result<(OwnedFd, OwnedFd), NotStarted> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| of_limit(&e))?;
    rustix::io::ioctl_fionbio(&read, true).map_err(|e| of_limit(&e))?;
    Ok((read, write))
}

fn pipes(request: &ExecRequest) -> Result<Channels, NotStarted> {
    let (stdout, stdout_write) = output_pipe()?;
    let (stderr, stderr_write) = output_pipe()?;
    let (stdin_read, stdin) = if request.stdin {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| of_limit(&e))?;
        rustix::io::ioctl_fionbio(&write, true).map_err(|e| of_limit(&e))?;
        (Some(read), Some(write))
    } else {
        (None, None)
    };
    Ok(Channels {
        stdin: stdin_read,
        stdout: stdout_write,
        stderr: stderr_write,
        outputs: [
            Output::new(OutputStream::Stdout, Some(stdout), request.max_output_bytes),
            Output::new(OutputStream::Stderr, Some(stderr), request.max_output_bytes),
        ],
        our_stdin: stdin,
        tty: None,
    })
}

fn terminal(
    request: &ExecRequest,
    size: faas_guest_protocol::TtySize,
    identity: &Identity,
) -> Result<Channels, NotStarted> {
    let of_tty = |failed: rustix::io::Errno| {
        let errno = failed.raw_os_error();
        refused(AgentErrorKind::Limit, errno, format!("cannot make a terminal: {}", describe(errno)))
    };
    let (ours, its) = pty::open(size, identity).map_err(of_tty)?;
    let copy = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(of_tty);
    Ok(Channels {
        stdin: Some(copy(&its)?),
        stdout: copy(&its)?,
        stderr: its,
        outputs: [
            Output::new(OutputStream::Stdout, Some(copy(&ours)?), request.max_output_bytes),
            Output::new(OutputStream::Stderr, None, 0),
        ],
        our_stdin: Some(copy(&ours)?),
        tty: Some(ours),
    })
}

fn start(request: &ExecRequest, identity: &Identity, cwd: &std::path::Path) -> Result<Running, NotStarted> {
    let image = program::prepare(&request.program, &request.env, identity)
        .map_err(|failed| refused(AgentErrorKind::BadRequest, 0, failed.to_string()))?;
    let cwd_c = CString::new(cwd.as_os_str().as_encoded_bytes())
        .map_err(|failed| refused(AgentErrorKind::BadRequest, 0, failed.to_string()))?;
    let channels = match request.lasting.and_then(|lasting| lasting.tty) {
        None => pipes(request)?,
        Some(size) => terminal(request, size, identity)?,
    };
    let null = rustix::stdio::stdin();
    let stdio = Stdio {
        stdin: channels.stdin.as_ref().map_or(null, |pipe| pipe.as_fd()),
        stdout: channels.stdout.as_fd(),
        stderr: channels.stderr.as_fd(),
        is_terminal: channels.tty.is_some(),
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
    let deadline = request.timeout_ms.and_then(|ms| started.checked_add(Duration::from_millis(ms)));
    let Channels { outputs, our_stdin, tty, .. } = channels;
    Ok(Running::new(pid, started, deadline, outputs, our_stdin, tty))
}

/// An errno as a shell words it.
fn reason(errno: i32) -> String {
    match errno {
        libc::EACCES => "Permission denied".to_owned(),
        libc::ENOEXEC => "Exec format error".to_owned(),
        other => describe(other),
    }
}
