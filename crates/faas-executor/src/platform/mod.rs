//! What the host is, apart from any backend.

#[cfg(any(feature = "docker", all(target_os = "linux", feature = "native")))]
pub(crate) mod cgroup_files;
pub mod host;
