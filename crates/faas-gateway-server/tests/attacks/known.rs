//! What gets through: found by these tests and reported, and not mended yet, or not to be mended. An entry keeps its test
//! from failing, and fails it as soon as it is mended, so that the list is never longer than the truth.

use super::standing::Standing::{self, OneId, Range};

/// Where, test or group, what of it, and why. What an ordinary user's gateway cannot prevent SECURITY.md says too, under
/// "Without root".
const KNOWN: &[(&[Standing], &str, &str, &str)] = &[
    (&[OneId], "files", "private_file_below_usr", SAME_USER),
    (&[OneId], "identity", "supplementary_groups", "setgroups(2) is denied where there is one id"),
    (&[OneId, Range], "ids", "two gateways", SAME_IDS),
    (&[OneId, Range], "resources", "inflight", SAME_IDS),
    (&[OneId, Range], "resources", "inotify-instances", SAME_IDS),
    (&[OneId, Range], "resources", "inotify-watches", SAME_IDS),
    (&[OneId, Range], "resources", "message-queues", SAME_IDS),
    (&[OneId, Range], "resources", "pipes", SAME_IDS),
    (&[OneId, Range], "resources", "signals", SAME_IDS),
    (&[OneId, Range], "resources", "inotify-instances of the user", IN_THE_USERS_NAME),
    (&[OneId, Range], "resources", "inotify-watches of the user", IN_THE_USERS_NAME),
    (&[OneId, Range], "resources", "message-queues of the user", IN_THE_USERS_NAME),
    (&[OneId], "resources", "pipes of the user", SAME_USER),
    (&[OneId, Range], "resources", "signals of the user", IN_THE_USERS_NAME),
    (&[OneId], "memory", "pipe", NO_CGROUP),
    (&[OneId], "memory", "unix", NO_CGROUP),
    (&[OneId], "memory", "udp", NO_CGROUP),
    (&[OneId], "memory", "tcp", NO_CGROUP),
    (&[OneId, Range], "locks", "/dev/null", NO_NODES),
    (&[OneId, Range], "locks", "/dev/urandom", NO_NODES),
    (&[OneId, Range], "watches", "/dev/null", NO_NODES),
    (&[OneId, Range], "watches", "/dev/urandom", NO_NODES),
];

const SAME_USER: &str = "with one id a sandbox's root is the gateway's user";
const SAME_IDS: &str = "all sandboxes of an ordinary user have the same ids, and share its limits";
const IN_THE_USERS_NAME: &str = "the kernel counts it for whoever made the user namespace too";
const NO_CGROUP: &str = "without a cgroup no limit counts what the kernel keeps for a process";
const NO_NODES: &str = "an ordinary user cannot make device nodes";

/// The problems of one test, sorted into those that are known and those that are not.
pub(crate) struct Findings {
    standing: Standing,
    test: &'static str,
    new: Vec<String>,
    seen: Vec<&'static str>,
}

impl Findings {
    pub(crate) const fn of(standing: Standing, test: &'static str) -> Self {
        Self { standing, test, new: Vec::new(), seen: Vec::new() }
    }

    fn known(&self) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        let (here, own) = (self.standing, self.test);
        let own = KNOWN.iter().filter(move |(where_, test, ..)| where_.contains(&here) && *test == own);
        own.map(|(_, _, what, why)| (*what, *why))
    }

    /// `what` is not as it should be.
    pub(crate) fn note(&mut self, what: &str, problem: &str) {
        match self.known().find(|(known, _)| *known == what) {
            Some((known, why)) => {
                println!("KNOWN {what}: {problem} ({why})");
                self.seen.push(known);
            }
            None => self.new.push(format!("{what}: {problem}")),
        }
    }

    /// The machine has more of `what` than could be taken: whether it is as it should be was not to be seen.
    pub(crate) fn not_seen(&mut self, what: &str) {
        println!("NOTE {what}: not all of it could be taken");
        self.seen.extend(self.known().map(|(known, _)| known).filter(|known| *known == what));
    }

    /// Notes a problem unless `good`.
    pub(crate) fn expect(&mut self, good: bool, what: &str, problem: impl FnOnce() -> String) {
        if !good {
            self.note(what, &problem());
        }
    }

    /// Fails for everything that is not known, and for everything known that did not happen.
    pub(crate) fn judge(mut self) {
        for (known, _) in self.known() {
            if !self.seen.contains(&known) {
                self.new.push(format!("{known} is mended: take it off the list in known.rs"));
            }
        }
        assert!(self.new.is_empty(), "{}: {:#?}", self.test, self.new);
    }
}
