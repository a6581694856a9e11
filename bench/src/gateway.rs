//! The server under measurement: started on a free port with a data directory of its own, stopped at the end.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::BenchError;

/// How long the server may take to end after SIGTERM before that is an error.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// A running server. Killed when dropped without [`Gateway::stop`].
pub(crate) struct Gateway {
    child: Child,
    log: PathBuf,
    pub(crate) address: SocketAddr,
    pub(crate) data_dir: PathBuf,
}

impl Gateway {
    /// Starts `server` and waits for the line with its address.
    pub(crate) fn start(server: &Path, scratch: &Path) -> Result<Self, BenchError> {
        Self::start_with(server, scratch, &[])
    }

    /// The same with further arguments.
    pub(crate) fn start_with(server: &Path, scratch: &Path, arguments: &[&str]) -> Result<Self, BenchError> {
        let data_dir = scratch.join("data");
        std::fs::create_dir_all(&data_dir).map_err(BenchError::io(&data_dir))?;
        let log = scratch.join("server.log");
        let stderr = File::create(&log).map_err(BenchError::io(&log))?;
        let mut child = Command::new(server)
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&data_dir)
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(BenchError::io(server))?;
        let mut line = String::new();
        let read = child.stdout.take().map(|stdout| BufReader::new(stdout).read_line(&mut line));
        let address = line.trim().strip_prefix("listening on http://").and_then(|text| text.parse().ok());
        let (Some(Ok(_)), Some(address)) = (read, address) else {
            let said = std::fs::read_to_string(&log).unwrap_or_else(|error| error.to_string());
            let ended = child.kill().and_then(|()| child.wait());
            return Err(BenchError::Server(format!("it printed {line:?} and ended with {ended:?}\n{said}")));
        };
        Ok(Self { child, log, address, data_dir })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to its log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_else(|error| error.to_string())
    }

    /// Stops it with SIGTERM. An error when it does not end in time or not with 0.
    pub(crate) fn stop(mut self) -> Result<(), BenchError> {
        // SAFETY: the pid of a child that was not waited for yet.
        unsafe { libc::kill(self.pid() as libc::pid_t, libc::SIGTERM) };
        let begin = Instant::now();
        while begin.elapsed() < STOP_WITHIN {
            if let Some(status) = self.child.try_wait().map_err(BenchError::io("server"))? {
                if status.success() {
                    return Ok(());
                }
                return Err(BenchError::Server(format!("it ended with {status}\n{}", self.log())));
            }
            crate::schedule::sleep(Duration::from_millis(10));
        }
        Err(BenchError::Server(format!("it did not end within {STOP_WITHIN:?}\n{}", self.log())))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let ended = self.child.kill().and_then(|()| self.child.wait());
            if let Err(error) = ended {
                eprintln!("faas-bench: server: {error}");
            }
        }
    }
}
