//! Feeds a layer's bytes to the process that unpacks it, and hashes them on the way.

use bytes::Bytes;
use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::Sender;

use super::digest::Digest;
use super::error::ImageError;
use super::ingest::ByteStream;

/// How much is hashed at once on a thread of the runtime: some hundred microseconds' worth.
const HASH_BYTES: usize = 256 << 10;

/// How often progress is told.
const PROGRESS_BYTES: u64 = 1 << 20;

/// How a layer was fed.
pub(super) enum Fed {
    /// To its end; this is its digest.
    All(Digest),
    /// The process did not want more.
    Unwanted,
}

/// The bytes of one layer.
pub(super) struct Feeder {
    source: ByteStream,
    hasher: Sha256,
    done: u64,
    size: u64,
}

impl Feeder {
    /// `size` bytes are expected.
    pub(super) fn new(source: ByteStream, size: u64) -> Self {
        Self { source, hasher: Sha256::new(), done: 0, size }
    }

    /// The next piece. A layer that does not end where it should is read a little further, which changes its digest,
    /// and no more.
    async fn next(&mut self) -> Result<Option<Bytes>, ImageError> {
        if self.done > self.size {
            return Ok(None);
        }
        let Some(piece) = self.source.next().await.transpose()? else { return Ok(None) };
        self.done += piece.len() as u64;
        for part in piece.chunks(HASH_BYTES) {
            self.hasher.update(part);
            if part.len() == HASH_BYTES {
                tokio::task::yield_now().await;
            }
        }
        Ok(Some(piece))
    }

    /// Feeds everything to `sink`.
    pub(super) async fn feed(
        &mut self,
        mut sink: Sender,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Fed, ImageError> {
        let mut told = 0;
        while let Some(piece) = self.next().await? {
            if sink.write_all(&piece).await.is_err() {
                // Its end is the process's own business, which its report tells.
                return Ok(Fed::Unwanted);
            }
            if self.done - told >= PROGRESS_BYTES {
                told = self.done;
                progress(told);
            }
        }
        Ok(Fed::All(Digest::finish(self.hasher.clone())))
    }

    /// Reads on to the end.
    pub(super) async fn rest(&mut self) -> Result<Digest, ImageError> {
        while self.next().await?.is_some() {}
        Ok(Digest::finish(self.hasher.clone()))
    }
}
