//! A command that goes on until the test has seen enough: the attacker's tools that name themselves `ready`.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use faas_test_support::gateway::http::{Answer, Client};
use faas_test_support::gateway::leftovers;
use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::scene::{attack, random};

/// How long a tool may take to be ready. Not a measure of anything.
const READY: Duration = Duration::from_secs(90);

/// The command in a sandbox.
pub(crate) struct Held {
    /// Its PID on the host.
    pub(crate) pid: i32,
    answer: Option<JoinHandle<Answer>>,
}

impl Held {
    /// Starts a tool in a sandbox and waits until it is ready; `more` changes the request.
    pub(crate) fn start(client: Client, arguments: &[&str], more: impl FnOnce(&mut Value)) -> Self {
        let mark = format!("mark={}", random());
        let mut request = attack(&[arguments, &[mark.as_str()]].concat());
        more(&mut request);
        let answer = std::thread::spawn(move || client.execute(request));
        let pid = wait_until_ready(&mark, || answer.is_finished());
        match pid {
            Some(pid) => Self { pid, answer: Some(answer) },
            None => panic!("{arguments:?} does not get ready: {}", answer.join().unwrap().text()),
        }
    }

    /// Tells it to end; gives its answer.
    pub(crate) fn end(mut self) -> Answer {
        tell(self.pid);
        self.answer.take().unwrap().join().unwrap()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            tell(self.pid);
            // A test has failed already.
            match answer.join() {
                Ok(_) | Err(_) => {}
            }
        }
    }
}

/// The same on the host.
pub(crate) struct HeldOnHost(Child);

impl HeldOnHost {
    pub(crate) fn start(attacker: &std::path::Path, arguments: &[String]) -> Self {
        let mark = format!("mark={}", random());
        let mut child =
            Command::new(attacker).args(arguments).arg(&mark).stdout(Stdio::null()).spawn().unwrap();
        if wait_until_ready(&mark, || child.try_wait().unwrap().is_some()).is_none() {
            panic!("{arguments:?} does not get ready on the host");
        }
        Self(child)
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }
}

impl Drop for HeldOnHost {
    fn drop(&mut self) {
        tell(self.pid());
        match self.0.wait() {
            Ok(_) | Err(_) => {}
        }
    }
}

fn tell(pid: i32) {
    // It may have ended by itself.
    match rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::USR1) {
        Ok(()) | Err(_) => {}
    }
}

/// The PID on the host of the process that has `mark` among its arguments, once it is called `ready`.
fn wait_until_ready(mark: &str, mut is_over: impl FnMut() -> bool) -> Option<i32> {
    let deadline = Instant::now() + READY;
    while Instant::now() < deadline && !is_over() {
        let ready = leftovers::processes().into_iter().filter(|process| process.name == "ready");
        for process in ready {
            let line = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains(mark) {
                return Some(process.pid);
            }
        }
        leftovers::pause(Duration::from_millis(20));
    }
    None
}
