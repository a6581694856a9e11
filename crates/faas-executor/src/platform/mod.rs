//! What the host is, apart from any backend.

#[cfg(all(target_os = "linux", any(feature = "native", feature = "docker")))]
pub(crate) mod cgroup_files;
pub mod host;
