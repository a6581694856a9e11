//! Memory that the kernel holds for a sandbox and counts against no cgroup: netlink sockets, and answers in them that
//! nobody reads. No limit keeps a program from opening ever more of them, and without any it could not list its
//! interfaces. So what each sandbox has in them is looked at now and then, and one that has too much is killed, as if by
//! the kernel for want of memory. One that has had no CPU time since it was last looked at has hardly anything new in
//! them and is passed over most of the time: to read its CPU time costs less. Where none has had any, that is told by
//! one number for all of them.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use rustix::process::Signal;

use super::cgroup::{CgroupHost, SlotCgroup};

/// How often it is looked.
const PERIOD: Duration = Duration::from_millis(500);

/// The part of its memory limit that a sandbox may have in such sockets besides, and the least.
const SHARE: u64 = 4;
const LEAST_BYTES: u64 = 8 << 20;

/// How often a quiet sandbox is passed over, for a minute: what the kernel itself sends to its sockets costs it no CPU
/// time, and does not exceed what those that it has already may hold.
const MOST_PASSED_OVER: u32 = 120;

/// What no CPU time is.
const NOT_SEEN: u64 = u64::MAX;

/// A sandbox that is looked at for as long as this lives.
#[derive(Debug)]
pub(super) struct Watched {
    init_pid: u32,
    pidfd: OwnedFd,
    most_bytes: AtomicU64,
    killed: AtomicBool,
    /// Where its CPU time is counted, if it is.
    cgroup: Option<Arc<SlotCgroup>>,
    /// What that was before it was last looked at; [`NOT_SEEN`] where that says nothing.
    seen_cpu_us: AtomicU64,
    /// How often it has been passed over since it was last looked at.
    passed_over: AtomicU32,
    /// The table of its netlink sockets, kept open from the first look on: to open it takes longer than to read it.
    table: OnceLock<File>,
}

fn most_bytes(memory_bytes: u64) -> u64 {
    (memory_bytes / SHARE).max(LEAST_BYTES)
}

impl Watched {
    /// Whether it was killed for what it had.
    pub(super) fn was_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// Its memory limit is another now.
    pub(super) fn set_memory_limit(&self, memory_bytes: u64) {
        self.most_bytes.store(most_bytes(memory_bytes), Ordering::Relaxed);
        self.seen_cpu_us.store(NOT_SEEN, Ordering::Relaxed);
    }

    fn table(&self) -> io::Result<&File> {
        match self.table.get() {
            Some(table) => Ok(table),
            None => {
                let opened = File::open(format!("/proc/{}/net/netlink", self.init_pid))?;
                Ok(self.table.get_or_init(|| opened))
            }
        }
    }

    /// `are_quiet`: no sandbox has had CPU time since this was last called for all of them.
    fn look(&self, are_quiet: bool) {
        let seen_cpu_us = self.seen_cpu_us.load(Ordering::Relaxed);
        let cpu_us = match &self.cgroup {
            // Where its own is not known yet it is read.
            _ if are_quiet && seen_cpu_us != NOT_SEEN => seen_cpu_us,
            Some(cgroup) => cgroup.cpu_us_ever().unwrap_or(NOT_SEEN),
            None => NOT_SEEN,
        };
        let is_quiet = cpu_us != NOT_SEEN && cpu_us == seen_cpu_us;
        if is_quiet && self.passed_over.fetch_add(1, Ordering::Relaxed) < MOST_PASSED_OVER {
            return;
        }
        self.passed_over.store(0, Ordering::Relaxed);
        // One that cannot be read is over.
        let Ok(bytes) = self.table().and_then(bytes_held) else { return };
        if bytes <= self.most_bytes.load(Ordering::Relaxed) || self.was_killed() {
            // It was read before: whatever ran since then is seen the next time.
            self.seen_cpu_us.store(cpu_us, Ordering::Relaxed);
            return;
        }
        tracing::warn!(
            init_pid = self.init_pid,
            bytes,
            "a sandbox holds too much in netlink sockets and is killed"
        );
        self.killed.store(true, Ordering::Relaxed);
        match rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => tracing::error!(%error, "it could not be killed"),
        }
    }
}

/// How much of a table is read at once.
const READ_BYTES: usize = 16 << 10;

/// The longest table that is read: of about ten thousand sockets, which nobody has use for. The kernel goes through all of
/// a table for each part of it that is read, so that one that is without end would keep the others from being looked at.
const MOST_READ_BYTES: usize = 1 << 20;

/// What a socket itself takes, in which nothing waits. One that has no address yet is in no table, and nothing can wait
/// in it.
const SOCKET_BYTES: u64 = 2 << 10;

/// What the sockets of a table hold; more than anybody may where the table is too long.
fn bytes_held(table: &File) -> io::Result<u64> {
    let mut text = Vec::new();
    loop {
        let length = text.len();
        if length >= MOST_READ_BYTES {
            return Ok(u64::MAX);
        }
        text.resize(length + READ_BYTES, 0);
        let count = table.read_at(&mut text[length..], u64::try_from(length).unwrap_or(u64::MAX))?;
        text.truncate(length + count);
        if count == 0 {
            return String::from_utf8(text).map(|text| bytes_in(&text)).map_err(io::Error::other);
        }
    }
}

/// The sum of the columns Rmem and Wmem (net/netlink/af_netlink.c, `netlink_native_seq_show`), and what the sockets are.
fn bytes_in(text: &str) -> u64 {
    let of_line = |line: &str| {
        let mut fields = line.split_whitespace().skip(4);
        let (read, written): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(read.saturating_add(written).saturating_add(SOCKET_BYTES))
    };
    text.lines().filter_map(of_line).fold(0, u64::saturating_add)
}

/// Looks at all sandboxes.
#[derive(Clone, Debug)]
pub(super) struct Watchdog(Arc<Watch>);

#[derive(Debug)]
struct Watch {
    list: Mutex<Vec<Weak<Watched>>>,
    /// Where the CPU time of all of them is counted, if it is.
    cgroups: Option<Arc<CgroupHost>>,
}

impl Watchdog {
    pub(super) fn new(cgroups: Option<Arc<CgroupHost>>) -> Self {
        Self(Arc::new(Watch { list: Mutex::default(), cgroups }))
    }

    /// Begins to look at a sandbox.
    pub(super) fn watch(
        &self,
        init_pid: u32,
        pidfd: OwnedFd,
        memory_bytes: u64,
        cgroup: Option<Arc<SlotCgroup>>,
    ) -> Arc<Watched> {
        let most_bytes = AtomicU64::new(most_bytes(memory_bytes));
        let watched = Arc::new(Watched {
            init_pid,
            pidfd,
            most_bytes,
            killed: AtomicBool::new(false),
            cgroup,
            seen_cpu_us: AtomicU64::new(NOT_SEEN),
            passed_over: AtomicU32::new(0),
            table: OnceLock::new(),
        });
        self.list().push(Arc::downgrade(&watched));
        watched
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Watched>>> {
        // No code panics while it holds the lock halfway through a change.
        self.0.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks again and again, until nobody else has this watchdog.
    pub(super) async fn run(self) {
        let mut seen_cpu_us = None;
        while Arc::strong_count(&self.0) > 1 {
            tokio::time::sleep(PERIOD).await;
            let watched: Vec<_> = {
                let mut list = self.list();
                list.retain(|watched| watched.strong_count() > 0);
                list.iter().filter_map(Weak::upgrade).collect()
            };
            if watched.is_empty() {
                continue;
            }
            let cgroups = self.0.cgroups.clone();
            let looked = tokio::task::spawn_blocking(move || {
                // It is read before: whatever runs since then is seen the next time.
                let cpu_us = cgroups.and_then(|cgroups| cgroups.cpu_us_ever());
                let are_quiet = cpu_us.is_some() && cpu_us == seen_cpu_us;
                watched.iter().for_each(|watched| watched.look(are_quiet));
                cpu_us
            });
            seen_cpu_us = match looked.await {
                Ok(cpu_us) => cpu_us,
                Err(error) => {
                    tracing::error!(%error, "looking at sandboxes failed");
                    None
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::{LEAST_BYTES, MOST_READ_BYTES, SOCKET_BYTES, bytes_held, bytes_in};

    #[test]
    fn what_waits_in_all_sockets_is_added_up() {
        let text = "\
sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
0000000000000000 0   4123       00000000 212480   0        0     2        936      10561
0000000000000000 0   0          00000000 0        0        0     2        0        21
0000000000000000 15  7          00000000 768      256      0     2        0        22
";
        assert_eq!(bytes_in(text), 212_480 + 768 + 256 + 3 * SOCKET_BYTES);
        assert_eq!(bytes_in(""), 0);
    }

    /// A table of so many sockets in which nothing waits.
    fn idle(sockets: usize) -> std::fs::File {
        let mut table = tempfile::tempfile().unwrap();
        let head =
            "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n";
        let line =
            "0000000000000000 0   4123       00000000 0        0        0     2        0        10561   \n";
        table.write_all(format!("{head}{}", line.repeat(sockets)).as_bytes()).unwrap();
        table
    }

    #[test]
    fn sockets_in_which_nothing_waits_count_too() {
        assert_eq!(bytes_held(&idle(16)).unwrap(), 16 * SOCKET_BYTES);
        assert!(bytes_held(&idle(16)).unwrap() < LEAST_BYTES);
        assert!(bytes_held(&idle(5000)).unwrap() > LEAST_BYTES);
    }

    #[test]
    fn a_table_without_end_is_too_much_whatever_is_in_it() {
        let mut table = idle(300_000);
        assert_eq!(bytes_held(&table).unwrap(), u64::MAX);
        // What is beyond its bound is not looked at: that would be no text.
        table.write_all(&[0xff; 64]).unwrap();
        assert_eq!(bytes_held(&table).unwrap(), u64::MAX);
        let longest = MOST_READ_BYTES / 100 - 100;
        assert_eq!(bytes_held(&idle(longest)).unwrap(), u64::try_from(longest).unwrap() * SOCKET_BYTES);
    }
}
