//! What the parts of the backend share.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use faas_types::{GatewayId, SandboxId};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::DockerConfig;
use super::image::ImageFacts;
use super::probe::Probe;
use super::pull::Pulls;

/// The state of one backend.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: DockerConfig,
    pub(super) gateway: GatewayId,
    pub(super) data_dir: PathBuf,
    /// The directory on this host that holds the agent.
    pub(super) agent_dir: PathBuf,
    pub(super) probe: Probe,
    pub(super) pulls: Pulls,
    /// Places for containers, those included that are being removed.
    pub(super) places: Arc<Semaphore>,
    /// Told when something is known to be left.
    pub(super) owed: Notify,
    pub(super) closed: CancellationToken,
    pub(super) tasks: TaskTracker,
    runtime: tokio::runtime::Handle,
    owned: Mutex<BTreeSet<SandboxId>>,
    /// Images by id, which never change.
    images: Mutex<HashMap<String, Arc<ImageFacts>>>,
}

/// How many images are remembered; then all are forgotten and asked for again.
const MAX_IMAGES: usize = 1024;

impl Shared {
    pub(super) fn new(
        config: DockerConfig,
        gateway: GatewayId,
        data_dir: PathBuf,
        agent_dir: PathBuf,
        places: usize,
    ) -> Self {
        Self {
            probe: Probe::new(config.clone()),
            config,
            gateway,
            data_dir,
            agent_dir,
            pulls: Pulls::default(),
            places: Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS))),
            owed: Notify::new(),
            closed: CancellationToken::new(),
            tasks: TaskTracker::new(),
            runtime: tokio::runtime::Handle::current(),
            owned: Mutex::default(),
            images: Mutex::default(),
        }
    }

    /// The sandboxes that somebody has a lease for.
    pub(super) fn owned(&self) -> MutexGuard<'_, BTreeSet<SandboxId>> {
        // No code panics while it holds the lock halfway through a change.
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the sweep look again in a moment.
    pub(super) fn sweep_soon(&self) {
        self.owed.notify_one();
    }

    /// Runs something in the background, wherever this is called from.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }

    /// An image that was asked for before.
    pub(super) fn known_image(&self, id: &str) -> Option<Arc<ImageFacts>> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    pub(super) fn remember_image(&self, id: &str, image: Arc<ImageFacts>) {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        if images.len() >= MAX_IMAGES {
            images.clear();
        }
        images.insert(id.to_owned(), image);
    }
}
