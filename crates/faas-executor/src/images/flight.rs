//! Several callers that want the same thing at the same time wait for one piece of work.
//!
//! The work is a task of its own: a caller that goes away takes nothing with it but its progress function, and the last
//! one to go has the work stopped.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::error::ImageError;
use super::lease::ImageLease;
use super::progress::Progress;

/// What the callers get.
type Outcome = Result<ImageLease, ImageError>;

/// Takes progress for one caller.
pub(super) type ProgressFn = Arc<dyn Fn(Progress) + Send + Sync>;

/// The work that is under way, by what it is for.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<String, Weak<Flight>>>);

struct Flight {
    listeners: Mutex<Vec<(u64, ProgressFn)>>,
    outcome: watch::Receiver<Option<Outcome>>,
    stop: CancellationToken,
}

impl std::fmt::Debug for Flight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flight")
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // Nobody waits any more.
        self.stop.cancel();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a caller's progress function off a flight.
struct Listening(Arc<Flight>, u64);

impl Drop for Listening {
    fn drop(&mut self) {
        lock(&self.0.listeners).retain(|(number, _)| *number != self.1);
    }
}

impl Flights {
    /// Joins the work for `key`, or begins it. `there` is asked first, in the same breath: work that has just ended is
    /// not begun again.
    pub(super) async fn join<F>(
        &self,
        key: &str,
        progress: ProgressFn,
        there: impl FnOnce() -> Result<Option<ImageLease>, ImageError>,
        work: impl FnOnce(ProgressFn) -> F,
    ) -> Outcome
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let listening = {
            let mut flights = lock(&self.0);
            flights.retain(|_, flight| flight.strong_count() > 0);
            let flight = flights.get(key).and_then(Weak::upgrade).filter(|flight| {
                // One that has ended with an error only waits for its callers to hear it.
                flight.outcome.borrow().is_none() && !flight.stop.is_cancelled()
            });
            let flight = match flight {
                Some(flight) => flight,
                None => {
                    if let Some(lease) = there()? {
                        return Ok(lease);
                    }
                    let flight = begin(work);
                    flights.insert(key.to_owned(), Arc::downgrade(&flight));
                    flight
                }
            };
            let number = {
                let mut listeners = lock(&flight.listeners);
                let number = listeners.iter().map(|(number, _)| number + 1).max().unwrap_or(0);
                listeners.push((number, progress));
                number
            };
            Listening(flight, number)
        };
        let mut outcome = listening.0.outcome.clone();
        let heard = outcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
        match heard {
            Ok(Some(outcome)) => outcome,
            _ => Err(ImageError::Store { reason: "the task that makes the image has failed".to_owned() }),
        }
    }
}

fn begin<F>(work: impl FnOnce(ProgressFn) -> F) -> Arc<Flight>
where
    F: Future<Output = Outcome> + Send + 'static,
{
    let (sender, outcome) = watch::channel(None);
    let stop = CancellationToken::new();
    let flight = Arc::new(Flight { listeners: Mutex::default(), outcome, stop: stop.clone() });
    let listening = Arc::downgrade(&flight);
    let work = work(Arc::new(move |progress: Progress| {
        let Some(flight) = listening.upgrade() else { return };
        let listeners: Vec<ProgressFn> =
            lock(&flight.listeners).iter().map(|(_, listener)| Arc::clone(listener)).collect();
        for listener in listeners {
            listener(progress.clone());
        }
    }));
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            outcome = work => {
                sender.send_replace(Some(outcome));
            }
        }
    });
    flight
}
