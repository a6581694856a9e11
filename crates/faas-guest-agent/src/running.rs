//! A program that runs: its process, its pipes or its terminal, its end.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use faas_guest_protocol::ExitReport;
use rustix::process::{Pid, WaitStatus};

use crate::oom;
use crate::output::{Output, Sink};
use crate::processes;

/// The most that is kept of the standard input of an execution that belongs to a connection, while the program does not
/// read it.
const STDIN_BYTES: usize = 1 << 20;

/// How much of a pipe is read when its program has ended: as much as a pipe can hold, so that a background process
/// that goes on writing does not keep the execution from ending.
const LAST_READ_BYTES: usize = 1 << 20;

/// The character that means the end to a terminal as it is at first (termios(3), `VEOF`).
const END_OF_FILE: u8 = 4;

/// A part of standard input whose sender waits for its `StdinTaken`.
#[derive(Debug)]
struct Part {
    client: u64,
    bytes: u64,
    left: u64,
}

/// A part of standard input that is done with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) client: u64,
    pub(crate) bytes: u64,
    /// Whether the program took it.
    pub(crate) taken: bool,
}

/// A program that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) pid: Pid,
    pub(crate) started: Instant,
    pub(crate) deadline: Option<Instant>,
    pub(crate) outputs: [Output; 2],
    /// The terminal, where it has one.
    pub(crate) tty: Option<OwnedFd>,
    pub(crate) stdin: Option<OwnedFd>,
    pending_stdin: Vec<u8>,
    parts: VecDeque<Part>,
    stdin_ended: bool,
    timed_out: bool,
    cancelled: bool,
    /// How and when its process ended; what its pipes hold is still to be read.
    ended: Option<(WaitStatus, Instant)>,
    /// What was read of each pipe since then.
    last_read: [usize; 2],
}

impl Running {
    /// One that has just been started.
    pub(crate) fn new(
        pid: Pid,
        started: Instant,
        deadline: Option<Instant>,
        outputs: [Output; 2],
        stdin: Option<OwnedFd>,
        tty: Option<OwnedFd>,
    ) -> Self {
        Self {
            pid,
            started,
            deadline,
            outputs,
            tty,
            stdin,
            pending_stdin: Vec::new(),
            parts: VecDeque::new(),
            stdin_ended: false,
            timed_out: false,
            cancelled: false,
            ended: None,
            last_read: [0; 2],
        }
    }

    /// Its PID as the gateway is told.
    pub(crate) fn pid_number(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Whether its process has ended. Its PID may be another's then.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Takes in standard input.
    pub(crate) fn take_stdin(&mut self, bytes: &[u8]) {
        if self.stdin.is_some() {
            self.pending_stdin.extend_from_slice(bytes);
            self.write_stdin();
        }
    }

    /// Takes in standard input whose sender wants to know what becomes of it.
    pub(crate) fn take_stdin_of(&mut self, client: u64, bytes: &[u8]) -> Vec<Taken> {
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.stdin.is_none() || self.stdin_ended {
            return vec![Taken { client, bytes: size, taken: false }];
        }
        self.pending_stdin.extend_from_slice(bytes);
        self.parts.push_back(Part { client, bytes: size, left: size });
        self.write_stdin()
    }

    /// How much of a client's standard input waits.
    pub(crate) fn pending_stdin_of(&self, client: u64) -> u64 {
        self.parts.iter().filter(|part| part.client == client).map(|part| part.bytes).sum()
    }

    /// Takes in the end of standard input.
    pub(crate) fn end_stdin(&mut self) -> Vec<Taken> {
        if self.tty.is_some() {
            // The program may read on after it, as at any terminal.
            if self.stdin.is_some() {
                self.pending_stdin.push(END_OF_FILE);
            }
        } else {
            self.stdin_ended = true;
        }
        self.write_stdin()
    }

    /// Writes to the program's standard input what it takes, and tells what was waited for.
    pub(crate) fn write_stdin(&mut self) -> Vec<Taken> {
        let Some(pipe) = &self.stdin else { return Vec::new() };
        let mut written = 0;
        let mut gone = false;
        while written < self.pending_stdin.len() {
            match rustix::io::write(pipe, &self.pending_stdin[written..]) {
                Ok(n) => written += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => break,
                // The program does not read any more, which is its own affair.
                Err(_) => {
                    gone = true;
                    break;
                }
            }
        }
        self.pending_stdin.drain(..written);
        let mut taken = Vec::new();
        let mut written = u64::try_from(written).unwrap_or(u64::MAX);
        while let Some(part) = self.parts.front_mut() {
            let of_this = part.left.min(written);
            part.left -= of_this;
            written -= of_this;
            if part.left > 0 {
                break;
            }
            taken.push(Taken { client: part.client, bytes: part.bytes, taken: true });
            self.parts.pop_front();
        }
        if gone {
            taken.extend(self.close_stdin());
        } else if self.pending_stdin.is_empty() {
            self.pending_stdin = Vec::new();
            if self.stdin_ended {
                self.stdin = None;
            }
        }
        taken
    }

    /// Takes no more standard input; what was waited for is dropped.
    fn close_stdin(&mut self) -> Vec<Taken> {
        self.stdin = None;
        self.pending_stdin = Vec::new();
        let dropped = |part: Part| Taken { client: part.client, bytes: part.bytes, taken: false };
        self.parts.drain(..).map(dropped).collect()
    }

    /// Whether it waits for the program to read.
    pub(crate) fn has_pending_stdin(&self) -> bool {
        !self.pending_stdin.is_empty()
    }

    /// Whether no more of standard input is wanted now.
    pub(crate) fn stdin_is_full(&self) -> bool {
        self.pending_stdin.len() >= STDIN_BYTES
    }

    /// Gives it more time.
    pub(crate) fn add_time(&mut self, time: Duration) {
        self.deadline = self.deadline.and_then(|deadline| deadline.checked_add(time));
    }

    /// Ends its standard input, and gives it so much time from now on.
    pub(crate) fn finish_within(&mut self, time: Duration) {
        self.deadline = Instant::now().checked_add(time);
        self.end_stdin();
    }

    /// Ends it when its time is over.
    pub(crate) fn check_deadline(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.deadline = None;
            self.timed_out = true;
            processes::kill_started_by(self.pid);
        }
    }

    /// Kills everything it started. Its end is reported when its process has ended.
    pub(crate) fn cancel(&mut self) {
        if self.ended.is_none() {
            self.cancelled = true;
            processes::kill_started_by(self.pid);
        }
    }

    /// Its process has ended. What its pipes hold is still to be read.
    pub(crate) fn end(&mut self, status: WaitStatus) -> Vec<Taken> {
        self.deadline = None;
        self.ended = Some((status, Instant::now()));
        self.close_stdin()
    }

    /// Reads what its pipes hold after its end, as long as `may_read` says so. Its report, when that is all.
    pub(crate) fn finish(
        &mut self,
        buffer: &mut Vec<u8>,
        sink: &mut Sink<'_>,
        mut may_read: impl FnMut(&Sink<'_>) -> bool,
    ) -> Option<ExitReport> {
        let (status, ended) = self.ended?;
        for (output, read) in self.outputs.iter_mut().zip(&mut self.last_read) {
            while *read < LAST_READ_BYTES {
                if !may_read(sink) {
                    return None;
                }
                if !output.read(buffer, sink) {
                    break;
                }
                *read += buffer.len();
            }
        }
        let [stdout, stderr] = &self.outputs;
        // It may have ended by itself just before it would have been killed.
        let killed = status.terminating_signal() == Some(libc::SIGKILL);
        Some(ExitReport {
            code: status.exit_status(),
            signal: status.terminating_signal(),
            timed_out: self.timed_out && killed,
            cancelled: self.cancelled && killed,
            stdout_truncated: stdout.truncated,
            stderr_truncated: stderr.truncated,
            duration_us: u64::try_from((ended - self.started).as_micros()).unwrap_or(u64::MAX).max(1),
            oom_kills: oom::kills(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::time::Instant;

    use super::{Running, Taken};
    use crate::output::Output;
    use faas_guest_protocol::OutputStream;

    fn with_stdin() -> (Running, std::io::PipeReader) {
        let (reader, writer) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let outputs = [OutputStream::Stdout, OutputStream::Stderr].map(|s| Output::new(s, None, 0));
        let pid = rustix::process::getpid();
        (Running::new(pid, Instant::now(), None, outputs, Some(writer.into()), None), reader)
    }

    #[test]
    fn senders_are_told_in_order_what_became_of_their_input() {
        let (mut running, mut reader) = with_stdin();
        let taken = |client, bytes, taken| Taken { client, bytes, taken };
        let (mut piece, mut told) = (vec![0; 65_536], Vec::new());
        assert_eq!(running.take_stdin_of(1, b"abc"), [taken(1, 3, true)]);
        // More than a pipe holds.
        assert_eq!(running.take_stdin_of(1, &[b'x'; 100_000]), []);
        assert_eq!(running.take_stdin_of(2, b"yz"), []);
        assert_eq!((running.pending_stdin_of(1), running.pending_stdin_of(2)), (100_000, 2));
        let mut read = Vec::new();
        while read.len() < 3 + 100_000 + 2 {
            let n = reader.read(&mut piece).unwrap();
            read.extend_from_slice(&piece[..n]);
            told.extend(running.write_stdin());
        }
        assert_eq!(told, [taken(1, 100_000, true), taken(2, 2, true)]);
        assert_eq!(running.take_stdin_of(1, &[b'x'; 100_000]), []);
        drop(reader);
        assert_eq!(running.write_stdin(), [taken(1, 100_000, false)]);
        assert_eq!(running.take_stdin_of(2, b"late"), [taken(2, 4, false)]);
    }

    #[test]
    fn after_the_end_of_standard_input_nothing_is_taken() {
        let (mut running, mut reader) = with_stdin();
        running.take_stdin_of(1, b"abc");
        running.end_stdin();
        assert_eq!(running.take_stdin_of(1, b"d"), [Taken { client: 1, bytes: 1, taken: false }]);
        let mut all = String::new();
        reader.read_to_string(&mut all).unwrap();
        assert_eq!(all, "abc");
    }
}
