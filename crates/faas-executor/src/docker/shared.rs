//! What the parts of the backend share.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use faas_types::GatewayId;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::claims::Claims;
use super::config::DockerConfig;
use super::image::ImageFacts;
use super::probe::Probe;
use super::record::agent_of;
use super::turns::Turns;

/// The state of one backend.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: DockerConfig,
    pub(super) gateway: GatewayId,
    pub(super) data_dir: PathBuf,
    /// The directory on this host that holds the agent.
    pub(super) agent_dir: PathBuf,
    pub(super) probe: Probe,
    /// The digests of agents' programs that earlier servers made lasting containers with.
    pub(super) old_agents: BTreeSet<String>,
    /// Images that are being fetched, each once for all who wait for it.
    pub(super) pulls: Turns,
    /// Sandboxes whose processes are being ended or begun.
    pub(super) turns: Turns,
    /// Places for containers, those included that are being removed. Lasting ones have none: they would keep
    /// executions from theirs for as long as they are there, and how many of them there may be is their owner's to say.
    pub(super) places: Arc<Semaphore>,
    /// How many lasting containers may be made or begun at once.
    pub(super) making: Semaphore,
    /// Told when something is known to be left.
    pub(super) owed: Notify,
    pub(super) closed: CancellationToken,
    pub(super) tasks: TaskTracker,
    runtime: tokio::runtime::Handle,
    claims: Mutex<Claims>,
    /// Images by id, which never change.
    images: Mutex<HashMap<String, Arc<ImageFacts>>>,
}

/// How many images are remembered; then all are forgotten and asked for again.
const MAX_IMAGES: usize = 1024;

/// How many lasting containers are made at once. An engine does several at once slowly.
const MAKING: usize = 8;

impl Shared {
    pub(super) fn new(
        config: DockerConfig,
        (gateway, data_dir): (GatewayId, PathBuf),
        (agent_dir, old_agents): (PathBuf, BTreeSet<String>),
        claims: Claims,
        places: usize,
    ) -> Self {
        Self {
            probe: Probe::new(config.clone()),
            config,
            gateway,
            data_dir,
            agent_dir,
            old_agents,
            pulls: Turns::default(),
            turns: Turns::default(),
            places: Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS))),
            making: Semaphore::new(MAKING),
            owed: Notify::new(),
            closed: CancellationToken::new(),
            tasks: TaskTracker::new(),
            runtime: tokio::runtime::Handle::current(),
            claims: Mutex::new(claims),
            images: Mutex::default(),
        }
    }

    /// Whose the containers are.
    pub(super) fn claims(&self) -> MutexGuard<'_, Claims> {
        // No code panics while it holds the lock halfway through a change.
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The digest of the agent's program that containers are made with.
    pub(super) fn agent(&self) -> String {
        agent_of(&self.agent_dir)
    }

    /// The backend's own directory on this host.
    pub(super) fn own_dir(&self) -> Option<&Path> {
        // DIR/agent/DIGEST.
        self.agent_dir.parent()?.parent()
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
