//! Who holds a container: from before the engine is asked for it until it is gone or given up, exactly one lease.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use faas_types::SandboxId;
use tokio::sync::OwnedSemaphorePermit;

use super::record::Run;
use super::shared::Shared;
use super::{destroy, halt};

/// After what times an abandoned container is looked for, as long as it was not there: a request to make or start it
/// may still have been under way when its sender was gone.
const LATE: [Duration; 3] = [Duration::ZERO, Duration::from_millis(500), Duration::from_secs(5)];

/// What is to be done with a container that is given up.
#[derive(Debug, Default)]
enum Duty {
    /// Nothing: the engine has none, or it goes on.
    #[default]
    Nothing,
    /// Remove the one of this name or id.
    Remove(String),
    /// End its processes: its files stay. By its id.
    Halt(String),
}

/// The right to a sandbox's container, and the duty that comes with it. When it is dropped without
/// [`Lease::settle`] the duty is done in the background; where the engine does not do that, the sweep will.
#[derive(Debug)]
pub(super) struct Lease {
    shared: Arc<Shared>,
    id: SandboxId,
    /// Which of the sandbox's leases this is.
    number: u64,
    place: Option<OwnedSemaphorePermit>,
    duty: Mutex<Duty>,
}

impl Lease {
    /// For a container that is about to be made, removed or begun anew, or goes on: without a duty until one is given.
    /// A lasting one takes no place.
    pub(super) fn new(shared: &Arc<Shared>, id: SandboxId, place: Option<OwnedSemaphorePermit>) -> Self {
        let number = shared.claims().hold(&id);
        Self { shared: Arc::clone(shared), id, number, place, duty: Mutex::default() }
    }

    /// The engine is about to be asked for a container of this name.
    pub(super) fn set_asked(&mut self, name: &str) {
        self.set(Duty::Remove(name.to_owned()));
    }

    /// The engine has refused to make it.
    pub(super) fn set_refused(&mut self) {
        self.set(Duty::Nothing);
    }

    /// The engine is about to start a container whose files are to stay.
    pub(super) fn set_starting(&mut self, container: &str) {
        self.set(Duty::Halt(container.to_owned()));
    }

    /// From here on the container goes on without this lease.
    pub(super) fn keep(&self, run: Run) {
        self.shared.claims().keep(&self.id, run);
        self.set(Duty::Nothing);
    }

    /// The container is to go, whether it was kept or not.
    pub(super) fn condemn(&self, container: &str) {
        self.shared.claims().forget(&self.id);
        self.set(Duty::Remove(container.to_owned()));
    }

    /// All is done.
    pub(super) fn settle(self) {
        self.set(Duty::Nothing);
    }

    fn set(&self, duty: Duty) {
        *self.duty.lock().unwrap_or_else(PoisonError::into_inner) = duty;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let duty = std::mem::take(self.duty.get_mut().unwrap_or_else(PoisonError::into_inner));
        if let Duty::Nothing = duty {
            self.shared.claims().release(&self.id, self.number);
            return;
        }
        let (shared, id, number) = (Arc::clone(&self.shared), self.id.clone(), self.number);
        let place = self.place.take();
        self.shared.spawn(async move {
            let done = match duty {
                Duty::Nothing => true,
                Duty::Remove(container) => remove(&shared, &container).await,
                Duty::Halt(container) => end(&shared, &id, number, &container).await,
            };
            drop(place);
            shared.claims().release(&id, number);
            if !done {
                shared.sweep_soon();
            }
        });
    }
}

/// Whether the container is known to be gone.
async fn remove(shared: &Shared, container: &str) -> bool {
    for wait in LATE {
        tokio::time::sleep(wait).await;
        let Ok(live) = shared.probe.for_work().await else { return false };
        match destroy::remove(&live.client, container).await {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => {
                shared.probe.note(&error);
                tracing::warn!(container, %error, "a container is left to the sweep");
                return false;
            }
        }
    }
    true
}

/// Whether the container is known not to run, or is a later lease's.
async fn end(shared: &Shared, id: &SandboxId, number: u64, container: &str) -> bool {
    for wait in LATE {
        tokio::time::sleep(wait).await;
        let Ok(live) = shared.probe.for_work().await else { return false };
        let _turn = shared.turns.turn(id.as_str()).await;
        if !shared.claims().is_held_by(id, number) {
            return true;
        }
        match halt::end(&live.client, container).await {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) if error.is_not_found() => break,
            Err(error) => {
                shared.probe.note(&error);
                tracing::warn!(container, %error, "a container that should not run is left to the sweep");
                return false;
            }
        }
    }
    true
}
