//! OCI images without a daemon: pulled from registries or imported from archives, unpacked by a confined process, kept
//! in a store on the disk, ready to be mounted.
//!
//! [`ImageStore`] is what a caller uses. It knows no HTTP of its own and makes no sandbox: a lease gives the root of a
//! merged file system and what the image says of itself.
//!
//! ```text
//! names.rs digest.rs platform.rs manifest.rs config.rs   what registries and archives say, parsed and checked
//! registry.rs auth.rs pull.rs                            from a registry
//! archive.rs import.rs tar/                              from an archive
//! export.rs                                              to an archive
//! ingest.rs feed.rs helper.rs                            layers to unpack processes, and into the store
//! unpack/                                                the unpack process
//! marks.rs merge.rs                                      whiteouts, and laying layers over each other
//! store_files.rs sealed.rs index.rs collect.rs           what is on the disk, and how it goes
//! store.rs lease.rs flight.rs progress.rs error.rs       what callers see
//! ```
//!
//! How long an import takes, as a bench measures it: the layout is read, its digests checked, its layers unpacked and
//! merged, and all of it is on the disk when the call returns. `helper_exe` is the server's program, or any program
//! that runs [`unpack::main`] when its only argument is [`unpack::ARGUMENT`].
//!
//! ```no_run
//! # use std::{path::PathBuf, time::{Duration, Instant}};
//! # use faas_executor::images::{ImageError, ImageStore, ImageStoreConfig, ImportSource};
//! async fn import(store: PathBuf, helper_exe: PathBuf, layout: PathBuf) -> Result<Duration, ImageError> {
//!     let store = ImageStore::open(&store, ImageStoreConfig::new(helper_exe)).await?;
//!     let start = Instant::now();
//!     store.import(ImportSource::Path(layout), None, |_| {}).await?;
//!     Ok(start.elapsed())
//! }
//! ```

mod archive;
mod auth;
mod collect;
mod config;
mod digest;
mod error;
mod export;
mod feed;
mod flight;
mod helper;
mod import;
mod index;
mod ingest;
mod lease;
mod manifest;
mod marks;
mod merge;
mod mode;
mod names;
mod platform;
mod progress;
mod pull;
mod registry;
mod sealed;
mod store;
mod store_files;
pub mod unpack;

pub use config::ImageConfig;
pub use digest::Digest;
pub use error::{ImageError, ImageErrorKind};
pub(crate) use helper::Helper;
pub use lease::ImageLease;
pub use mode::UnpackMode;
pub use names::{ImageName, check_reference};
pub use progress::{Phase, Progress};
pub use store::{Elsewhere, ImageInfo, ImageStore, ImageStoreConfig, ImportSource};
