//! Lasting sandboxes: what of them outlives the server that made them, and how the next one finds it again.
//!
//! A lasting sandbox runs in a slot as any other; the launcher is told to keep it (`launcher/kept.rs`).
//! Its files are in a directory of its own ([`files`]) and not in memory. A later server finds its processes by a record
//! ([`record`]) that says which process on which boot of the host they begin with, and checks that before it touches
//! anything: PIDs and slots are given out again.

pub(super) mod files;
mod leaks;
pub(super) mod record;
pub(super) mod registry;
mod verbs;

pub(super) use verbs::{LastingPart, NO_LASTING_LIMIT, Prepared, ended, kill_and_wait};
