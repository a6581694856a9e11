//! A slot between its claim and the sandbox in it. Whoever gives up in between leaves neither behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::lasting::kill_and_wait;
use super::launcher::message::SlotReply;
use super::slots::{Slot, Slots};

/// How long the reply of a slot is waited for that nobody wants any more.
const REPLY_WITHIN: Duration = Duration::from_secs(30);

/// A slot that is being given its order.
#[derive(Debug)]
pub(super) struct Claimed {
    slots: Arc<Slots>,
    slot: Option<Slot>,
    is_asked: AtomicBool,
}

impl Claimed {
    pub(super) fn new(slots: &Arc<Slots>, slot: Slot) -> Self {
        Self { slots: Arc::clone(slots), slot: Some(slot), is_asked: AtomicBool::new(false) }
    }

    /// The slot; it is there until it is taken.
    pub(super) fn slot(&self) -> Option<&Slot> {
        self.slot.as_ref()
    }

    /// It is about to be sent an order, to which it replies.
    pub(super) fn is_asked(&self) {
        self.is_asked.store(true, Ordering::Relaxed);
    }

    /// It is the caller's from here on.
    pub(super) fn take(mut self) -> Option<Slot> {
        self.slot.take()
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        if !self.is_asked.load(Ordering::Relaxed) {
            return self.slots.release(slot);
        }
        let slots = Arc::clone(&self.slots);
        tokio::spawn(async move {
            // Where there are no cgroups nothing else leads to what it has made.
            if let Ok(socket) = slot.socket() {
                let reply = tokio::time::timeout(REPLY_WITHIN, socket.receive::<SlotReply>()).await;
                if let Ok(Ok(Some((SlotReply::Created { .. }, mut fds)))) = reply
                    && let Some(pidfd) = fds.pop()
                    && let Err(error) = kill_and_wait(pidfd).await
                {
                    tracing::error!(%error, "a sandbox that nobody wanted could not be ended");
                }
            }
            slots.forget(slot);
        });
    }
}
