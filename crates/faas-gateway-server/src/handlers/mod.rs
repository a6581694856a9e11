//! One file for each resource. A handler converts, calls once and converts back.

pub(crate) mod capabilities;
pub(crate) mod docs;
pub(crate) mod events;
pub(crate) mod execute;
mod execute_stream;
pub(crate) mod executions;
pub(crate) mod files;
pub(crate) mod health;
#[cfg(all(target_os = "linux", feature = "native"))]
pub(crate) mod images;
pub(crate) mod instances;
pub(crate) mod leaks;
pub(crate) mod logs;
#[cfg(not(all(target_os = "linux", feature = "native")))]
pub(crate) mod no_images;
pub(crate) mod pty;
pub(crate) mod subject;
pub(crate) mod version;
