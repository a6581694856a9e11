//! Which slot numbers are this gateway's.
//!
//! A number stands for ids of the host, so two gateways of root on one host must not use the same: the kernel would count
//! their sandboxes as one user's. Numbers are shared out in blocks, each by a lock on a file below [`DIR`] that server and
//! launcher hold (flock(2): it is free when both are gone, and with them what had its ids).

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::layout::MAX_SLOTS;

/// Where the locks are: gone after a reboot, like what they stand for.
pub(super) const DIR: &str = "/run/faas";

/// How many numbers are in a block.
pub(super) const BLOCK: u32 = 64;

/// The blocks of one gateway.
#[derive(Debug)]
pub(super) struct IdBlocks {
    /// `None`: ids are not the host's to be shared out, and every number is this gateway's.
    dir: Option<PathBuf>,
    held: BTreeMap<u32, File>,
}

impl IdBlocks {
    /// Blocks to be locked below `dir`.
    pub(super) fn locked(dir: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(Self { dir: Some(dir.to_owned()), held: BTreeMap::new() })
    }

    /// All blocks, without locks.
    pub(super) fn unlocked() -> Self {
        Self { dir: None, held: BTreeMap::new() }
    }

    /// The numbers that are this gateway's, in ascending order.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        let of = |block: u32| block * BLOCK..(block + 1) * BLOCK;
        let all = self.dir.is_none().then_some(0..MAX_SLOTS);
        self.held.keys().copied().flat_map(of).chain(all.into_iter().flatten())
    }

    /// Takes another block; `false` when no other is free.
    pub(super) fn take_another(&mut self) -> io::Result<bool> {
        let Some(dir) = &self.dir else { return Ok(false) };
        for block in (0..MAX_SLOTS / BLOCK).filter(|block| !self.held.contains_key(block)) {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(dir.join(format!("ids-{block}")))?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    self.held.insert(block, file);
                    return Ok(true);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    /// The lock that a number is under.
    pub(super) fn lock_of(&self, number: u32) -> Option<BorrowedFd<'_>> {
        self.held.get(&(number / BLOCK)).map(|file| file.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, IdBlocks};
    use crate::native::layout::MAX_SLOTS;

    #[test]
    fn two_gateways_have_no_number_in_common() {
        let dir = std::env::temp_dir().join(format!("id-blocks-{}", uuid::Uuid::now_v7().simple()));
        let (mut one, mut other) = (IdBlocks::locked(&dir).unwrap(), IdBlocks::locked(&dir).unwrap());
        assert_eq!(one.numbers().count(), 0);
        for _ in 0..2 {
            assert!(one.take_another().unwrap());
            assert!(other.take_another().unwrap());
        }
        assert_eq!(one.numbers().count(), 2 * BLOCK as usize);
        assert!(one.numbers().all(|number| other.numbers().all(|taken| taken != number)));
        assert!(one.lock_of(0).is_some() && other.lock_of(0).is_none());
        drop(one);
        while other.take_another().unwrap() {}
        assert_eq!(other.numbers().count(), MAX_SLOTS as usize, "what the other had is free again");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn without_locks_every_number_is_the_gateways() {
        let mut blocks = IdBlocks::unlocked();
        assert_eq!(blocks.numbers().count(), MAX_SLOTS as usize);
        assert!(!blocks.take_another().unwrap());
    }
}
