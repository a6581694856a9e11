//! What server, launcher and slots say to each other: JSON in seqpacket messages, with descriptors beside it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::native::cgroup::CgroupPlan;
use crate::native::layout::IdMode;

/// The largest message. A path of the greatest length ([`MAX_PATH_BYTES`]) fits into it, however JSON has to write it.
const MAX_MESSAGE: usize = 32 * 1024;

/// The longest path: PATH_MAX of Linux, less its NUL byte.
pub(crate) const MAX_PATH_BYTES: usize = 4095;

/// The most descriptors beside one message.
const MAX_FDS: usize = 4;

/// Server to launcher.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LauncherCommand {
    /// The first message: what the launcher works with. The descriptor beside it is kept open until the launcher has
    /// cleared up after the server.
    SetUp(LauncherSetup),
    /// The ids that [`LauncherEvent::WantsIds`] asked for are there.
    IdsMapped,
    /// Make slot `slot`; the descriptor beside it becomes the slot's socket. A second one is the lock on its ids, to be
    /// kept for as long as the launcher lives.
    MakeSlot {
        /// Its number; not in use.
        slot: u32,
    },
    /// The sandbox that is in a slot goes on when the server is gone. The descriptor beside it, if there is one, is kept
    /// open for as long as the sandbox runs. Answered by [`LauncherEvent::Kept`].
    Keep {
        /// The slot.
        slot: u32,
        /// The PID of the sandbox's `init`.
        init: u32,
    },
    /// It does not any more.
    Release {
        /// The slot.
        slot: u32,
    },
}

/// What the launcher works with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LauncherSetup {
    /// An empty directory to mount the launcher's own root over.
    pub(crate) mount_point: PathBuf,
    /// The directory that becomes `/.faas` in every sandbox: it holds `agent` and an empty directory `run`.
    pub(crate) agent_dir: PathBuf,
    /// The directory that holds the root file systems of images, one below it each.
    pub(crate) images_dir: Option<PathBuf>,
    /// The directory that holds the files of lasting sandboxes, one below it each; none where these are on disks of
    /// their own.
    pub(crate) files_dir: Option<PathBuf>,
    /// Which ids sandboxes have.
    pub(crate) ids: IdMode,
    /// Where their cgroups are; without any, limits are set where a process can set them for itself.
    pub(crate) cgroups: Option<CgroupPlan>,
}

/// Launcher to server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LauncherEvent {
    /// It is in a user namespace of its own, which somebody outside must give ids to.
    WantsIds,
    /// Set up; slots can be made.
    Ready {
        /// Why sandboxes can have no image but the host's, if they cannot.
        no_images: Option<String>,
    },
    /// It could not be set up; it ends.
    Failed(Failure),
    /// The process of a slot is gone, and all that was in its cgroups, and these too.
    SlotGone {
        /// Its number, which may be used again.
        slot: u32,
    },
    /// The answer to [`LauncherCommand::Keep`].
    Kept {
        /// The slot.
        slot: u32,
        /// Whether the sandbox is kept: otherwise it has ended.
        kept: bool,
    },
    /// What the server left is cleared up, but for the sandboxes that are kept: the launcher lives on for these, and
    /// says nothing more.
    Cleared,
}

/// Server to slot.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SandboxOrder {
    /// The sandbox's hostname.
    pub(crate) hostname: String,
    /// Its `/etc/machine-id`.
    pub(crate) machine_id: String,
    /// Its limits.
    pub(crate) memory_bytes: u64,
    /// See [`crate::sandbox::Limits`].
    pub(crate) cpu_millicores: u32,
    /// See [`crate::sandbox::Limits`].
    pub(crate) pids: u32,
    /// The size of its file system where that is a tmpfs; otherwise the second descriptor is a mount for it, or
    /// `lasting` names a directory.
    pub(crate) tmpfs_bytes: Option<u64>,
    /// What is to be known of its files where these last.
    pub(crate) lasting: Option<LastingOrder>,
    /// The size of `/dev/shm`.
    pub(crate) shm_bytes: u64,
    /// Whether the memory of its sockets is not counted, or not enough.
    pub(crate) keep_sockets_small: bool,
    /// The image, where it is not the host's.
    pub(crate) image: Option<ImageOrder>,
}

/// Files that stay when the sandbox ends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LastingOrder {
    /// Where they are: the name of a directory in that of all files. Without one they are on the mount, and belong to
    /// the ids of the image store there.
    pub(crate) directory: Option<String>,
    /// Whether a sandbox has run with them before.
    pub(crate) again: bool,
}

/// An image that a sandbox starts from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ImageOrder {
    /// The name of its root file system's directory below the directory of images.
    pub(crate) rootfs: String,
    /// Its working directory, which is made where it is missing.
    pub(crate) working_dir: Option<String>,
}

/// Slot to server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SlotReply {
    /// It stands ready in its cgroups.
    Parked,
    /// A sandbox runs; the descriptor beside it is the pidfd of its `init`.
    Created {
        /// The PID of `init` on the host.
        pid: u32,
    },
    /// The last order, or the parking, failed.
    Failed(Failure),
}

/// A step that failed.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{step}: {}", io::Error::from_raw_os_error(*errno))]
pub(crate) struct Failure {
    /// What was being done.
    pub(crate) step: String,
    /// The errno, or 0.
    pub(crate) errno: i32,
}

impl Failure {
    /// `step` failed with `error`.
    pub(crate) fn at(step: impl Into<String>, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self { step: step.into(), errno },
            None => Self { step: format!("{}: {error}", step.into()), errno: libc::EIO },
        }
    }
}

/// Names the step that an error belongs to.
pub(crate) trait Step<T> {
    /// Turns an error into the failure of `step`.
    fn step(self, step: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| Failure::at(step, &error.into()))
    }
}

/// A pair of connected seqpacket sockets.
pub(crate) fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Sends one message. On a socket that does not block it may fail with `WouldBlock`. One that the other side would not
/// take is not sent (`InvalidInput`).
pub(crate) fn send(socket: impl AsFd, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MAX_MESSAGE {
        let error = format!("a message of {} bytes; at most {MAX_MESSAGE} are taken", bytes.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors in one message"));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one message, or `None` when the other side is gone.
pub(crate) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = [0u8; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        match rustix::net::recvmsg(&socket, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message was cut off"));
    }
    Ok(Some((serde_json::from_slice(&bytes[..received.bytes])?, fds)))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::{
        ImageOrder, LauncherCommand, MAX_MESSAGE, MAX_PATH_BYTES, SandboxOrder, SlotReply, receive, send,
        socket_pair,
    };

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (here, there) = socket_pair().unwrap();
        let extra = std::fs::File::open("/dev/null").unwrap();
        send(&here, &LauncherCommand::MakeSlot { slot: 7 }, &[extra.as_fd()]).unwrap();
        let (message, fds) = receive::<LauncherCommand>(&there).unwrap().unwrap();
        assert!(matches!(message, LauncherCommand::MakeSlot { slot: 7 }));
        assert_eq!(fds.len(), 1);
    }

    fn order(working_dir: String) -> SandboxOrder {
        SandboxOrder {
            hostname: "sb-x".to_owned(),
            machine_id: "0123".to_owned(),
            memory_bytes: u64::MAX,
            cpu_millicores: u32::MAX,
            pids: u32::MAX,
            tmpfs_bytes: None,
            lasting: None,
            shm_bytes: u64::MAX,
            keep_sockets_small: false,
            image: Some(ImageOrder { rootfs: "x/rootfs".to_owned(), working_dir: Some(working_dir) }),
        }
    }

    #[test]
    fn a_message_that_would_be_cut_off_is_not_sent() {
        let (here, there) = socket_pair().unwrap();
        let error = send(&here, &order("d".repeat(MAX_MESSAGE)), &[]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{error}");
        // The longest path there is, in the longest words for it.
        let longest = "\u{1}".repeat(MAX_PATH_BYTES);
        send(&here, &order(longest.clone()), &[]).unwrap();
        let (received, _) = receive::<SandboxOrder>(&there).unwrap().unwrap();
        assert_eq!(received.image.and_then(|image| image.working_dir), Some(longest));
    }

    #[test]
    fn the_end_of_the_other_side_is_seen() {
        let (here, there) = socket_pair().unwrap();
        drop(here);
        assert!(receive::<SlotReply>(&there).unwrap().is_none());
    }
}
