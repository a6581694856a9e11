//! Everything that an execution started, found in /proc by session and by parentage, and its end.

use std::collections::BTreeSet;

use rustix::process::{Pid, Signal};

/// What is known of one process (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    session: i32,
}

fn parse_stat(text: &str) -> Option<Process> {
    // The name stands in parentheses and may hold any byte, parentheses too.
    let (before, after) = text.rsplit_once(')')?;
    let pid = before.split(' ').next()?.parse().ok()?;
    let mut fields = after.trim_start().split(' ').skip(1);
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Process { pid, parent, session })
}

fn all() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| {
            entry.file_name().to_str().is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()))
        })
        .filter_map(|entry| std::fs::read(entry.path().join("stat")).ok())
        .filter_map(|bytes| parse_stat(&String::from_utf8_lossy(&bytes)))
        .collect()
}

/// The session of `leader` and every descendant of any of them or of `known`.
fn started_by(leader: i32, known: &BTreeSet<i32>, processes: &[Process]) -> BTreeSet<i32> {
    let mut found = known.clone();
    found.insert(leader);
    loop {
        let before = found.len();
        for process in processes {
            if process.session == leader || found.contains(&process.parent) {
                found.insert(process.pid);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// How often the table is read again while new processes keep turning up.
const ROUNDS: usize = 64;

/// Kills the session of `leader` and all descendants.
///
/// They are stopped first, until no new one turns up: a process that is killed while its parent forks leaves children
/// behind that nothing connects to it any more. The leader's process group is signalled as one, which no fork of a
/// member outruns.
pub(crate) fn kill_started_by(leader: Pid) {
    let number = leader.as_raw_nonzero().get();
    let mut stopped = BTreeSet::new();
    for _ in 0..ROUNDS {
        send_to_group(leader, Signal::STOP);
        let found = started_by(number, &stopped, &all());
        let new: Vec<_> = found.difference(&stopped).copied().collect();
        if new.is_empty() {
            break;
        }
        for pid in &new {
            send(*pid, Signal::STOP);
        }
        stopped.extend(new);
    }
    send_to_group(leader, Signal::KILL);
    for pid in &stopped {
        send(*pid, Signal::KILL);
    }
}

fn send(pid: i32, signal: Signal) {
    // One that is gone already is what is wanted.
    if let Some(pid) = Pid::from_raw(pid) {
        match rustix::process::kill_process(pid, signal) {
            Ok(()) | Err(_) => {}
        }
    }
}

fn send_to_group(leader: Pid, signal: Signal) {
    // The group may be empty.
    match rustix::process::kill_process_group(leader, signal) {
        Ok(()) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Process, parse_stat, started_by};

    #[test]
    fn a_name_with_parentheses_and_spaces_is_passed_over() {
        let text = "42 (a) b (c) S 7 42 9 0 -1 4194560 100 0";
        assert_eq!(parse_stat(text), Some(Process { pid: 42, parent: 7, session: 9 }));
        assert_eq!(parse_stat("rubbish"), None);
    }

    #[test]
    fn the_session_and_all_descendants_are_found_and_nobody_else() {
        let table = [
            Process { pid: 1, parent: 0, session: 1 },
            Process { pid: 10, parent: 3, session: 10 },
            // In the session, though its parent is gone.
            Process { pid: 11, parent: 2, session: 10 },
            // A child that made a session of its own, and a child of that.
            Process { pid: 13, parent: 12, session: 12 },
            Process { pid: 12, parent: 10, session: 12 },
            // Another execution.
            Process { pid: 20, parent: 3, session: 20 },
        ];
        assert_eq!(started_by(10, &BTreeSet::new(), &table), BTreeSet::from([10, 11, 12, 13]));
    }
}
