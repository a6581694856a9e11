//! Which containers are somebody's, and whose. No I/O.
//!
//! A sandbox is held while there is a lease of it. A lasting one is kept besides: from [`Claims::keep`] until it is to be
//! removed nobody takes its files, whether somebody holds it or not. What is neither is nobody's.

use std::collections::{BTreeMap, BTreeSet};

use faas_types::SandboxId;

use super::record::Run;

/// The claims of one backend.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Each with the number of its latest lease.
    held: BTreeMap<SandboxId, u64>,
    /// Each with the last run that its caller has a record of; none where an earlier server was killed before it had
    /// one.
    kept: BTreeMap<SandboxId, Option<Run>>,
    last: u64,
}

/// Whose a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Somebody has a lease.
    Held,
    /// It stays. Where the run is known no other may go on.
    Kept(Option<Run>),
    /// Nobody's.
    None,
}

impl Claims {
    /// With what an earlier server left.
    pub(super) fn new(kept: BTreeMap<SandboxId, Option<Run>>) -> Self {
        Self { kept, ..Self::default() }
    }

    /// A new lease, by its number; what earlier leases of the same sandbox still had to do is this one's.
    pub(super) fn hold(&mut self, id: &SandboxId) -> u64 {
        self.last += 1;
        self.held.insert(id.clone(), self.last);
        self.last
    }

    /// Whether a lease is still the latest.
    pub(super) fn is_held_by(&self, id: &SandboxId, number: u64) -> bool {
        self.held.get(id) == Some(&number)
    }

    /// The end of a lease.
    pub(super) fn release(&mut self, id: &SandboxId, number: u64) {
        if self.is_held_by(id, number) {
            self.held.remove(id);
        }
    }

    /// The end of all leases.
    pub(super) fn release_all(&mut self) {
        self.held.clear();
    }

    /// From here on it stays, and this run of it may go on.
    pub(super) fn keep(&mut self, id: &SandboxId, run: Run) {
        self.kept.insert(id.clone(), Some(run));
    }

    /// It is to go.
    pub(super) fn forget(&mut self, id: &SandboxId) {
        self.kept.remove(id);
    }

    /// Whose it is.
    pub(super) fn of(&self, id: &SandboxId) -> Claim {
        if self.held.contains_key(id) {
            return Claim::Held;
        }
        self.kept.get(id).map_or(Claim::None, |run| Claim::Kept(run.clone()))
    }

    /// Those of `sandboxes` that nobody holds and that are not among `lasting`.
    pub(super) fn unheld<T>(
        &self,
        sandboxes: Vec<(SandboxId, T)>,
        lasting: &BTreeSet<SandboxId>,
    ) -> Vec<(SandboxId, T)> {
        let unheld = |id: &SandboxId| !self.held.contains_key(id) && !lasting.contains(id);
        sandboxes.into_iter().filter(|(id, _)| unheld(id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use faas_types::SandboxId;

    use super::{Claim, Claims};
    use crate::docker::record::Run;

    fn run(started_at: &str) -> Run {
        Run { container: "c".to_owned(), started_at: started_at.to_owned() }
    }

    #[test]
    fn a_sandbox_is_held_until_its_latest_lease_ends() {
        let (mut claims, id) = (Claims::default(), SandboxId("sb-1".into()));
        assert_eq!(claims.of(&id), Claim::None);
        let first = claims.hold(&id);
        let second = claims.hold(&id);
        claims.release(&id, first);
        assert!(claims.is_held_by(&id, second) && !claims.is_held_by(&id, first));
        assert_eq!(claims.of(&id), Claim::Held);
        claims.release(&id, second);
        assert_eq!(claims.of(&id), Claim::None);
    }

    #[test]
    fn what_is_kept_stays_after_all_leases_until_it_is_forgotten() {
        let (mut claims, id) = (Claims::default(), SandboxId("sb-1".into()));
        claims.hold(&id);
        claims.keep(&id, run("1"));
        claims.release_all();
        assert_eq!(claims.of(&id), Claim::Kept(Some(run("1"))));
        claims.keep(&id, run("2"));
        assert_eq!(claims.of(&id), Claim::Kept(Some(run("2"))));
        claims.forget(&id);
        assert_eq!(claims.of(&id), Claim::None);
    }

    #[test]
    fn what_an_earlier_server_left_is_kept_even_without_a_record() {
        let id = SandboxId("sb-1".into());
        let claims = Claims::new([(id.clone(), None)].into());
        assert_eq!(claims.of(&id), Claim::Kept(None));
        let all = vec![(id.clone(), "a"), (SandboxId("sb-2".into()), "b")];
        assert_eq!(claims.unheld(all, &[id].into()), [(SandboxId("sb-2".into()), "b")]);
    }
}
