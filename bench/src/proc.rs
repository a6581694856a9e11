//! What /proc says of processes: this program's descendants, their memory and their descriptors.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::error::BenchError;

/// One process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) comm: String,
    pub(crate) state: char,
}

/// Makes orphans of whatever this program starts its own children, so that none can hide.
pub(crate) fn become_subreaper() -> Result<(), BenchError> {
    // SAFETY: prctl with plain numbers touches no memory.
    if unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } != 0 {
        return Err(BenchError::io("PR_SET_CHILD_SUBREAPER")(std::io::Error::last_os_error()));
    }
    Ok(())
}

fn parse_stat(stat: &str) -> Option<Process> {
    let (head, tail) = stat.rsplit_once(')')?;
    let (pid, comm) = head.split_once(" (")?;
    let mut fields = tail.split_whitespace();
    Some(Process {
        pid: pid.parse().ok()?,
        comm: comm.to_owned(),
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok()?,
    })
}

/// The CPU time that a process has taken, to a clock tick (proc_pid_stat(5), `utime` and `stime`).
pub(crate) fn cpu_time(pid: u32) -> Result<Duration, BenchError> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).map_err(BenchError::io(&path))?;
    let tail = stat.rsplit_once(')').map_or("", |(_, tail)| tail);
    let ticks: u64 =
        tail.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    // SAFETY: asks for a number.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// Every process there is.
pub(crate) fn all() -> Result<Vec<Process>, BenchError> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").map_err(BenchError::io("/proc"))? {
        let name = entry.map_err(BenchError::io("/proc"))?.file_name();
        if !name.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // A process that ended since the directory was read is none.
        if let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", name.to_string_lossy()))
            && let Some(process) = parse_stat(&stat)
        {
            found.push(process);
        }
    }
    Ok(found)
}

/// All descendants of `root`, without it.
pub(crate) fn descendants(root: u32) -> Result<Vec<Process>, BenchError> {
    let mut children: BTreeMap<u32, Vec<Process>> = BTreeMap::new();
    for process in all()? {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(parent) = next.pop() {
        for process in children.remove(&parent).unwrap_or_default() {
            next.push(process.pid);
            found.push(process);
        }
    }
    Ok(found)
}

/// Collects orphans that have ended and became this program's children. Never one of `own`.
pub(crate) fn reap_orphans(own: &[u32]) -> Result<(), BenchError> {
    let this = std::process::id();
    for process in all()? {
        if process.parent == this && process.state == 'Z' && !own.contains(&process.pid) {
            // SAFETY: a zombie child of ours that no handle in this program waits for.
            unsafe { libc::waitpid(process.pid as libc::pid_t, std::ptr::null_mut(), libc::WNOHANG) };
        }
    }
    Ok(())
}

/// Proportional set size of a process in KiB.
pub(crate) fn pss_kib(pid: u32) -> Result<u64, BenchError> {
    field(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

/// Resident set size of a process in KiB.
pub(crate) fn rss_kib(pid: u32) -> Result<u64, BenchError> {
    field(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// How many threads a process has.
pub(crate) fn threads(pid: u32) -> Result<u64, BenchError> {
    field(&format!("/proc/{pid}/status"), "Threads:")
}

/// How many descriptors a process holds.
pub(crate) fn descriptors(pid: u32) -> Result<u64, BenchError> {
    let directory = format!("/proc/{pid}/fd");
    Ok(fs::read_dir(&directory).map_err(BenchError::io(&directory))?.count() as u64)
}

fn field(path: &str, name: &str) -> Result<u64, BenchError> {
    let text = fs::read_to_string(path).map_err(BenchError::io(path))?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| BenchError::Answer(format!("{path} has no {name}")))
}

#[cfg(test)]
mod tests {
    use super::parse_stat;

    #[test]
    fn a_name_with_brackets_is_read_right() {
        let process = parse_stat("42 (a) (b) S 7 42 42 0").unwrap();
        assert_eq!(
            (process.pid, process.comm.as_str(), process.state, process.parent),
            (42, "a) (b", 'S', 7)
        );
    }
}
