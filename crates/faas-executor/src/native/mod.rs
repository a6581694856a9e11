//! Native sandboxes: made by this program itself from the kernel's namespaces, cgroups, overlay, seccomp and landlock.
//! No daemon, no image but `host` is needed.

mod cgroup;
mod connect;
mod disk;
mod executor;
mod host_image;
pub mod launcher;
mod launcher_process;
mod layout;
mod numbers;
mod seccomp;
mod slots;
mod socket;
mod subordinate;
mod sys;

pub(crate) use executor::{NativeConfig, NativeStartError};
pub use executor::{NativeExecutor, NativeHandle};
