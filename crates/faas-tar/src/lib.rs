//! A reader of tar streams from hostile sources: layers, and archives with images in them; and headers for such streams
//! of one's own.
//!
//! It reads ustar, GNU and PAX archives (POSIX.1-2017, `pax`; the GNU tar manual, "Basic Tar Format" and "Sparse
//! Formats") from any [`std::io::Read`], keeps no more than one entry's names and attributes in memory and bounds
//! those. It opens no file and trusts no name: what an entry may do is decided by whoever asks.
#![forbid(unsafe_code)]

mod header;
mod number;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use reader::{Entry, Kind, TarError, TarReader};
pub use writer::{END, header, padding};

/// The length of a block, and of a header.
pub const BLOCK: usize = 512;
