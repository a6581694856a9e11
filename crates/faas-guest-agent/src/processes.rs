//! Everything that an execution started, found in /proc by session and by parentage, and its end.

use std::collections::BTreeSet;
use std::process::ExitCode;

use rustix::process::{Pid, Signal};

/// What is known of one process (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    session: i32,
    /// Whether it only waits to be reaped.
    ended: bool,
}

fn parse_stat(text: &str) -> Option<Process> {
    // The name stands in parentheses and may hold any byte, parentheses too.
    let (before, after) = text.rsplit_once(')')?;
    let pid = before.split(' ').next()?.parse().ok()?;
    let mut fields = after.trim_start().split(' ');
    let ended = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Process { pid, parent, session, ended })
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

/// How long apart the table is read while processes that were asked to end do so, in milliseconds.
const ENDING_STEP_MS: i64 = 10;

/// Asks every process of the sandbox to end, but for init, keeper, agent and this one, and waits until they have. Run as
/// an execution of its own, by the sandbox's root; whoever started it kills what does not end.
pub(crate) fn terminate_all() -> ExitCode {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut asked = BTreeSet::new();
    loop {
        let left = others(own, &all());
        if left.is_empty() {
            return ExitCode::SUCCESS;
        }
        // Those that came since then are asked too.
        for pid in &left {
            if asked.insert(*pid) {
                send(*pid, Signal::TERM);
                // What is stopped does not see it otherwise.
                send(*pid, Signal::CONT);
            }
        }
        crate::sys::sleep_ms(ENDING_STEP_MS);
    }
}

/// Those that are neither of the sandbox's own three nor `own`, and have not ended. The agent is the parent of `own`, the
/// keeper the agent's.
fn others(own: i32, processes: &[Process]) -> BTreeSet<i32> {
    let parent = |pid| processes.iter().find(|process| process.pid == pid).map(|process| process.parent);
    let agent = parent(own);
    let spared = [Some(1), Some(own), agent, agent.and_then(parent)];
    (processes.iter())
        .filter(|process| !process.ended && !spared.contains(&Some(process.pid)))
        .map(|process| process.pid)
        .collect()
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

    use super::{Process, others, parse_stat, started_by};

    fn process(pid: i32, parent: i32, session: i32) -> Process {
        Process { pid, parent, session, ended: false }
    }

    #[test]
    fn all_but_the_sandboxes_own_are_asked_to_end() {
        let table = [
            process(1, 0, 1),
            process(2, 1, 2),
            process(3, 2, 2),
            process(9, 3, 9),
            process(10, 2, 10),
            process(11, 10, 10),
            Process { ended: true, ..process(12, 10, 10) },
        ];
        assert_eq!(others(9, &table), BTreeSet::from([10, 11]));
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_is_passed_over() {
        let text = "42 (a) b (c) S 7 42 9 0 -1 4194560 100 0";
        assert_eq!(parse_stat(text), Some(process(42, 7, 9)));
        assert_eq!(parse_stat("rubbish"), None);
    }

    #[test]
    fn the_session_and_all_descendants_are_found_and_nobody_else() {
        let table = [
            process(1, 0, 1),
            process(10, 3, 10),
            // In the session, though its parent is gone.
            process(11, 2, 10),
            // A child that made a session of its own, and a child of that.
            process(13, 12, 12),
            process(12, 10, 12),
            // Another execution.
            process(20, 3, 20),
        ];
        assert_eq!(started_by(10, &BTreeSet::new(), &table), BTreeSet::from([10, 11, 12, 13]));
    }
}
