//! What the server and the unpack process say to each other.
//!
//! The server sends an [`Order`] over a seqpacket socket, which is the process's standard input, with descriptors
//! beside it: the directory that the process is to be shut up in, and what the job names. The process writes frames to
//! its standard output: a letter, the length of what follows in four bytes (little endian), and that.
//!
//! | letter | what follows |
//! |---|---|
//! | `P` | bytes of disk used so far, eight bytes |
//! | `M` | a piece of the layer's marks |
//! | `R` | the [`Report`], the last frame of a job that was done |
//! | `E` | the [`JobError`], the last frame of one that was not |
//!
//! The server takes nothing for granted: frames are capped, and only a report before an exit with status 0 counts.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::images::digest::Digest;

/// The largest frame.
pub(in crate::images) const MAX_FRAME_BYTES: usize = 64 << 10;

/// The ids of the process's user namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::images) enum Ids {
    /// Only id 0, which is the caller's own.
    Single,
    /// 0..65536 from this uid and gid of the host on; the caller may map them itself.
    Range {
        /// The id on the host of 0 inside.
        base: u32,
    },
    /// 0 and up are ids that the host gave to the caller, mapped by newuidmap(1) and newgidmap(1); the caller's own is
    /// [`CALLER_ID`].
    Subordinate {
        /// The uid on the host of 0 inside.
        first_uid: u32,
        /// The gid on the host of 0 inside.
        first_gid: u32,
        /// How many.
        count: u32,
    },
}

/// What an ordinary user with further ids is inside: above all that a layer may have.
pub(super) const CALLER_ID: u32 = 0x1_0000;

impl Ids {
    /// How many ids files may have.
    pub(super) fn count(&self) -> u32 {
        match self {
            Self::Single => 1,
            Self::Range { .. } => CALLER_ID,
            Self::Subordinate { count, .. } => (*count).min(CALLER_ID),
        }
    }
}

/// Everything the process needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::images) struct Order {
    pub(in crate::images) ids: Ids,
    /// The processor time that it may use.
    pub(in crate::images) cpu_seconds: u64,
    pub(in crate::images) job: Job,
}

/// What is to be done. The first descriptor is always the directory that the process is shut up in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::images) enum Job {
    /// Unpacks a layer into the directory. The second descriptor gives its bytes.
    Unpack {
        /// The most bytes of disk.
        max_bytes: u64,
        /// The most entries.
        max_entries: u64,
    },
    /// Merges layers into the directory. For each, the lowest first, a [`MoreOrder`] follows with its root and its
    /// file of marks.
    Merge {
        /// How many.
        layers: usize,
    },
    /// Removes everything in the directory, and in that of each [`MoreOrder`] that follows.
    Remove {
        /// How many follow.
        more: usize,
    },
    /// Writes the files of the directory as a tar stream to the second descriptor.
    Pack {
        /// The most bytes of it.
        max_bytes: u64,
    },
    /// Decompresses the second descriptor's bytes into the third.
    Decode {
        /// The most bytes that may come out.
        max_bytes: u64,
    },
}

/// More descriptors for the same job: a message can hold only a few.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(in crate::images) struct MoreOrder {}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::images) struct Report {
    /// The digest of what was decompressed.
    pub(in crate::images) digest: Option<Digest>,
    /// Disk that the result takes, in bytes: data in whole blocks, and something for each entry.
    pub(in crate::images) bytes: u64,
    /// Entries made.
    pub(in crate::images) entries: u64,
    /// What of the layer was left out.
    pub(in crate::images) left_out: LeftOut,
}

/// What of a layer was left out, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::images) struct LeftOut {
    /// Device nodes: a sandbox's `/dev` is its own.
    pub(in crate::images) devices: u64,
    /// Entries whose owner or group is above 65535 and became 65534.
    pub(in crate::images) owners: u64,
    /// Extended attributes other than `user.*`, and those that the file system does not take.
    pub(in crate::images) xattrs: u64,
}

/// Why a job was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub(in crate::images) enum JobError {
    /// The bytes that came in are at fault.
    #[error("{0}")]
    Corrupt(String),
    /// A limit on bytes or entries was reached.
    #[error("{0}")]
    TooLarge(String),
    /// The disk is full.
    #[error("{0}")]
    NoSpace(String),
    /// This machine or program is at fault.
    #[error("{0}")]
    Failed(String),
}

impl JobError {
    /// `error` befell what was being done.
    pub(in crate::images) fn at(what: impl std::fmt::Display, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::NoSpace(error.to_string()),
            Some(libc::EFBIG) => Self::TooLarge(format!("{what}: {error}")),
            _ => Self::Failed(format!("{what}: {error}")),
        }
    }
}

/// Writes frames.
pub(super) struct Frames<W>(pub(super) W);

impl<W: Write> Frames<W> {
    fn write(&mut self, letter: u8, payload: &[u8]) -> io::Result<()> {
        let len = u32::try_from(payload.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut frame = Vec::with_capacity(5 + payload.len());
        frame.push(letter);
        frame.extend_from_slice(&len.to_le_bytes());
        frame.extend_from_slice(payload);
        self.0.write_all(&frame)
    }

    pub(super) fn progress(&mut self, bytes: u64) -> io::Result<()> {
        self.write(b'P', &bytes.to_le_bytes())
    }

    pub(super) fn marks(&mut self, marks: &[u8]) -> io::Result<()> {
        marks.chunks(MAX_FRAME_BYTES).try_for_each(|piece| self.write(b'M', piece))
    }

    pub(super) fn result(&mut self, result: &Result<Report, JobError>) -> io::Result<()> {
        match result {
            Ok(report) => self.write(b'R', &serde_json::to_vec(report)?),
            Err(error) => self.write(b'E', &serde_json::to_vec(error)?),
        }
    }
}
