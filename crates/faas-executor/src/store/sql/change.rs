//! A transaction that writes, and says so where an event is among what it wrote.

use std::ops::{Deref, DerefMut};

use sqlx::{Database, Transaction};
use tokio::sync::watch;

use super::Db;

/// A transaction; without [`Change::commit`] nothing of it has happened.
pub(super) struct Change {
    transaction: Transaction<'static, Db>,
    told: Told,
}

/// Tells that an event may have become visible when it is dropped: the end of a commit that nobody waited for, too.
struct Told {
    appended: watch::Sender<u64>,
    has_event: bool,
}

impl Drop for Told {
    fn drop(&mut self) {
        if self.has_event {
            self.appended.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}

impl Change {
    pub(super) fn new(transaction: Transaction<'static, Db>, appended: watch::Sender<u64>) -> Self {
        Self { transaction, told: Told { appended, has_event: false } }
    }

    /// There is an event in it.
    pub(super) fn has_event(&mut self) {
        self.told.has_event = true;
    }

    /// Makes it so.
    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        let Self { transaction, told } = self;
        let committed = transaction.commit().await;
        drop(told);
        committed
    }
}

impl Deref for Change {
    type Target = <Db as Database>::Connection;

    fn deref(&self) -> &Self::Target {
        &self.transaction
    }
}

impl DerefMut for Change {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.transaction
    }
}
