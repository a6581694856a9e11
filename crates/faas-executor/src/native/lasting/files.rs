//! Where the files of lasting sandboxes are: `DATA_DIR/native/instances`, a directory for each.
//!
//! | as | what is in it | whose |
//! |---|---|---|
//! | root | `disk.img`: an ext4, attached to a loop device while the sandbox runs | root's; the files on it are the store's ids' |
//! | an ordinary user | `upper`, `work`: what the sandbox's overlay writes to | the sandbox's |
//!
//! The server itself never opens a file of a sandbox: directories are removed by an unpack process, as those of images.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use faas_types::SandboxId;
use rustix::fs::{Mode, OFlags};

use super::record::FilesRecord;
use crate::data_dir::DataDir;
use crate::error::StartError;
use crate::images::{Helper, ImageError};
use crate::native::disk;
use crate::sandbox::SandboxError;

/// The directory by its name in the data directory.
const DIR: &str = "native/instances";

const DISK: &str = "disk.img";

/// The longest id that becomes a name.
const MAX_NAME: usize = 128;

/// How often the removal of files is tried, and how long apart: a process that was killed a moment ago may still be
/// making some.
const TRIES: u32 = 50;
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// How long the kernel may take to let go of a disk whose last process has ended, and how often it is asked. It unmounts
/// when it comes to it, after it has written what was not.
const RELEASED_WITHIN: Duration = Duration::from_secs(30);
const RELEASED_STEP: Duration = Duration::from_millis(5);

/// The files of all lasting sandboxes.
#[derive(Debug)]
pub(in crate::native) struct Files {
    dir: PathBuf,
    /// What removes directories; none where files are on disks.
    helper: Option<Result<Helper, String>>,
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> SandboxError + '_ {
    move |source| SandboxError::Io { path: path.to_owned(), source }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, SandboxError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| SandboxError::Create {
        step: "look after files".to_owned(),
        source: io::Error::other(error),
    })
}

impl Files {
    /// Makes the directory where it is missing. `exe` is the server's program; `on_disks` where root's server runs.
    pub(in crate::native) fn open(
        data_dir: &DataDir,
        exe: PathBuf,
        on_disks: bool,
    ) -> Result<Self, StartError> {
        let dir = data_dir.private(DIR)?;
        if on_disks {
            return Ok(Self { dir, helper: None });
        }
        // The root of a sandbox with ids of its own passes through to its own files. Nobody else comes here: the
        // directory above is the user's alone, and sandboxes have none of them in their file systems.
        let passable = fs::set_permissions(&dir, Permissions::from_mode(0o711));
        passable.map_err(|source| StartError::Io { path: dir.clone(), source })?;
        let helper = Helper::new(exe).map_err(|error| error.to_string());
        Ok(Self { dir, helper: Some(helper) })
    }

    /// The directory of all.
    pub(in crate::native) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether files are on disks and not in directories.
    pub(in crate::native) fn on_disks(&self) -> bool {
        self.helper.is_none()
    }

    fn path(&self, id: &SandboxId) -> Result<PathBuf, SandboxError> {
        Ok(self.dir.join(name(id)?))
    }

    /// Where a sandbox's disk is.
    pub(in crate::native) fn disk(&self, id: &SandboxId) -> Result<PathBuf, SandboxError> {
        Ok(self.path(id)?.join(DISK))
    }

    /// Makes a sandbox's directory, which must not be there.
    pub(in crate::native) async fn make(&self, id: &SandboxId) -> Result<(), SandboxError> {
        let (path, on_disks) = (self.path(id)?, self.on_disks());
        let made = blocking({
            let path = path.clone();
            move || {
                fs::DirBuilder::new().mode(0o700).create(&path)?;
                let mode = if on_disks { 0o700 } else { 0o711 };
                fs::set_permissions(&path, Permissions::from_mode(mode))?;
                // The name is to be there after a crash of the host.
                fs::File::open(path.parent().unwrap_or(&path))?.sync_all()
            }
        });
        made.await?.map_err(io_at(&path))
    }

    /// Whether a sandbox's files are there.
    pub(in crate::native) async fn are_there(
        &self,
        id: &SandboxId,
        files: FilesRecord,
    ) -> Result<bool, SandboxError> {
        let path = match files {
            FilesRecord::Disk { .. } => self.disk(id)?,
            FilesRecord::Directory => self.path(id)?.join("upper"),
        };
        let there = blocking({
            let path = path.clone();
            move || match fs::symlink_metadata(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                other => other.map(|meta| meta.is_file() || meta.is_dir()),
            }
        });
        there.await?.map_err(io_at(&path))
    }

    /// Waits until a sandbox's disk is on no loop device.
    pub(in crate::native) async fn released(&self, id: &SandboxId) -> Result<(), SandboxError> {
        if !self.on_disks() {
            return Ok(());
        }
        let path = self.disk(id)?;
        let deadline = tokio::time::Instant::now() + RELEASED_WITHIN;
        loop {
            let asked = path.clone();
            match blocking(move || disk::is_attached(&asked)).await? {
                Ok(false) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(io_at(&path)(error)),
                Ok(true) if tokio::time::Instant::now() >= deadline => {
                    return Err(SandboxError::Lost { reason: "its disk is still in use".to_owned() });
                }
                Ok(true) => tokio::time::sleep(RELEASED_STEP).await,
            }
        }
    }

    /// Removes a sandbox's files. None there is as good.
    pub(in crate::native) async fn remove(&self, id: &SandboxId) -> Result<(), SandboxError> {
        self.released(id).await?;
        let path = self.path(id)?;
        let mut tries = 0;
        loop {
            match self.try_remove(&path).await {
                Err(error) if tries >= TRIES => return Err(error),
                Err(error) => {
                    tracing::debug!(sandbox = %id, %error, "its files cannot be removed at once");
                    tries += 1;
                    tokio::time::sleep(BETWEEN_TRIES).await;
                }
                Ok(()) => return Ok(()),
            }
        }
    }

    async fn try_remove(&self, path: &Path) -> Result<(), SandboxError> {
        match &self.helper {
            None => {
                let file = path.join(DISK);
                let removed = blocking({
                    let file = file.clone();
                    move || absent_is_fine(fs::remove_file(file))
                });
                removed.await?.map_err(io_at(&file))?;
            }
            Some(helper) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let dir = match rustix::fs::open(path, flags, Mode::empty()) {
                    Err(rustix::io::Errno::NOENT) => return Ok(()),
                    other => other.map_err(|error| io_at(path)(error.into()))?,
                };
                let helper =
                    helper.as_ref().map_err(|reason| ImageError::Helper { reason: reason.clone() })?;
                helper.remove_all_in(&[dir]).await?;
            }
        }
        let dir = path.to_owned();
        blocking(move || absent_is_fine(fs::remove_dir(dir))).await?.map_err(io_at(path))
    }
}

fn absent_is_fine(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// An id as the name of a directory.
pub(in crate::native) fn name(id: &SandboxId) -> Result<&str, SandboxError> {
    let name = id.as_str();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(plain) {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "it is no name of a directory");
        return Err(SandboxError::Create { step: format!("use the id {name:?}"), source });
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use faas_types::SandboxId;

    use super::name;

    #[test]
    fn no_id_leads_out_of_the_directory() {
        for id in ["", ".", "..", "a/b", "../x", "a\0", "a.b"] {
            assert!(name(&SandboxId(id.to_owned())).is_err(), "{id:?}");
        }
        assert_eq!(name(&SandboxId("sb-0a".to_owned())).unwrap(), "sb-0a");
    }
}
