//! Native sandboxes: made by this program itself from the kernel's namespaces, cgroups, overlay, seccomp and landlock.
//! No daemon, no image but `host` is needed.

mod cgroup;
mod claimed;
mod disk;
mod executor;
mod host_image;
mod id_blocks;
mod lasting;
pub mod launcher;
mod launcher_process;
pub(crate) mod layout;
mod numbers;
#[cfg(test)]
mod pause_test;
pub(crate) mod seccomp;
mod settle;
mod slots;
pub(crate) mod socket;
mod start;
pub(crate) mod subordinate;
pub(crate) mod sys;
mod watchdog;

pub use executor::{NativeExecutor, NativeHandle};
pub use start::{NativeConfig, NativeStartError};
