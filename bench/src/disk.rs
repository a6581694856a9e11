//! A file system of the bench's own, in a file: ext4 as Debian makes it. What others on the machine write is not waited
//! for there, and what earlier runs removed costs later ones nothing: ext4 without a journal, which some virtual machines
//! have, passes over inodes that were freed a short while ago each time it makes a file (`recently_deleted` in
//! fs/ext4/ialloc.c).

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::error::BenchError;
use crate::peer::first_line;

/// Its size. The file is sparse.
const BYTES: u64 = 6 << 30;

/// A mounted file system. Unmounted when dropped.
pub(crate) struct Disk {
    pub(crate) path: PathBuf,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), BenchError> {
    first_line(program, arguments)
        .map(drop)
        .map_err(|reason| BenchError::Disk(format!("{program}: {reason}")))
}

impl Disk {
    /// Makes one in `scratch`.
    pub(crate) fn make(scratch: &Path) -> Result<Self, BenchError> {
        let (image, path) = (scratch.join("disk.ext4"), scratch.join("disk"));
        File::create(&image).and_then(|file| file.set_len(BYTES)).map_err(BenchError::io(&image))?;
        fs::create_dir(&path).map_err(BenchError::io(&path))?;
        let (file, at) = (image.to_string_lossy(), path.to_string_lossy());
        // No thread of the kernel goes on making it afterwards.
        let whole = "lazy_itable_init=0,lazy_journal_init=0";
        run("mkfs.ext4", &["-q", "-F", "-E", whole, &file])?;
        run("mount", &["-o", "loop", &file, &at])?;
        Ok(Self { path })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = run("umount", &[&self.path.to_string_lossy()]) {
            eprintln!("faas-bench: {error}");
        }
    }
}
