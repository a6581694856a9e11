//! What a gateway may leave on the machine, found by descent and by the marks it puts on what it makes. Looks only;
//! never ends a process of anybody.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitOptions};

/// How long something may take to go away before it counts as left. Not a measure of anything.
const SETTLE: Duration = Duration::from_secs(30);

/// One process, told apart from a later one of the same number by when it began.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its PID.
    pub pid: i32,
    /// Clock ticks between the machine's start and its own.
    pub started: u64,
    /// Its parent's PID.
    pub parent: i32,
    /// Its name as `/proc/PID/comm` has it.
    pub name: String,
    ended: bool,
}

/// Every process that `/proc` shows. One that ends meanwhile is left out.
#[must_use]
pub fn processes() -> Vec<Process> {
    numbers("/proc").into_iter().filter_map(process).collect()
}

fn numbers(dir: &str) -> Vec<i32> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn process(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc_pid_stat(5): the name is in parentheses and may hold any itself.
    let (open, close) = (stat.find('(')?, stat.rfind(')')?);
    let rest: Vec<&str> = stat.get(close + 2..)?.split(' ').collect();
    Some(Process {
        pid,
        started: rest.get(19)?.parse().ok()?,
        parent: rest.get(1)?.parse().ok()?,
        name: stat.get(open + 1..close)?.to_owned(),
        ended: *rest.first()? == "Z",
    })
}

/// Makes orphans of processes below this one its own children, so that none is lost from sight.
///
/// # Errors
/// As prctl(2).
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// All processes below `root`, itself not among them.
#[must_use]
pub fn descendants(root: i32) -> Vec<Process> {
    let mut below: BTreeMap<i32, Process> = BTreeMap::new();
    let all = processes();
    loop {
        let before = below.len();
        for process in &all {
            if process.parent == root || below.contains_key(&process.parent) {
                below.insert(process.pid, process.clone());
            }
        }
        if below.len() == before {
            return below.into_values().collect();
        }
    }
}

/// Direct children of this process.
#[must_use]
pub fn children() -> Vec<Process> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    processes().into_iter().filter(|process| process.parent == own).collect()
}

/// Those of `processes` that still run. A child of this process that has ended is reaped on the way.
#[must_use]
pub fn still_there(processes: &[Process]) -> Vec<String> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let mut left = Vec::new();
    for known in processes {
        let Some(now) = process(known.pid).filter(|now| now.started == known.started) else { continue };
        if now.ended {
            if let (true, Some(pid)) = (now.parent == own, Pid::from_raw(now.pid)) {
                // Somebody else of this process may have waited for it.
                match rustix::process::waitpid(Some(pid), WaitOptions::NOHANG) {
                    Ok(_) | Err(_) => {}
                }
            }
            continue;
        }
        left.push(format!("process {} ({})", now.pid, now.name));
    }
    left
}

/// Mounts, cgroups with what is in them, and loop devices that have one of the marks in a name.
#[must_use]
pub fn marked(marks: &[String]) -> Vec<String> {
    let has_mark = |text: &str| marks.iter().any(|mark| text.contains(mark.as_str()));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<String> =
        mounts.lines().filter(|line| has_mark(line)).map(|line| format!("mount {line}")).collect();
    cgroups(Path::new("/sys/fs/cgroup"), &has_mark, &mut found);
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        if let Ok(file) = fs::read_to_string(entry.path().join("loop/backing_file"))
            && has_mark(&file)
        {
            found.push(format!("loop device {} on {}", entry.file_name().display(), file.trim()));
        }
    }
    for pid in numbers("/proc") {
        let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        if has_mark(&cgroup) {
            found.push(format!("process {pid} in a cgroup of the gateway"));
        }
    }
    found
}

fn cgroups(dir: &Path, has_mark: &impl Fn(&str) -> bool, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let path = entry.path();
            if has_mark(&entry.file_name().to_string_lossy()) {
                found.push(format!("cgroup {}", path.display()));
            } else {
                cgroups(&path, has_mark, found);
            }
        }
    }
}

/// What `ask` still finds when it has had time to find nothing.
pub fn eventually(mut ask: impl FnMut() -> Vec<String>) -> Vec<String> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let found = ask();
        if found.is_empty() || Instant::now() >= deadline {
            return found;
        }
        pause(Duration::from_millis(20));
    }
}

/// Waits a moment before something outside is looked at again.
pub fn pause(time: Duration) {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test's own thread; there is no runtime and no event to wait for"
    )]
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::{children, descendants, still_there};

    #[test]
    fn a_child_is_seen_while_it_lives_and_reaped_when_it_has_ended() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let found: Vec<_> = children().into_iter().filter(|process| process.pid == pid).collect();
        assert_eq!(found.len(), 1);
        assert!(descendants(own).contains(&found[0]));
        assert_eq!(still_there(&found).len(), 1);
        drop(child.stdin.take());
        assert_eq!(super::eventually(|| still_there(&found)), [""; 0]);
        assert!(!child.wait().is_ok_and(|status| !status.success()));
    }
}
