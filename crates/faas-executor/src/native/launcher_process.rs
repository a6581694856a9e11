//! The server's side of the launcher: starts it, asks it for slots, learns which are gone.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::FlockOperation;
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot};

use super::launcher::message::{LauncherCommand, LauncherEvent, LauncherSetup};
use super::launcher::{self, Failure};
use super::socket::Socket;
use super::subordinate::Subordinate;

/// What the launcher is started with.
#[derive(Clone, Debug)]
pub(super) struct LauncherConfig {
    pub(super) exe: PathBuf,
    pub(super) setup: LauncherSetup,
    /// The ids that it is given when it asks for some.
    pub(super) subordinate: Option<Subordinate>,
    /// The file that every launcher holds a lock on until it has cleared up after its server.
    pub(super) lock: PathBuf,
}

/// How long a launcher of an earlier server may take to clear up, and how often it is asked.
const CLEARED_WITHIN: Duration = Duration::from_secs(30);
const CLEARED_STEP: Duration = Duration::from_millis(5);

fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)
}

/// Waits until every launcher of an earlier server of this data directory has cleared up: what it still kills and
/// removes it knows by numbers that are about to be given out again. Whether all have.
pub(super) async fn others_have_cleared(lock: &Path) -> io::Result<bool> {
    let file = lock_file(lock)?;
    let cleared = async {
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(rustix::io::Errno::WOULDBLOCK) => tokio::time::sleep(CLEARED_STEP).await,
                other => return Ok(other?),
            }
        }
    };
    match tokio::time::timeout(CLEARED_WITHIN, cleared).await {
        Ok(cleared) => cleared.map(|()| true),
        Err(_elapsed) => Ok(false),
    }
}

/// Who waits for the answer to [`LauncherCommand::Keep`], by slot.
type Keeping = Mutex<BTreeMap<u32, oneshot::Sender<bool>>>;

/// What becomes known of the launcher while it runs.
#[derive(Debug)]
pub(super) enum Notice {
    /// A slot's process, its sandbox and its cgroups are gone.
    SlotGone { launcher: u64, slot: u32 },
    /// The launcher is gone. Its slots live on until their sockets close.
    LauncherGone { launcher: u64 },
}

/// Why the launcher cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LauncherError {
    #[error("cannot start the launcher: {0}")]
    Start(io::Error),
    #[error("the launcher ended while it was set up")]
    Ended,
    #[error("cannot set up the launcher: {0}")]
    SetUp(#[from] Failure),
    #[error("cannot give ids to the launcher: {0}")]
    MapIds(io::Error),
    #[error("cannot talk to the launcher: {0}")]
    Talk(#[from] io::Error),
}

/// A running launcher. It ends when this is dropped and everything in its slots with it.
#[derive(Debug)]
pub(super) struct LauncherProcess {
    socket: Arc<Socket>,
    /// Why sandboxes can have no image but the host's, if they cannot.
    pub(super) no_images: Option<String>,
    keeping: Arc<Keeping>,
    /// Resolves when the process is gone and reaped, or lives on for kept sandboxes alone.
    gone: Option<tokio::task::JoinHandle<()>>,
}

impl LauncherProcess {
    /// Starts it and waits until it is set up.
    /// `count` tells it from others in notices.
    pub(super) async fn start(
        config: &LauncherConfig,
        count: u64,
        notices: mpsc::UnboundedSender<Notice>,
    ) -> Result<Self, LauncherError> {
        let (socket, there) = Socket::pair()?;
        let child = tokio::process::Command::new(&config.exe)
            .arg0("faas-gateway-server")
            .arg(launcher::ARGUMENT)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(there))
            .stdout(Stdio::null())
            .spawn()
            .map_err(LauncherError::Start)?;
        let lock = lock_file(&config.lock)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared).map_err(io::Error::from)?;
        socket.send(&LauncherCommand::SetUp(config.setup.clone()), &[lock.as_fd()]).await?;
        // Its own now: it would outlive the launcher here.
        drop(lock);
        let no_images = loop {
            match socket.receive::<LauncherEvent>().await? {
                Some((LauncherEvent::Ready { no_images }, _)) => break no_images,
                Some((LauncherEvent::WantsIds, _)) => {
                    map_ids(config, child.id()).await.map_err(LauncherError::MapIds)?;
                    socket.send(&LauncherCommand::IdsMapped, &[]).await?;
                }
                Some((LauncherEvent::Failed(failure), _)) => return Err(failure.into()),
                Some((
                    LauncherEvent::SlotGone { .. } | LauncherEvent::Kept { .. } | LauncherEvent::Cleared,
                    _,
                ))
                | None => return Err(LauncherError::Ended),
            }
        };
        let socket = Arc::new(socket);
        let keeping = Arc::new(Keeping::default());
        let gone = tokio::spawn(watch(Arc::clone(&socket), child, count, Arc::clone(&keeping), notices));
        Ok(Self { socket, no_images, keeping, gone: Some(gone) })
    }

    /// Has the sandbox in a slot go on without the server, and `held` kept open for as long. The answer: whether it
    /// does; none when the launcher is gone.
    pub(super) async fn keep(
        &self,
        slot: u32,
        init: u32,
        held: Option<OwnedFd>,
    ) -> io::Result<oneshot::Receiver<bool>> {
        let (sender, receiver) = oneshot::channel();
        // No code panics while it holds the lock halfway through a change.
        self.keeping.lock().unwrap_or_else(PoisonError::into_inner).insert(slot, sender);
        let fds: Vec<_> = held.iter().map(|fd| fd.as_fd()).collect();
        self.socket.send(&LauncherCommand::Keep { slot, init }, &fds).await?;
        Ok(receiver)
    }

    /// Has it end with the server again.
    pub(super) async fn release(&self, slot: u32) -> io::Result<()> {
        self.socket.send(&LauncherCommand::Release { slot }, &[]).await
    }

    /// Asks for slot `slot`, which will answer over the other end of `slot_socket`. The lock on its ids is held by the
    /// launcher from then on.
    pub(super) async fn make_slot(
        &self,
        slot: u32,
        slot_socket: OwnedFd,
        lock: Option<OwnedFd>,
    ) -> Result<(), LauncherError> {
        let fds: Vec<_> =
            std::iter::once(slot_socket.as_fd()).chain(lock.as_ref().map(|fd| fd.as_fd())).collect();
        Ok(self.socket.send(&LauncherCommand::MakeSlot { slot }, &fds).await?)
    }

    /// Ends it and waits until it has cleared up and is gone; for kept sandboxes it lives on.
    pub(super) async fn stop(mut self) {
        let gone = self.gone.take();
        drop(self);
        if let Some(gone) = gone
            && let Err(error) = gone.await
        {
            tracing::error!(%error, "the launcher's watcher failed");
        }
    }
}

impl Drop for LauncherProcess {
    fn drop(&mut self) {
        // The launcher takes the end of the stream as the end of the server. It fails only where there is no launcher
        // any more.
        if let Err(error) = self.socket.end() {
            tracing::debug!(%error, "the launcher is gone already");
        }
    }
}

async fn map_ids(config: &LauncherConfig, launcher: Option<u32>) -> io::Result<()> {
    let (Some(subordinate), Some(pid)) = (config.subordinate.clone(), launcher) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it asks for ids that there are none of"));
    };
    tokio::task::spawn_blocking(move || subordinate.map(pid)).await.map_err(io::Error::other)?
}

async fn watch(
    socket: Arc<Socket>,
    mut child: Child,
    launcher: u64,
    keeping: Arc<Keeping>,
    notices: mpsc::UnboundedSender<Notice>,
) {
    // A receiver that is gone belongs to an executor that is gone: nobody is left to be told.
    let tell = |notice| match notices.send(notice) {
        Ok(()) | Err(_) => {}
    };
    loop {
        match socket.receive::<LauncherEvent>().await {
            Ok(Some((LauncherEvent::SlotGone { slot }, _))) => tell(Notice::SlotGone { launcher, slot }),
            Ok(Some((LauncherEvent::Kept { slot, kept }, _))) => {
                let waiting = keeping.lock().unwrap_or_else(PoisonError::into_inner).remove(&slot);
                if let Some(waiting) = waiting {
                    // Who went away wants no answer.
                    match waiting.send(kept) {
                        Ok(()) | Err(_) => {}
                    }
                }
            }
            Ok(Some((LauncherEvent::Cleared, _))) => return,
            Ok(Some((event, _))) => tracing::error!(?event, "the launcher said something out of order"),
            Ok(None) => break,
            Err(error) => {
                tracing::error!(%error, "cannot read from the launcher");
                break;
            }
        }
    }
    keeping.lock().unwrap_or_else(PoisonError::into_inner).clear();
    match child.wait().await {
        Ok(status) => tracing::debug!(%status, "launcher ended"),
        Err(error) => tracing::error!(%error, "cannot wait for the launcher"),
    }
    tell(Notice::LauncherGone { launcher });
}
