//! Which slot numbers are this gateway's.
//!
//! A number stands for ids of the host, so two gateways of root on one host must not use the same: the kernel would count
//! their sandboxes as one user's. Numbers are shared out in blocks, each by a lock on a file below [`DIR`] that server and
//! launcher hold (flock(2): it is free when both are gone, and with them what had its ids).
//!
//! The locks are shared ones. Who gets the exclusive one for a moment has found that nobody else holds the block, and
//! writes its own mark into the file before it lets others share it: those are the later servers of the same gateway,
//! which take over what lasting sandboxes have, beside the launcher that still holds the block for them.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
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
    /// The gateway's mark.
    mark: String,
    held: BTreeMap<u32, File>,
}

impl IdBlocks {
    /// Blocks to be locked below `dir` by the gateway of this mark.
    pub(super) fn locked(dir: &Path, mark: &str) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(Self { dir: Some(dir.to_owned()), mark: mark.to_owned(), held: BTreeMap::new() })
    }

    /// All blocks, without locks.
    pub(super) fn unlocked() -> Self {
        Self { dir: None, mark: String::new(), held: BTreeMap::new() }
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
            let mut file = open(dir, block)?;
            if !lock(&file, FlockOperation::NonBlockingLockExclusive)? {
                continue;
            }
            file.set_len(0)?;
            file.write_all(self.mark.as_bytes())?;
            // The kernel gives up the one lock before it gives the other: somebody may have come in between.
            if lock(&file, FlockOperation::NonBlockingLockShared)? {
                self.held.insert(block, file);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes the block of a number that an earlier server of this gateway had; `false` when the block is another
    /// gateway's meanwhile.
    pub(super) fn take_over(&mut self, number: u32) -> io::Result<bool> {
        let (Some(dir), block) = (&self.dir, number / BLOCK) else { return Ok(true) };
        if self.held.contains_key(&block) {
            return Ok(true);
        }
        let file = open(dir, block)?;
        if !lock(&file, FlockOperation::NonBlockingLockShared)? {
            return Ok(false);
        }
        let mut mark = String::new();
        (&file).take(MAX_MARK_BYTES).read_to_string(&mut mark)?;
        if mark != self.mark {
            return Ok(false);
        }
        self.held.insert(block, file);
        Ok(true)
    }

    /// The lock that a number is under.
    pub(super) fn lock_of(&self, number: u32) -> Option<BorrowedFd<'_>> {
        self.held.get(&(number / BLOCK)).map(|file| file.as_fd())
    }
}

/// More than any mark has.
const MAX_MARK_BYTES: u64 = 256;

fn open(dir: &Path, block: u32) -> io::Result<File> {
    let path = dir.join(format!("ids-{block}"));
    OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)
}

/// Whether the lock was got.
fn lock(file: &File, how: FlockOperation) -> io::Result<bool> {
    match rustix::fs::flock(file, how) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, IdBlocks};
    use crate::native::layout::MAX_SLOTS;

    #[test]
    fn two_gateways_have_no_number_in_common() {
        let dir = std::env::temp_dir().join(format!("id-blocks-{}", uuid::Uuid::now_v7().simple()));
        let (mut one, mut other) =
            (IdBlocks::locked(&dir, "one").unwrap(), IdBlocks::locked(&dir, "other").unwrap());
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
    fn a_later_server_takes_over_what_is_still_its_gateways() {
        let dir = std::env::temp_dir().join(format!("id-blocks-{}", uuid::Uuid::now_v7().simple()));
        let blocks = |mark| IdBlocks::locked(&dir, mark).unwrap();
        let mut first = blocks("one");
        assert!(first.take_another().unwrap());
        // What a launcher holds that outlives the server.
        let held = first.lock_of(0).unwrap().try_clone_to_owned().unwrap();
        drop(first);
        let mut stranger = blocks("other");
        assert!(!stranger.take_over(3).unwrap());
        assert!(stranger.take_another().unwrap());
        assert!(stranger.lock_of(0).is_none() && stranger.lock_of(BLOCK).is_some());
        let mut later = blocks("one");
        assert!(later.take_over(3).unwrap());
        assert!(!later.take_over(BLOCK).unwrap(), "that one is a stranger's");
        assert_eq!(later.numbers().count(), BLOCK as usize);
        // The launcher ends, the later server has it still.
        drop(held);
        assert!(!blocks("third").take_over(0).unwrap());
        drop(later);
        // Nobody holds it, and nobody else has had it.
        assert!(blocks("one").take_over(0).unwrap());
        drop(stranger);
        let mut stranger = blocks("other");
        while stranger.take_another().unwrap() {}
        drop(stranger);
        assert!(!blocks("one").take_over(0).unwrap(), "a stranger has had it meanwhile");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn without_locks_every_number_is_the_gateways() {
        let mut blocks = IdBlocks::unlocked();
        assert_eq!(blocks.numbers().count(), MAX_SLOTS as usize);
        assert!(!blocks.take_another().unwrap() && blocks.take_over(7).unwrap());
    }
}
