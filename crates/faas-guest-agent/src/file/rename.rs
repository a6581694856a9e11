//! Another name for something; on another file system, a copy and the removal of what was copied.

use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, lchown,
};
use std::path::Path;

use faas_guest_protocol::files::FileStat;
use rustix::fs::{AtFlags, CWD, FileType, Mode, StatxFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::{At as _, Failed, info, place, read, remove, write};

pub(super) fn rename(path: &Path, to: &Path) -> Result<FileStat, Failed> {
    let metadata = std::fs::symlink_metadata(path).at(path)?;
    match rustix::fs::rename(path, to) {
        // Another file system; or a directory of the image, whose lower layer stays as it is (overlayfs).
        Err(Errno::XDEV) => copy_and_remove(path, &metadata, to)?,
        Err(error) => {
            let message = format!("{} to {}: {}", path.display(), to.display(), io::Error::from(error));
            return Err(Failed::new(error, message));
        }
        Ok(()) => {}
    }
    info::stat(to)
}

/// The mount that something is on; by its file system where the kernel has no numbers for mounts (before 5.8).
fn mount(path: &Path) -> Result<u64, Failed> {
    let found = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MNT_ID);
    match found {
        Ok(found) if found.stx_mask & StatxFlags::MNT_ID.bits() != 0 => Ok(found.stx_mnt_id),
        _ => Ok(path.symlink_metadata().at(path)?.dev()),
    }
}

fn copy_and_remove(path: &Path, metadata: &Metadata, to: &Path) -> Result<(), Failed> {
    let new = write::beside(to).at(to)?;
    // What is mounted could be copied, and not be removed.
    let on = mount(place::directory(path))?;
    let copied = copy(path, metadata, &new, on).and_then(|()| std::fs::rename(&new, to).at(to));
    if copied.is_err() {
        // What there is of the copy goes; the error is told.
        match remove::remove(&new, true) {
            Ok(()) | Err(_) => {}
        }
        return copied;
    }
    remove::remove(path, true)
}

/// Copies something with all that is in it, as far as it is `on` one mount.
fn copy(path: &Path, metadata: &Metadata, to: &Path, on: u64) -> Result<(), Failed> {
    if mount(path)? != on {
        return Err(Failed::new(Errno::BUSY, format!("{}: something is mounted there", path.display())));
    }
    let kind = metadata.file_type();
    if kind.is_symlink() {
        std::os::unix::fs::symlink(std::fs::read_link(path).at(path)?, to).at(to)?;
    } else if kind.is_dir() {
        // Nobody else's to look into until it has its own mode.
        std::fs::DirBuilder::new().mode(0o700).create(to).at(to)?;
        for entry in std::fs::read_dir(path).at(path)? {
            let entry = entry.at(path)?;
            let metadata = entry.metadata().at(entry.path())?;
            copy(&entry.path(), &metadata, &to.join(entry.file_name()), on)?;
        }
    } else if kind.is_file() {
        let (mut from, _) = read::open_regular(path, libc::O_NOFOLLOW)?;
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(to).at(to)?;
        io::copy(&mut from, &mut file).at(to)?;
    } else if kind.is_fifo() {
        rustix::fs::mknodat(CWD, to, FileType::Fifo, Mode::from_raw_mode(0o600), 0).at(to)?;
    } else {
        let message = format!("{}: it cannot be moved to another file system", path.display());
        return Err(Failed::new(Errno::XDEV, message));
    }
    describe(metadata, to)
}

/// Gives a copy what is known of the original.
fn describe(metadata: &Metadata, to: &Path) -> Result<(), Failed> {
    let own = to.symlink_metadata().at(to)?;
    if (own.uid(), own.gid()) != (metadata.uid(), metadata.gid()) {
        lchown(to, Some(metadata.uid()), Some(metadata.gid())).at(to)?;
    }
    if !metadata.is_symlink() {
        std::fs::set_permissions(to, Permissions::from_mode(metadata.mode() & 0o7777)).at(to)?;
    }
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(metadata.atime(), metadata.atime_nsec()),
        last_modification: time(metadata.mtime(), metadata.mtime_nsec()),
    };
    rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW).at(to)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::copy_and_remove;

    #[test]
    fn what_is_copied_is_the_same_and_the_original_is_gone() {
        let dir = std::env::temp_dir().join(format!("rename-{}", std::process::id()));
        let (from, to) = (dir.join("from"), dir.join("to"));
        std::fs::create_dir_all(from.join("a/b")).unwrap();
        std::fs::write(from.join("a/file"), "content").unwrap();
        std::fs::set_permissions(from.join("a/file"), std::fs::Permissions::from_mode(0o4640)).unwrap();
        symlink("../nowhere", from.join("a/link")).unwrap();
        let before = from.join("a/file").metadata().unwrap();
        copy_and_remove(&from, &from.metadata().unwrap(), &to).unwrap();
        assert!(!from.exists());
        assert_eq!(std::fs::read(to.join("a/file")).unwrap(), b"content");
        let after = to.join("a/file").metadata().unwrap();
        assert_eq!(after.permissions(), before.permissions());
        assert_eq!(after.modified().unwrap(), before.modified().unwrap());
        assert_eq!(to.join("a/link").read_link().unwrap(), std::path::Path::new("../nowhere"));
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1, "nothing beside it is left");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
