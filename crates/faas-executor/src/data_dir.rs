//! The data directory: one gateway's, locked, with the id that marks everything the gateway makes on the host.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use faas_types::GatewayId;
use rustix::fs::FlockOperation;

use crate::error::StartError;

/// How long it is waited for a lock that somebody has. A server that was killed may have begun a program a moment before,
/// and a child has what its parent had open, locks with it (flock(2)), until it has become that program.
const LOCKED_WITHIN: Duration = Duration::from_secs(5);

/// How often is looked meanwhile.
const STEP: Duration = Duration::from_millis(20);

/// A data directory that is this process's alone for as long as this value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    gateway_id: GatewayId,
    _lock: File,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StartError + '_ {
    move |source| StartError::Io { path: path.to_owned(), source }
}

impl DataDir {
    /// Makes the directory where it is missing, locks it and reads the gateway's id, making one the first time.
    ///
    /// # Errors
    /// [`StartError::InUse`] when another gateway has it, and still has it five seconds later; otherwise
    /// [`StartError::Io`].
    pub fn open(path: &Path) -> Result<Self, StartError> {
        Self::open_within(path, LOCKED_WITHIN)
    }

    #[expect(clippy::disallowed_methods, reason = "nothing runs before the data directory is this process's")]
    fn open_within(path: &Path, within: Duration) -> Result<Self, StartError> {
        let begun = Instant::now();
        let path = make(path)?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(at(&lock_path))?;
        // Who can open it can lock it.
        std::fs::set_permissions(&lock_path, Permissions::from_mode(0o600)).map_err(at(&lock_path))?;
        loop {
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) if begun.elapsed() < within => std::thread::sleep(STEP),
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(StartError::InUse { path }),
                Err(error) => return Err(at(&lock_path)(error.into())),
            }
        }
        let gateway_id = gateway_id(&path.join("gateway-id"))?;
        Ok(Self { path, gateway_id, _lock: lock })
    }

    /// The mark on the gateway's host resources.
    #[must_use]
    pub fn gateway_id(&self) -> &GatewayId {
        &self.gateway_id
    }

    /// Its path, without links.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A directory of its own below the data directory, for root alone; made where it is missing.
    pub(crate) fn private(&self, name: &str) -> Result<PathBuf, StartError> {
        private(&self.path, name)
    }
}

/// The directory of images in a data directory that another process may have locked; both are made where missing.
#[cfg(all(target_os = "linux", feature = "native"))]
pub(crate) fn images(data_dir: &Path) -> Result<PathBuf, StartError> {
    private(&make(data_dir)?, IMAGES)
}

/// The directory of images by its name in the data directory.
#[cfg(all(target_os = "linux", feature = "native"))]
pub(crate) const IMAGES: &str = "images";

/// Makes a data directory where it is missing; its path, without links.
fn make(path: &Path) -> Result<PathBuf, StartError> {
    DirBuilder::new().recursive(true).mode(0o711).create(path).map_err(at(path))?;
    path.canonicalize().map_err(at(path))
}

fn private(data_dir: &Path, name: &str) -> Result<PathBuf, StartError> {
    let path = data_dir.join(name);
    DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(at(&path))?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(at(&path))?;
    Ok(path)
}

/// Writes a file that is never seen half written.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<(), StartError> {
    let new = path.with_extension("new");
    std::fs::write(&new, content).map_err(at(&new))?;
    std::fs::rename(&new, path).map_err(at(path))
}

/// Reads the id, or makes one: short enough for the name of a cgroup, random enough to be nobody else's.
fn gateway_id(path: &Path) -> Result<GatewayId, StartError> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let id = text.trim();
            if !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric()) {
                return Ok(GatewayId(id.to_owned()));
            }
            Err(at(path)(io::Error::new(io::ErrorKind::InvalidData, "it holds no gateway id")))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // The last digits of a version 7 UUID are random; the first are the time.
            let id = uuid::Uuid::now_v7().simple().to_string()[16..].to_owned();
            write_whole(path, format!("{id}\n").as_bytes())?;
            Ok(GatewayId(id))
        }
        Err(error) => Err(at(path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use rustix::fs::{FlockOperation, flock};

    use super::DataDir;
    use crate::error::StartError;

    #[test]
    fn a_second_gateway_is_refused_and_the_id_stays() {
        let dir = std::env::temp_dir().join(format!("data-dir-{}", uuid::Uuid::now_v7().simple()));
        let first = DataDir::open(&dir).unwrap();
        let id = first.gateway_id().clone();
        assert!(matches!(DataDir::open_within(&dir, Duration::ZERO), Err(StartError::InUse { .. })));
        drop(first);
        // As what a killed server's child has open a little longer.
        let inherited = File::open(dir.join("lock")).unwrap();
        flock(&inherited, FlockOperation::LockExclusive).unwrap();
        assert!(matches!(DataDir::open_within(&dir, Duration::ZERO), Err(StartError::InUse { .. })));
        let (asked, is_asked) = std::sync::mpsc::channel();
        let let_go = std::thread::spawn(move || {
            is_asked.recv().unwrap();
            drop(inherited);
        });
        asked.send(()).unwrap();
        assert_eq!(DataDir::open(&dir).unwrap().gateway_id(), &id);
        let_go.join().unwrap();
        std::fs::write(dir.join("gateway-id"), "../x\n").unwrap();
        assert!(matches!(DataDir::open(&dir), Err(StartError::Io { .. })));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
