//! The small process that spawns what is measured, and the other end's handle on it.
//!
//! Forking from a big multi-threaded process costs more than from a small one, and the peers must not pay for this
//! program. So every worker has a helper: one thread, little memory, orders as JSON lines on its standard input,
//! times in nanoseconds on its standard output. A time is taken inside the helper, around the spawn and the wait.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::error::BenchError;
use crate::floor::{self, Floor};
use crate::tree::{self, Tree};

/// One thing to do and to time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Start a program (posix_spawn), wait until it has ended with exit code 0. With `stdout`, it must have printed
    /// exactly that.
    Spawn { argv: Vec<String>, stdout: Option<String> },
    /// One of the floors; `scratch` is an empty directory to mount on.
    Floor { floor: Floor, scratch: PathBuf },
    /// Start programs one after the other, which unpack an image below `dir`. It is made before and removed afterwards;
    /// the files in `root` must be those of `tree`.
    Unpack { dir: PathBuf, steps: Vec<Vec<String>>, root: PathBuf, tree: Tree },
}

#[derive(Serialize, Deserialize)]
enum Reply {
    TookNs(u64),
    Failed(String),
}

/// The helper's main: serves orders until its input ends.
pub(crate) fn serve() -> ExitCode {
    let stdin = std::io::stdin().lock();
    let mut stdout = std::io::stdout().lock();
    for line in stdin.lines() {
        let Ok(line) = line else { return ExitCode::FAILURE };
        let reply = match serde_json::from_str::<Order>(&line) {
            Ok(order) => match carry_out(&order) {
                Ok(ns) => Reply::TookNs(ns),
                Err(reason) => Reply::Failed(reason),
            },
            Err(error) => Reply::Failed(format!("order: {error}")),
        };
        let written = serde_json::to_string(&reply)
            .map_err(std::io::Error::other)
            .and_then(|text| writeln!(stdout, "{text}"))
            .and_then(|()| stdout.flush());
        if written.is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn carry_out(order: &Order) -> Result<u64, String> {
    match order {
        Order::Floor { floor: Floor::Spawn, .. } => spawn(&["/usr/bin/true".to_owned()], None),
        Order::Floor { floor, scratch } => floor::run(*floor, scratch),
        Order::Spawn { argv, stdout } => spawn(argv, stdout.as_deref()),
        Order::Unpack { dir, steps, root, tree } => unpack(dir, steps, root, tree),
    }
}

/// What was written before is on the disk when the clock starts; comparing and removing files is off the clock.
fn unpack(dir: &Path, steps: &[Vec<String>], root: &Path, tree: &Tree) -> Result<u64, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
    std::fs::create_dir(dir).map_err(failed)?;
    tree::sync(dir).map_err(failed)?;
    let took = steps.iter().map(|argv| spawn(argv, None)).sum::<Result<u64, String>>();
    let checked = took.and_then(|took| tree.check(root).map(|()| took));
    std::fs::remove_dir_all(dir).map_err(failed)?;
    checked
}

/// Starts a program and waits until it has ended with 0; its time in nanoseconds.
pub(crate) fn spawn(argv: &[String], stdout: Option<&str>) -> Result<u64, String> {
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).stdin(Stdio::null()).stderr(Stdio::null());
    let begin = Instant::now();
    let Some(expected) = stdout else {
        let status = command.stdout(Stdio::null()).status().map_err(|e| format!("{}: {e}", argv[0]))?;
        let took = begin.elapsed().as_nanos() as u64;
        return if status.success() { Ok(took) } else { Err(diagnose(argv, &status.to_string())) };
    };
    let output = command.stdout(Stdio::piped()).output().map_err(|e| format!("{}: {e}", argv[0]))?;
    let took = begin.elapsed().as_nanos() as u64;
    if !output.status.success() {
        return Err(diagnose(argv, &output.status.to_string()));
    }
    if output.stdout != expected.as_bytes() {
        return Err(format!("{} printed {:?}", argv[0], String::from_utf8_lossy(&output.stdout)));
    }
    Ok(took)
}

/// Runs the failed command once more, for what it says.
fn diagnose(argv: &[String], status: &str) -> String {
    let said = Command::new(&argv[0]).args(&argv[1..]).stdin(Stdio::null()).output();
    let said =
        said.map_or_else(|e| e.to_string(), |output| String::from_utf8_lossy(&output.stderr).into_owned());
    format!("{} ended with {status}: {}", argv[0], said.trim())
}

/// A running helper. Ends with its handle.
pub(crate) struct Helper {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Helper {
    /// Starts this program again as a helper.
    pub(crate) fn start() -> Result<Self, BenchError> {
        let program = Path::new("/proc/self/exe");
        let mut child = Command::new(program)
            .arg("helper")
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(BenchError::io(program))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(BenchError::Helper("no pipes".to_owned()));
        };
        Ok(Self { child, input: Some(input), output: BufReader::new(output) })
    }

    /// Has an order carried out and returns how long it took, in nanoseconds.
    pub(crate) fn carry_out(&mut self, variant: &str, order: &Order) -> Result<u64, BenchError> {
        let lost = |error: std::io::Error| BenchError::Helper(error.to_string());
        let line = serde_json::to_string(order).map_err(|e| BenchError::Helper(e.to_string()))?;
        let Some(input) = &mut self.input else { return Err(BenchError::Helper("stopped".to_owned())) };
        writeln!(input, "{line}").map_err(lost)?;
        let mut reply = String::new();
        self.output.read_line(&mut reply).map_err(lost)?;
        match serde_json::from_str(&reply) {
            Ok(Reply::TookNs(ns)) => Ok(ns),
            Ok(Reply::Failed(reason)) => Err(BenchError::Variant { variant: variant.to_owned(), reason }),
            Err(error) => Err(BenchError::Helper(format!("{error} in {reply:?}"))),
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.input.take());
        if let Err(error) = self.child.wait() {
            eprintln!("faas-bench: helper process: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::unpack;
    use crate::tree::Tree;

    #[test]
    fn what_was_unpacked_is_compared_and_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let (dir, root) = (scratch.path().join("run"), scratch.path().join("run/root"));
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let root_text = root.to_string_lossy().into_owned();
        let steps = [words(&["mkdir", &root_text]), words(&["mkdir", &format!("{root_text}/made")])];
        let wanted = scratch.path().join("wanted");
        std::fs::create_dir_all(wanted.join("made")).unwrap();
        let tree = Tree::of(&wanted).unwrap();
        assert!(unpack(&dir, &steps, &root, &tree).unwrap() > 0);
        assert!(!dir.exists());
        let reason = unpack(&dir, &steps[..1], &root, &tree).unwrap_err();
        assert!(reason.contains("entries: 0"), "{reason}");
        assert!(!dir.exists());
    }
}
