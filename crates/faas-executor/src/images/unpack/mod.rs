//! The unpack process: everything that looks into a layer's bytes, or touches the files of one, happens here.
//!
//! The server starts its own program again with the single argument [`ARGUMENT`]. That process clones a child into
//! namespaces of its own, maps ids for it and does nothing but wait; the child shuts itself up in the one directory that
//! it works in (`confine.rs`), does one job (`job.rs`) and ends. A layer that takes over the code that reads it has one
//! directory to write to, a processor time and a size to use up, and a pipe to tell lies through: the server checks
//! what it is told against what the image's configuration promised.
//!
//! The jobs are those for which files belong to other ids than the server's: unpacking, merging, packing, removing. They
//! are the same for root, whose store has a range of ids of its own, and for an ordinary user.

mod confine;
mod decode;
mod entry;
mod fsys;
mod ids;
pub(super) mod job;
mod layer;
mod overlay;
mod pack;
mod tree;

use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal, WaitOptions};

pub(super) use decode::Format;
use job::{Frames, Job, JobError, MoreOrder, Order, Report};

use super::marks::Marks;
use super::store_files::LAYER_SEAL;
use crate::native::launcher::message;
use crate::native::sys::{self, Fork};

/// The only argument with which the server starts itself as the unpack process.
pub const ARGUMENT: &str = "unpack";

/// The child's exit status when it told why it failed.
const EXIT_TOLD: i32 = 1;

/// Runs as the unpack process; the connection to the server is standard input. Must be called from a process with one
/// thread, before anything else is done.
pub fn main() -> ExitCode {
    let status = match run() {
        Ok(status) => status,
        Err(error) => {
            // A server that does not listen any more has gone; the exit status is for nobody then.
            match Frames(io::stdout().lock()).result(&Err(error)) {
                Ok(()) | Err(_) => EXIT_TOLD,
            }
        }
    };
    ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))
}

/// An order with its descriptors.
struct Task {
    order: Order,
    fds: Vec<OwnedFd>,
    /// Those of each further message.
    more: Vec<Vec<OwnedFd>>,
}

fn receive<T: serde::de::DeserializeOwned>(socket: &OwnedFd) -> Result<(T, Vec<OwnedFd>), JobError> {
    let received = message::receive(socket).map_err(|error| JobError::at("read the order", error))?;
    received.ok_or_else(|| JobError::Failed("the server is gone".to_owned()))
}

fn run() -> Result<i32, JobError> {
    // Nothing of the server's is wanted beside the three standard descriptors.
    // SAFETY: no descriptor above 2 is owned by anything in this process yet.
    if unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) } != 0 {
        return Err(JobError::at("close descriptors", io::Error::last_os_error()));
    }
    let at = |what| move |error: rustix::io::Errno| JobError::at(what, error);
    // Signals for the server's terminal are not for this process.
    rustix::process::setsid().map_err(at("start a session"))?;
    let socket = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3).map_err(at("take the socket"))?;
    let null = std::fs::File::open("/dev/null").map_err(|error| JobError::at("/dev/null", error))?;
    rustix::stdio::dup2_stdin(&null).map_err(at("close standard input"))?;
    drop(null);
    let (order, fds) = receive::<Order>(&socket)?;
    let mut more = Vec::new();
    let (Job::Merge { layers: count } | Job::Remove { more: count }) = order.job else {
        return enter_and_start(Task { order, fds, more }, socket);
    };
    for _ in 0..count {
        let (MoreOrder {}, fds) = receive(&socket)?;
        more.push(fds);
    }
    enter_and_start(Task { order, fds, more }, socket)
}

fn enter_and_start(task: Task, socket: OwnedFd) -> Result<i32, JobError> {
    // The child's working directory is the one that it is shut up in: a descriptor of this mount namespace could not
    // be mounted in the child's.
    rustix::process::fchdir(task.fds.first().ok_or_else(missing)?)
        .map_err(|error| JobError::at("enter the directory", error))?;
    start(task, socket)
}

fn missing() -> JobError {
    JobError::Failed("a descriptor is missing in the order".to_owned())
}

/// Every namespace that there is but the time namespace. Constants of libc are signed.
const NAMESPACES: u64 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP) as u64;

/// Clones the child, lets it go when its ids are mapped, and waits for it. The result is the exit status.
fn start(task: Task, socket: OwnedFd) -> Result<i32, JobError> {
    let (go_read, go_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| JobError::at("make a pipe", error))?;
    // SAFETY: the process has one thread.
    let (fork, pidfd) = unsafe { sys::clone3(NAMESPACES, libc::SIGCHLD, None) }.map_err(|error| {
        JobError::at("make namespaces for the unpack process (are user namespaces allowed?)", error)
    })?;
    let Fork::Parent(pid) = fork else {
        drop((go_write, socket));
        child(task, go_read);
    };
    drop((go_read, task.fds, task.more));
    let pidfd = pidfd.ok_or_else(|| JobError::Failed("clone gave no pidfd".to_owned()))?;
    let mapped = ids::map(pid, &task.order.ids);
    if mapped.is_ok() {
        let gone = |error| JobError::at("start the unpack process", error);
        rustix::io::write(&go_write, b"g").map_err(gone)?;
    } else {
        end(&pidfd)?;
    }
    // The write end stays open until the child is gone: its end is what tells the child that this process is.
    let status = wait(pid, &pidfd, &socket);
    drop(go_write);
    mapped.and(status)
}

fn end(pidfd: &OwnedFd) -> Result<(), JobError> {
    match rustix::process::pidfd_send_signal(pidfd, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(JobError::at("end the unpack process", error)),
    }
}

/// Waits for the child; ends it when the server goes first.
fn wait(pid: Pid, pidfd: &OwnedFd, socket: &OwnedFd) -> Result<i32, JobError> {
    let failed = |error| JobError::at("wait for the unpack process", error);
    loop {
        let mut fds = [PollFd::new(pidfd, PollFlags::IN), PollFd::new(socket, PollFlags::empty())];
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.map_err(failed)?,
        };
        let (ended, gone) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if gone && !ended {
            end(pidfd)?;
        }
        if gone || ended {
            break;
        }
    }
    loop {
        match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) | Ok(None) => {}
            Err(error) => return Err(failed(error)),
            Ok(Some((_, status))) => {
                let signal = status.terminating_signal().map(|signal| 128 + signal);
                return Ok(status.exit_status().or(signal).unwrap_or(EXIT_TOLD));
            }
        }
    }
}

/// What the child does with its life.
fn child(task: Task, go: OwnedFd) -> ! {
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut frames = Frames(io::stdout());
        let result = confined(task, go, &mut frames);
        let told = frames.result(&result).and_then(|()| frames.0.flush());
        i32::from(result.is_err() || told.is_err()) * EXIT_TOLD
    }));
    sys::exit_now(done.unwrap_or(101))
}

fn confined(task: Task, go: OwnedFd, frames: &mut Frames<io::Stdout>) -> Result<Report, JobError> {
    confine::enter(&task, &go)?;
    drop(go);
    let Task { order, fds, more } = task;
    let mut fds = fds.into_iter();
    let mut next = || fds.next().ok_or_else(missing);
    let directory = next()?;
    let mut told = Frames(io::stdout());
    let mut progress = |bytes| told.progress(bytes).and_then(|()| told.0.flush());
    match order.job {
        Job::Unpack { max_bytes, max_entries } => {
            let source = std::fs::File::from(next()?);
            drop(directory);
            let root = fsys::open_dir(rustix::fs::CWD, b"", rustix::fs::OFlags::RDONLY)
                .map_err(|error| JobError::at("open the layer's root", error))?;
            let bounds = layer::Bounds { max_bytes, max_entries, ids: order.ids.count() };
            let (report, marks) = layer::unpack(source, root, bounds, &mut progress)?;
            frames.marks(&marks.to_bytes()).map_err(|error| JobError::at("tell the marks", error))?;
            Ok(report)
        }
        Job::Merge { .. } => {
            let (mut roots, mut marks) = (Vec::new(), Vec::new());
            for layer in more {
                let mut fds = layer.into_iter();
                let (root, file) = fds.next().zip(fds.next()).ok_or_else(missing)?;
                roots.push(root);
                marks.push(read_marks(file)?);
            }
            overlay::merge(&roots, &marks, directory)
        }
        Job::Remove { .. } => {
            for directory in std::iter::once(directory).chain(more.into_iter().flatten()) {
                fsys::remove_all_in(directory.as_fd())
                    .map_err(|error| JobError::at("remove files", error))?;
            }
            Ok(Report::default())
        }
        Job::Pack { .. } => {
            let output = next()?;
            drop(directory);
            let root = fsys::open_dir(rustix::fs::CWD, b"", rustix::fs::OFlags::RDONLY)
                .map_err(|error| JobError::at("open the tree", error))?;
            pack::pack(root, output, &mut progress)
        }
        Job::Decode { max_bytes } => {
            let source = std::fs::File::from(next()?);
            layer::decompress(source, next()?, max_bytes, &mut progress)
        }
    }
}

fn read_marks(file: OwnedFd) -> Result<Marks, JobError> {
    let bytes =
        LAYER_SEAL.read_file(file.into()).map_err(|error| JobError::at("read a layer's marks", error))?;
    // The first line is the server's.
    let start = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    Marks::from_bytes(&bytes[start..]).map_err(|error| JobError::Failed(error.to_string()))
}
