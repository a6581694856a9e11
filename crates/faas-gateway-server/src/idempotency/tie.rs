//! What becomes of a request with a key when its client goes away: it ends, unless what it does outlives the client.
//!
//! ```text
//!           outlive, by the handler
//!   open ---------------------------> lasting   it goes on without its client
//!     |
//!     |     sever, by the client's going
//!     +-----------------------------> severed   it ends, and begins nothing any more
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use faas_executor::MayHaveBegun;
use tokio::task::AbortHandle;

const OPEN: u8 = 0;
const LASTING: u8 = 1;
const SEVERED: u8 = 2;

/// What ties a request to its client; among the request's extensions, for its handler. Clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Tie {
    state: Arc<AtomicU8>,
    may_have_begun: MayHaveBegun,
}

impl Tie {
    pub(super) fn new(may_have_begun: MayHaveBegun) -> Self {
        Self { state: Arc::new(AtomicU8::new(OPEN)), may_have_begun }
    }

    /// Says that from here on the request comes to its end whether its client stays or not. What it begins then has to say
    /// so by what this gives. None: the client has gone already, and nothing may be begun.
    pub(crate) fn outlive(&self) -> Option<MayHaveBegun> {
        (self.turn(LASTING) == LASTING).then(|| self.may_have_begun.clone())
    }

    /// Ends a task when what this gives is dropped, unless the tie is not there any more.
    pub(super) fn bind(self, task: AbortHandle) -> Bound {
        Bound { tie: self, task }
    }

    /// Makes of an open tie what is asked for; what it is then.
    fn turn(&self, into: u8) -> u8 {
        match self.state.compare_exchange(OPEN, into, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_open) => into,
            Err(found) => found,
        }
    }
}

/// Held by who waits for a task on behalf of a client.
#[derive(Debug)]
pub(super) struct Bound {
    tie: Tie,
    task: AbortHandle,
}

impl Drop for Bound {
    fn drop(&mut self) {
        if self.tie.turn(SEVERED) == SEVERED {
            // One that has ended is none any more.
            self.task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use faas_executor::MayHaveBegun;
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::{Bound, Tie};

    /// A task that ends when it is told to, and what binds it.
    fn bound(tie: &Tie) -> (oneshot::Sender<()>, JoinHandle<bool>, Bound) {
        let (end, ended) = oneshot::channel();
        let task = tokio::spawn(async move { ended.await.is_ok() });
        let bound = tie.clone().bind(task.abort_handle());
        (end, task, bound)
    }

    #[tokio::test]
    async fn a_request_ends_with_its_client_and_begins_nothing_any_more() {
        let tie = Tie::new(MayHaveBegun::default());
        let (_end, task, bound) = bound(&tie);
        drop(bound);
        assert!(task.await.unwrap_err().is_cancelled());
        assert!(tie.outlive().is_none());
    }

    #[tokio::test]
    async fn what_lasts_outlives_its_client_and_tells_that_it_may_have_begun() {
        let begun = MayHaveBegun::default();
        let tie = Tie::new(begun.clone());
        let (end, task, bound) = bound(&tie);
        tie.outlive().unwrap().set(true);
        assert!(tie.outlive().is_some(), "as often as it is said");
        drop(bound);
        assert!(tie.outlive().is_some(), "whoever has gone since");
        end.send(()).unwrap();
        assert!(task.await.unwrap());
        assert!(begun.get());
    }

    #[tokio::test]
    async fn what_has_ended_is_not_ended_again() {
        let tie = Tie::new(MayHaveBegun::default());
        let (end, task, bound) = bound(&tie);
        end.send(()).unwrap();
        assert!(task.await.unwrap());
        drop(bound);
    }

    #[test]
    fn of_a_client_that_goes_and_a_handler_that_begins_one_is_first() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for _ in 0..1000 {
            let tie = Tie::new(MayHaveBegun::default());
            let (end, task, bound) = runtime.block_on(async { bound(&tie) });
            let both = Barrier::new(2);
            let lasts = std::thread::scope(|scope| {
                scope.spawn(|| {
                    both.wait();
                    drop(bound);
                });
                both.wait();
                tie.outlive().is_some()
            });
            // Told or not, one that was aborted does not get that far.
            drop(end);
            assert_eq!(runtime.block_on(task).is_ok(), lasts);
        }
    }
}
