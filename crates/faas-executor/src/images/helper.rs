//! The server's side of the unpack process: starts one for each job, feeds it, hears its report.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStdout, Command};

use super::error::ImageError;
use super::marks;
use super::mode::UnpackMode;
use super::unpack;
use super::unpack::job::{Ids, Job, JobError, MAX_FRAME_BYTES, MoreOrder, Order, Report};
use crate::native::socket::Socket;

/// Processor time of one job. A gigabyte takes some ten seconds.
const CPU_SECONDS: u64 = 1800;

/// The largest sum of a layer's marks as they come, and the longest report.
const MAX_MARKS_BYTES: usize = marks::MAX_BYTES;

/// How long a process may take to end that has closed its output.
const TIME_TO_END: Duration = Duration::from_secs(5);

/// How many directories one process removes.
const MAX_REMOVED: usize = 100;

/// What starts unpack processes.
#[derive(Clone, Debug)]
pub(crate) struct Helper {
    /// The server's own program.
    pub(super) exe: PathBuf,
    pub(super) ids: Ids,
}

/// Why a job gave no result.
#[derive(Debug)]
pub(super) enum HelperError {
    /// It said why.
    Job(JobError),
    /// Its caller did not want more.
    Stopped,
    /// It could not be started, or ended without a word.
    Died(String),
}

impl HelperError {
    /// The same for a job in which nothing of an image can be at fault.
    pub(super) fn into_internal(self) -> ImageError {
        match self {
            Self::Job(JobError::NoSpace(reason)) => ImageError::NoSpace { reason },
            Self::Job(error) => ImageError::Helper { reason: error.to_string() },
            Self::Stopped => ImageError::Helper { reason: "it was stopped".to_owned() },
            Self::Died(reason) => ImageError::Helper { reason },
        }
    }
}

/// A running job. It is ended when this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    stdout: ChildStdout,
    /// The process takes its end for the server's.
    _socket: Socket,
}

impl Helper {
    /// One whose processes have the ids of this user's store, and of its sandboxes. `exe` is the server's program.
    pub(crate) fn new(exe: PathBuf) -> Result<Self, ImageError> {
        Ok(Self { exe, ids: UnpackMode::detect().ids()? })
    }

    /// Starts a job. `fds` are the directory that it is shut up in and what the job names; `more` those of further
    /// messages.
    pub(super) async fn start(
        &self,
        job: Job,
        fds: &[BorrowedFd<'_>],
        more: &[Vec<BorrowedFd<'_>>],
    ) -> Result<Running, HelperError> {
        let failed = |error: io::Error| HelperError::Died(format!("cannot start it: {error}"));
        let (socket, there) = Socket::pair().map_err(failed)?;
        let mut child = Command::new(&self.exe)
            .arg(unpack::ARGUMENT)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(there))
            .stdout(Stdio::piped())
            // What it says of itself comes in frames; nothing that a layer made it say belongs in a log.
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| HelperError::Died(format!("cannot start {}: {error}", self.exe.display())))?;
        let stdout = child.stdout.take().ok_or_else(|| HelperError::Died("it has no output".to_owned()))?;
        let order = Order { ids: self.ids.clone(), cpu_seconds: CPU_SECONDS, job };
        // A process that is gone already has said why, or will be found dead.
        let mut sent = socket.send(&order, fds).await;
        for fds in more {
            if sent.is_ok() {
                sent = socket.send(&MoreOrder {}, fds).await;
            }
        }
        match sent {
            Err(error)
                if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                Err(failed(error))
            }
            _ => Ok(Running { child, stdout, _socket: socket }),
        }
    }

    /// Removes everything in some directories.
    pub(crate) async fn remove_all_in(&self, dirs: &[OwnedFd]) -> Result<(), ImageError> {
        for dirs in dirs.chunks(MAX_REMOVED) {
            let [first, more @ ..] = dirs else { continue };
            let more: Vec<_> = more.iter().map(|dir| vec![dir.as_fd()]).collect();
            let job = Job::Remove { more: more.len() };
            let running =
                self.start(job, &[first.as_fd()], &more).await.map_err(HelperError::into_internal)?;
            running.finish(|_| true).await.map_err(HelperError::into_internal)?;
        }
        Ok(())
    }
}

impl Running {
    /// Waits for the job's end. `progress` hears how much disk it has used and says whether it may go on.
    ///
    /// When this returns, the process and its child are gone. When it is dropped they are being killed.
    pub(super) async fn finish(
        mut self,
        mut progress: impl FnMut(u64) -> bool,
    ) -> Result<(Report, Vec<u8>), HelperError> {
        let heard = self.hear(&mut progress).await;
        if matches!(heard, Err(HelperError::Stopped | HelperError::Died(_))) {
            self.kill();
        }
        // Its child holds the pipe too: only the end of the pipe says that both are gone.
        let mut rest = [0u8; 4096];
        while let Ok(1..) = self.stdout.read(&mut rest).await {}
        if tokio::time::timeout(TIME_TO_END, self.child.wait()).await.is_err() {
            self.kill();
        }
        let status = self.child.wait().await.map_err(|error| HelperError::Died(error.to_string()))?;
        match heard? {
            Some(result) if status.success() => Ok(result),
            _ => Err(HelperError::Died(match status.code() {
                Some(code @ 129..=192) => format!("it was ended by signal {}", code - 128),
                Some(code) => format!("it ended with status {code} and without a report"),
                None => format!("it ended: {status}"),
            })),
        }
    }

    fn kill(&mut self) {
        // Gone already is as good.
        match self.child.start_kill() {
            Ok(()) | Err(_) => {}
        }
    }

    /// Reads frames up to the last one.
    async fn hear(
        &mut self,
        progress: &mut impl FnMut(u64) -> bool,
    ) -> Result<Option<(Report, Vec<u8>)>, HelperError> {
        let broken = |what: &str| HelperError::Died(format!("it said something unexpected: {what}"));
        let mut marks = Vec::new();
        loop {
            let mut head = [0u8; 5];
            match self.stdout.read_exact(&mut head).await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                other => other.map_err(|error| broken(&error.to_string()))?,
            };
            let [letter, a, b, c, d] = head;
            let len = u32::from_le_bytes([a, b, c, d]) as usize;
            if len > MAX_FRAME_BYTES {
                return Err(broken("a frame too large"));
            }
            let mut payload = vec![0; len];
            match self.stdout.read_exact(&mut payload).await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                other => other.map_err(|error| broken(&error.to_string()))?,
            };
            match letter {
                b'P' => {
                    let bytes = payload.try_into().map_err(|_| broken("no number of bytes"))?;
                    if !progress(u64::from_le_bytes(bytes)) {
                        return Err(HelperError::Stopped);
                    }
                }
                b'M' if marks.len() + len <= MAX_MARKS_BYTES => marks.append(&mut payload),
                b'R' => {
                    let report = serde_json::from_slice(&payload).map_err(|e| broken(&e.to_string()))?;
                    return Ok(Some((report, marks)));
                }
                b'E' => {
                    let error = serde_json::from_slice(&payload).map_err(|e| broken(&e.to_string()))?;
                    return Err(HelperError::Job(error));
                }
                _ => return Err(broken("an unknown frame")),
            }
        }
    }
}

/// A pipe for a job's input: the end to write to and the one to give away. A large one, so that neither side waits for
/// the other at every turn.
pub(super) fn input_pipe() -> io::Result<(tokio::net::unix::pipe::Sender, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    match rustix::pipe::fcntl_setpipe_size(write.as_fd(), 1 << 20) {
        // An ordinary user may have used up what all pipes may take; the usual size does as well.
        Ok(_) | Err(_) => {}
    }
    rustix::io::ioctl_fionbio(&write, true)?;
    Ok((tokio::net::unix::pipe::Sender::from_owned_fd(write)?, read))
}
