//! What gets through today: found by these tests, reported, and not mended yet. An entry keeps its test from failing,
//! and fails it as soon as it is mended, so that the list is never longer than the truth.

/// Test or group, what of it, and why.
const KNOWN: &[(&str, &str, &str)] = &[];

/// The problems of one test, sorted into those that are known and those that are not.
pub(crate) struct Findings {
    test: &'static str,
    new: Vec<String>,
    seen: Vec<&'static str>,
}

impl Findings {
    pub(crate) const fn of(test: &'static str) -> Self {
        Self { test, new: Vec::new(), seen: Vec::new() }
    }

    /// `what` is not as it should be.
    pub(crate) fn note(&mut self, what: &str, problem: &str) {
        match KNOWN.iter().find(|(test, known, _)| *test == self.test && *known == what) {
            Some((_, known, why)) => {
                println!("KNOWN {what}: {problem} ({why})");
                self.seen.push(known);
            }
            None => self.new.push(format!("{what}: {problem}")),
        }
    }

    /// Notes a problem unless `good`.
    pub(crate) fn expect(&mut self, good: bool, what: &str, problem: impl FnOnce() -> String) {
        if !good {
            self.note(what, &problem());
        }
    }

    /// Fails for everything that is not known, and for everything known that did not happen.
    pub(crate) fn judge(mut self) {
        for (test, known, _) in KNOWN {
            if *test == self.test && !self.seen.contains(known) {
                self.new.push(format!("{known} is mended: take it off the list in known.rs"));
            }
        }
        assert!(self.new.is_empty(), "{}: {:#?}", self.test, self.new);
    }
}
