//! Native sandboxes: made by this program itself from the kernel's namespaces, cgroups, overlay, seccomp and landlock.
//! No daemon, no image but `host` is needed.

mod cgroup;
mod host_image;
pub mod launcher;
mod layout;
mod seccomp;
mod sys;
