//! What a lasting sandbox is found by again.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};

use crate::native::cgroup::Counted;
use crate::native::disk::Room;
use crate::sandbox::{SandboxError, SandboxRecord};

/// The version of the record's members.
const VERSION: u32 = 1;

/// What the caller keeps of a sandbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::native) struct Record {
    version: u32,
    pub(in crate::native) files: FilesRecord,
    /// None of one that was stopped.
    pub(in crate::native) live: Option<Live>,
}

/// Where its files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::native) enum FilesRecord {
    /// On a disk of that size.
    Disk {
        /// Its size.
        bytes: u64,
        /// How much of that is spoken for.
        room: Room,
    },
    /// In a directory of the host.
    Directory,
}

/// The processes of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::native) struct Live {
    /// The host's boot that they belong to: its `/proc/sys/kernel/random/boot_id`.
    pub(in crate::native) boot_id: String,
    pub(in crate::native) slot: u32,
    pub(in crate::native) init: Init,
    /// Where the slot's counters stood when they began.
    pub(in crate::native) counted: Counted,
}

/// One process and no later one of the same PID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::native) struct Init {
    pub(in crate::native) pid: u32,
    /// When it began, in clock ticks since the host did (proc_pid_stat(5), `starttime`).
    started: u64,
    /// The inode of its PID namespace, whose first process it is.
    pid_namespace: u64,
}

impl Record {
    pub(in crate::native) fn new(files: FilesRecord, live: Option<Live>) -> Self {
        Self { version: VERSION, files, live }
    }

    /// Reads one that was written by [`Record::write`].
    pub(in crate::native) fn read(record: &SandboxRecord) -> Result<Self, SandboxError> {
        let unreadable =
            |reason: String| SandboxError::Lost { reason: format!("its record cannot be read: {reason}") };
        let read: Self =
            serde_json::from_value(record.0.clone()).map_err(|error| unreadable(error.to_string()))?;
        match read.version {
            VERSION => Ok(read),
            other => Err(unreadable(format!("it is of version {other}"))),
        }
    }

    pub(in crate::native) fn write(&self) -> Result<SandboxRecord, SandboxError> {
        let written = serde_json::to_value(self);
        written
            .map(SandboxRecord)
            .map_err(|error| SandboxError::Create { step: "write a record".to_owned(), source: error.into() })
    }
}

impl Init {
    /// The process that has this PID now.
    pub(in crate::native) fn of(pid: u32) -> io::Result<Self> {
        let started = started(&fs::read_to_string(format!("/proc/{pid}/stat"))?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its stat has no start time"))?;
        let pid_namespace = fs::metadata(format!("/proc/{pid}/ns/pid"))?.ino();
        Ok(Self { pid, started, pid_namespace })
    }

    /// Opens it, if it is there and has not ended. Its pidfd comes first: what is looked at afterwards is that process's,
    /// or the pidfd says that it has ended.
    pub(in crate::native) fn find(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            // No such process, or a thread of one.
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let is_it = match Self::of(self.pid) {
            Ok(now) => now == *self,
            // It has ended meanwhile; or it is a process that this user may not look at, and so never was the one.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
                    || error.raw_os_error() == Some(libc::ESRCH) =>
            {
                false
            }
            Err(error) => return Err(error),
        };
        Ok((is_it && !has_ended(&pidfd)?).then_some(pidfd))
    }
}

/// Whether a process has ended (pidfd_open(2)).
pub(in crate::native) fn has_ended(pidfd: &OwnedFd) -> io::Result<bool> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(rustix::event::poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now))? > 0)
}

/// The host's boot.
pub(in crate::native) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Field 22 of `/proc/PID/stat`. The name, field 2, may hold anything.
fn started(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{FilesRecord, Init, Live, Record, started};
    use crate::native::disk::Room;
    use crate::sandbox::SandboxRecord;

    #[test]
    fn the_start_time_is_read_past_any_name() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9";
        assert_eq!(started(stat), Some(4711));
        assert_eq!(started("7 (a) S 1"), None);
    }

    #[test]
    fn a_process_is_found_until_it_has_ended_and_no_other_is_taken_for_it() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let init = Init::of(child.id()).unwrap();
        assert!(init.find().unwrap().is_some());
        assert!(Init { started: init.started + 1, ..init }.find().unwrap().is_none());
        assert!(Init { pid_namespace: 1, ..init }.find().unwrap().is_none());
        drop(child.stdin.take());
        // Ended and not reaped is ended.
        while init.find().unwrap().is_some() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(init.find().unwrap().is_none());
        assert!(Init { pid: 0, ..init }.find().unwrap().is_none());
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_nothing_else_is() {
        let init = Init { pid: 7, started: 8, pid_namespace: 9 };
        let live = Live { boot_id: "b".to_owned(), slot: 3, init, counted: Default::default() };
        let files = FilesRecord::Disk { bytes: 1 << 30, room: Room::Little };
        let record = Record::new(files, Some(live));
        assert_eq!(Record::read(&record.write().unwrap()).unwrap(), record);
        let mut later = record.write().unwrap();
        later.0["version"] = 2.into();
        assert!(Record::read(&later).unwrap_err().to_string().contains("version 2"));
        assert!(Record::read(&SandboxRecord(serde_json::json!({}))).is_err());
    }
}
