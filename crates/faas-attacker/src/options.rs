//! What the test tells the attacker of the outside: `KEY=VALUE` arguments.

use std::ffi::OsString;

/// The arguments, in order; a key may be there more than once.
#[derive(Debug, Default)]
pub(crate) struct Options {
    pairs: Vec<(String, String)>,
    /// What stood after `--`.
    pub(crate) rest: Vec<OsString>,
}

/// A process of the outside that holds a token in its memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Victim {
    pub(crate) pid: i32,
    pub(crate) address: usize,
}

impl Options {
    pub(crate) fn parse(mut args: impl Iterator<Item = OsString>) -> Self {
        let mut options = Self::default();
        for arg in args.by_ref() {
            if arg == "--" {
                break;
            }
            let arg = arg.to_string_lossy();
            options.pairs.extend(arg.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())));
        }
        options.rest = args.collect();
        options
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The value of `key`, or why the attempt cannot be made.
    pub(crate) fn need(&self, key: &str) -> Result<&str, String> {
        self.get(key).ok_or_else(|| format!("the option {key} is missing"))
    }

    /// The number that is the value of `key`, or why the attempt cannot be made.
    pub(crate) fn need_number(&self, key: &str) -> Result<u64, String> {
        self.need(key)?.parse().map_err(|error| format!("the option {key}: {error}"))
    }

    pub(crate) fn number(&self, key: &str, default: u64) -> u64 {
        self.get(key).and_then(|value| value.parse().ok()).unwrap_or(default)
    }

    /// The text that everything secret of the outside holds. It is given backwards, so that whoever looks for it does
    /// not find its own arguments.
    pub(crate) fn token(&self) -> Result<String, String> {
        Ok(self.need("token")?.chars().rev().collect())
    }

    /// `victim=PID:ADDRESS`, as the tool `canary` prints them.
    pub(crate) fn victims(&self) -> Result<Vec<Victim>, String> {
        let victims: Vec<_> = self
            .all("victim")
            .filter_map(|text| {
                let (pid, address) = text.split_once(':')?;
                Some(Victim { pid: pid.parse().ok()?, address: address.parse().ok()? })
            })
            .collect();
        if victims.is_empty() { Err("the option victim is missing".to_owned()) } else { Ok(victims) }
    }

    /// The victims' PIDs, and `pid=PID`: other processes of the outside.
    pub(crate) fn outside_pids(&self) -> Result<Vec<i32>, String> {
        let mut pids: Vec<i32> = self.victims()?.into_iter().map(|victim| victim.pid).collect();
        if self.get("control").is_none() {
            pids.extend(self.all("pid").filter_map(|pid| pid.parse::<i32>().ok()));
        }
        Ok(pids)
    }
}
