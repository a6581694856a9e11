//! One slot's cgroups, held open: reachable from a process that can no longer see the host's file system.

use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

use super::{CgroupHost, Hierarchy, Version, parse_oom_kills};
use crate::sandbox::Limits;

/// The directories of one slot.
#[derive(Debug)]
pub(crate) struct SlotCgroup {
    dirs: Vec<(Hierarchy, OwnedFd)>,
    version: &'static dyn Version,
}

/// A file of a cgroup that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{hierarchy:?}/{file}: {source}")]
pub(crate) struct CgroupFileError {
    hierarchy: Hierarchy,
    file: &'static str,
    pub(crate) source: io::Error,
}

impl SlotCgroup {
    /// Makes a slot's directories and opens them.
    pub(crate) fn make(host: &CgroupHost, slot: u32) -> io::Result<Self> {
        Ok(Self { dirs: host.make_slot_dirs(slot)?, version: host.version() })
    }

    /// Opens a slot's directories, which exist.
    pub(crate) fn open(host: &CgroupHost, slot: u32) -> io::Result<Self> {
        Ok(Self { dirs: host.open_slot_dirs(slot)?, version: host.version() })
    }

    /// Moves the calling process into all of them. Slow: each move waits for an RCU grace period.
    pub(crate) fn enter(&self) -> Result<(), CgroupFileError> {
        self.dirs.iter().try_for_each(|(hierarchy, _)| self.write(*hierarchy, "cgroup.procs", "0"))
    }

    /// Sets the limits.
    pub(crate) fn limit(&self, limits: &Limits) -> Result<(), CgroupFileError> {
        for setting in self.version.settings(limits) {
            match self.write(setting.hierarchy, setting.file, &setting.value) {
                Err(error) if setting.may_be_absent && error.source.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// How many processes the kernel has killed here for want of memory, ever.
    pub(crate) fn oom_kills(&self) -> Result<u64, CgroupFileError> {
        let (hierarchy, file) = self.version.oom_counter();
        let mut text = String::new();
        self.file(hierarchy, file, OFlags::RDONLY)
            .and_then(|mut file| file.read_to_string(&mut text))
            .map_err(|source| CgroupFileError { hierarchy, file, source })?;
        parse_oom_kills(&text).ok_or(CgroupFileError {
            hierarchy,
            file,
            source: io::Error::new(io::ErrorKind::InvalidData, "it has no line oom_kill"),
        })
    }

    fn write(&self, hierarchy: Hierarchy, file: &'static str, value: &str) -> Result<(), CgroupFileError> {
        self.file(hierarchy, file, OFlags::WRONLY)
            .and_then(|mut file| file.write_all(value.as_bytes()))
            .map_err(|source| CgroupFileError { hierarchy, file, source })
    }

    fn file(&self, hierarchy: Hierarchy, file: &str, flags: OFlags) -> io::Result<std::fs::File> {
        let dir = self
            .dirs
            .iter()
            .find_map(|(h, dir)| (*h == hierarchy).then_some(dir))
            .ok_or(io::ErrorKind::NotFound)?;
        Ok(rustix::fs::openat(dir, file, flags | OFlags::CLOEXEC, Mode::empty())?.into())
    }
}
