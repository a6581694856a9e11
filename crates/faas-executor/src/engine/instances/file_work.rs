//! An operation on files that is under way: what its program is given, and what it says.
//!
//! That is hostile, since the sandbox's root can put words in its mouth: lines have a length, lists a number, and content
//! the length that was announced.

use std::sync::Arc;
use std::time::{Duration, Instant};

use faas_guest_protocol::files::{FileReply, FileRequest, MAX_CHUNK_BYTES, NOT_KNOWN};
use faas_types::Runtime;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::exec::{awake_for, lost};
use super::live::{Frozen, InUse, Live};
use crate::error::EngineError;
use crate::file_error::FileError;
use crate::guest::{GuestError, Lines, RunningProgram, TooLong};
use crate::sandbox::{SandboxError, Unsupported};
use crate::state::InstanceState;

/// How long an answer may take while the instance is awake, once all content is sent: the removal of a large tree takes a
/// while, and a program that was stopped from inside says nothing ever.
const ANSWER_WITHIN: Duration = Duration::from_secs(600);

/// How long a program may take to clear up after content that was cut off, before it is killed.
const CLEAR_UP_WITHIN: Duration = Duration::from_secs(5);

/// How long the program of a request may go on when nobody waits for it any more, this server included: half of a move
/// would be worse than all of it, and content that was cut off is cleared up after. Others are killed at once.
pub(super) fn finishes_within(request: &FileRequest) -> Option<Duration> {
    match request {
        FileRequest::Move { .. } => Some(ANSWER_WITHIN),
        _ if request.takes_content() => Some(CLEAR_UP_WITHIN),
        _ => None,
    }
}

/// An operation that is under way. Dropping it ends the connection, and with that the program, as [`finishes_within`] says.
#[derive(Debug)]
pub struct FileWork {
    pub(super) live: Arc<Live>,
    pub(super) _in_use: InUse,
    pub(super) runtime: Runtime,
    pub(super) memory_mb: u64,
    pub(super) program: Option<RunningProgram>,
    /// What it has said and nobody has taken.
    pub(super) said: Lines,
    /// Whether it has said anything.
    pub(super) spoke: bool,
    pub(super) frozen: watch::Receiver<Frozen>,
    pub(super) closed: CancellationToken,
}

/// What became of content on its way.
enum Sent {
    All,
    /// Its source failed.
    Cut,
    /// The program, or its sandbox, is gone.
    Unwanted,
    /// The program has taken nothing for long.
    Silent,
}

impl FileWork {
    /// Its answer, the first line of what it says.
    ///
    /// # Errors
    /// [`EngineError::File`] where it is refused by the sandbox's kernel; any other.
    pub async fn answer<T: DeserializeOwned>(&mut self) -> Result<T, EngineError> {
        let (mut frozen, started) = (self.frozen.clone(), Instant::now());
        let line = tokio::select! {
            biased;
            // First: a flood of frames leaves what comes after it no turn.
            () = awake_for(&mut frozen, started, ANSWER_WITHIN) => return Err(silent()),
            line = self.line() => line?,
        };
        let Some(line) = line else { return Err(self.broken("it ended without an answer").await) };
        match serde_json::from_slice::<FileReply<T>>(&line) {
            Ok(FileReply::Ok(answer)) => Ok(answer),
            Ok(FileReply::Error(failure)) => Err(EngineError::File(FileError::new(failure))),
            Err(_) => Err(self.broken("its answer cannot be read").await),
        }
    }

    /// Gives it its content, and waits for its answer. None: `content` failed before its end, and nothing has come of it
    /// but what was unpacked until then. An answer may come before all content is read.
    ///
    /// # Errors
    /// As [`FileWork::answer`].
    pub async fn feed<T: DeserializeOwned>(
        &mut self,
        content: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<Option<T>, EngineError> {
        let Some(RunningProgram { input, output }) = &mut self.program else {
            return Err(EngineError::ShuttingDown);
        };
        let mut frozen = self.frozen.clone();
        let send = async {
            let mut chunk = vec![0u8; size_of::<u32>() + MAX_CHUNK_BYTES];
            loop {
                let (length, bytes) = chunk.split_at_mut(size_of::<u32>());
                let Ok(read) = content.read(bytes).await else { return Sent::Cut };
                length.copy_from_slice(&u32::try_from(read).unwrap_or(0).to_le_bytes());
                let write = async {
                    let sent = input.write(&chunk[..size_of::<u32>() + read]).await;
                    if read == 0 && sent.is_ok() { input.end().await } else { sent }
                };
                let sent = tokio::select! {
                    sent = write => sent,
                    () = awake_for(&mut frozen, Instant::now(), ANSWER_WITHIN) => return Sent::Silent,
                };
                if sent.is_err() {
                    return Sent::Unwanted;
                }
                if read == 0 {
                    return Sent::All;
                }
            }
        };
        let (early, sent) = tokio::select! {
            said = output.next() => (Some(said), Sent::All),
            sent = send => (None, sent),
            () = self.closed.cancelled() => return Err(EngineError::ShuttingDown),
        };
        match early {
            Some(Ok(Some(bytes))) => {
                self.spoke = true;
                self.said.push(&bytes);
            }
            Some(Ok(None)) | None => {}
            Some(Err(error)) => return Err(self.fault(error).await),
        }
        match sent {
            Sent::Cut => Ok(None),
            Sent::Silent => Err(silent()),
            Sent::All | Sent::Unwanted => self.answer().await.map(Some),
        }
    }

    /// The next line after its answer; none after the last.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn line(&mut self) -> Result<Option<Vec<u8>>, EngineError> {
        loop {
            match self.said.next_line() {
                Ok(Some(line)) => return Ok(Some(line)),
                Ok(None) => {}
                Err(TooLong) => return Err(self.broken("it says more than anybody asked for").await),
            }
            match self.next().await? {
                Some(bytes) => self.said.push(&bytes),
                None if self.said.is_empty() => return Ok(None),
                None => return Err(self.broken("it ended in the middle of something").await),
            }
        }
    }

    /// The next line as what it says; none after the last.
    ///
    /// # Errors
    /// [`EngineError`], also where `may_come` is false and there is one.
    pub async fn entry<T: DeserializeOwned>(&mut self, may_come: bool) -> Result<Option<T>, EngineError> {
        let Some(line) = self.line().await? else { return Ok(None) };
        if !may_come {
            return Err(self.broken("it says more than anybody asked for").await);
        }
        match serde_json::from_slice(&line) {
            Ok(entry) => Ok(Some(entry)),
            Err(_) => Err(self.broken("what it says cannot be read").await),
        }
    }

    /// The next bytes after its answer; none after the last.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn piece(&mut self) -> Result<Option<Vec<u8>>, EngineError> {
        if self.said.is_empty() {
            return self.next().await;
        }
        Ok(Some(self.said.take()))
    }

    /// What it says next; none when it has ended and all is well.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, EngineError> {
        let Some(program) = &mut self.program else { return Err(EngineError::ShuttingDown) };
        let said = tokio::select! {
            biased;
            said = program.output.next() => said,
            () = self.closed.cancelled() => return Err(EngineError::ShuttingDown),
        };
        match said {
            Ok(Some(bytes)) => {
                self.spoke = true;
                Ok(Some(bytes))
            }
            Ok(None) if self.ended_well() => Ok(None),
            Ok(None) => Err(self.ended_badly().await),
            Err(error) => Err(self.fault(error).await),
        }
    }

    fn ended_well(&self) -> bool {
        let exit = self.program.as_ref().and_then(|program| program.output.exit());
        exit.is_some_and(|exit| exit.code == Some(0))
    }

    async fn ended_badly(&self) -> EngineError {
        let Some(exit) = self.program.as_ref().and_then(|program| program.output.exit().cloned()) else {
            return EngineError::ShuttingDown;
        };
        let stderr = self.program.as_ref().map(|program| program.output.stderr()).unwrap_or_default();
        tracing::debug!(instance = %self.live.info().id, ?exit, stderr, "a program for files ended");
        match (exit.code, exit.signal) {
            (Some(NOT_KNOWN), _) if !self.spoke => {
                let reason =
                    "the instance was made by an earlier version of the server, whose agent has none";
                let (runtime, operation) = (self.runtime, "files".to_owned());
                SandboxError::from(Unsupported { runtime, operation, reason: reason.to_owned() }).into()
            }
            (_, Some(signal)) => self.broken(format!("it was ended by signal {signal}")).await,
            (code, None) => {
                self.broken(format!("it ended with the exit code {}", code.unwrap_or_default())).await
            }
        }
    }

    async fn fault(&self, error: GuestError) -> EngineError {
        match error {
            GuestError::Agent(error) => EngineError::Agent(error),
            error => lost(&self.live, error, false, self.memory_mb).await,
        }
    }

    /// The sandbox has not done what was asked.
    async fn broken(&self, why: impl std::fmt::Display) -> EngineError {
        if self.live.info().state != InstanceState::Running {
            return lost(&self.live, why, false, self.memory_mb).await;
        }
        SandboxError::Lost { reason: format!("the program for files did not come to its end: {why}") }.into()
    }
}

fn silent() -> EngineError {
    let reason = format!("the program for files said nothing for {} s", ANSWER_WITHIN.as_secs());
    SandboxError::Lost { reason }.into()
}
