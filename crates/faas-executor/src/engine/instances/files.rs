//! Files of an instance: each operation is a program of the agent's own binary, run in the sandbox as whoever it is for.
//!
//! So names are resolved by the sandbox's kernel with that user's rights, and all limits hold. What the program says is
//! hostile all the same, since the sandbox's root can put words in its mouth: lines have a length, lists a number, and
//! content the length that was announced.

use std::sync::Arc;
use std::time::{Duration, Instant};

use faas_guest_protocol::Program;
use faas_guest_protocol::files::{
    FILE_VERB, FileFailure, FileReply, FileRequest, MAX_CHUNK_BYTES, NOT_KNOWN,
};
use faas_types::{ErrorCode, InstanceId, Runtime, TenantId};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Instances;
use super::create::deleted_meanwhile;
use super::exec::{awake_for, lost};
use super::live::{Frozen, InUse, Live};
use crate::engine::execute::{self, Call};
use crate::error::EngineError;
use crate::guest::{GuestError, RunningProgram};
use crate::sandbox::{SandboxError, Unsupported};
use crate::state::InstanceState;

/// The agent's binary as every sandbox has it.
const AGENT: &str = "/.faas/agent";

/// The longest line: of an entry with three paths, none of whose bytes is text.
const MAX_LINE_BYTES: usize = 64 << 10;

/// The longest message of a failure that is passed on.
const MAX_MESSAGE_CHARS: usize = 1024;

/// How long an answer may take while the instance is awake, once all content is sent: the removal of a large tree takes a
/// while, and a program that was stopped from inside says nothing ever.
const ANSWER_WITHIN: Duration = Duration::from_secs(600);

/// How long a program may take to clear up after content that was cut off, before it is killed.
const CLEAR_UP_WITHIN: Duration = Duration::from_secs(5);

/// Errors of Linux, which every sandbox runs on, whatever the gateway does (errno(3)).
mod errno {
    pub(super) const EPERM: i32 = 1;
    pub(super) const ENOENT: i32 = 2;
    pub(super) const EACCES: i32 = 13;
    pub(super) const EBUSY: i32 = 16;
    pub(super) const EEXIST: i32 = 17;
    pub(super) const ETXTBSY: i32 = 26;
    pub(super) const ENOSPC: i32 = 28;
    pub(super) const EROFS: i32 = 30;
    pub(super) const ERANGE: i32 = 34;
    pub(super) const ENOTEMPTY: i32 = 39;
    pub(super) const EDQUOT: i32 = 122;
}

/// What the sandbox's kernel would not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FileError {
    errno: i32,
    message: String,
    size: Option<u64>,
}

impl FileError {
    fn new(failure: FileFailure) -> Self {
        let FileFailure { errno, message, size } = failure;
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let message = message.chars().take(MAX_MESSAGE_CHARS).map(plain).collect();
        Self { errno, message, size: size.filter(|_| errno == errno::ERANGE) }
    }

    /// With a range outside of a file: how long that is.
    #[must_use]
    pub const fn size(&self) -> Option<u64> {
        self.size
    }

    /// The code of the public contract.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self.errno {
            errno::ENOENT => ErrorCode::NotFound,
            errno::EACCES | errno::EPERM | errno::EROFS => ErrorCode::Forbidden,
            errno::EEXIST | errno::ENOTEMPTY | errno::ETXTBSY | errno::EBUSY => ErrorCode::Conflict,
            errno::ENOSPC | errno::EDQUOT => ErrorCode::InsufficientStorage,
            errno::ERANGE if self.size.is_some() => ErrorCode::RangeNotSatisfiable,
            _ => ErrorCode::InvalidRequest,
        }
    }
}

/// Something to be done with files.
#[derive(Clone, Debug)]
pub struct FileCall {
    /// What. Its paths are not empty and without NUL.
    pub request: FileRequest,
    /// As whom, or as the instance's user.
    pub user: Option<String>,
}

/// An operation that is under way. Dropping it ends it: its program is killed. Content that was cut off by that is
/// cleared up first.
#[derive(Debug)]
pub struct FileWork {
    live: Arc<Live>,
    _in_use: InUse,
    runtime: Runtime,
    memory_mb: u64,
    program: Option<RunningProgram>,
    /// Whether it would leave something behind if it were killed now.
    untidy: bool,
    /// What it has said and nobody has taken.
    said: Vec<u8>,
    /// Whether it has said anything.
    spoke: bool,
    frozen: watch::Receiver<Frozen>,
    closed: CancellationToken,
    background: TaskTracker,
}

impl Instances {
    /// Begins an operation on the files of an instance.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn begin_file(
        &self,
        tenant: &TenantId,
        id: &InstanceId,
        call: FileCall,
    ) -> Result<FileWork, EngineError> {
        let live = self.live(tenant, id)?;
        let in_use = live.use_it();
        self.wake(&live).await?;
        let info = live.info();
        let memory_mb = info.limits.memory_bytes >> 20;
        let backend = self.backend(info.runtime)?;
        let json = serde_json::to_string(&call.request).map_err(|_| execute::too_large())?;
        let is_absolute = call.request.path().0.starts_with(b"/");
        let order = Call {
            program: Program::Argv(vec![AGENT.to_owned(), FILE_VERB.to_owned(), json]),
            env: Vec::new(),
            // Only what is relative to it needs it to be there.
            working_dir: if is_absolute { Some("/".to_owned()) } else { info.defaults.working_dir },
            user: call.user.or(info.defaults.user),
            stdin: None,
            files: Vec::new(),
            timeout: Duration::ZERO,
            max_output_bytes: u64::MAX,
            held: None,
        };
        let program = {
            let place = live.place.read().await;
            let Some(sandbox) = &place.sandbox else {
                drop(place);
                return Err(lost(&live, "its sandbox is gone", false, memory_mb).await);
            };
            let stream = tokio::select! {
                reached = backend.connect(sandbox) => reached?,
                // Whoever removes it waits for the place.
                () = live.doomed.cancelled() => return Err(deleted_meanwhile()),
            };
            let mut order = order.for_image(&sandbox.image).request;
            order.timeout_ms = None;
            order.stdin = call.request.takes_content();
            RunningProgram::start(stream, &order).map_err(|_| execute::too_large())?
        };
        let mut work = FileWork {
            frozen: live.frozen.subscribe(),
            live,
            _in_use: in_use,
            runtime: info.runtime,
            memory_mb,
            program: Some(program),
            untidy: call.request.takes_content(),
            said: Vec::new(),
            spoke: false,
            closed: self.inner.closed.clone(),
            background: self.inner.background.clone(),
        };
        let begun = work.running()?.input.flush().await;
        match begun {
            // Why it ended is told by what it says.
            Ok(()) | Err(_) => Ok(work),
        }
    }
}

/// What became of content on its way.
enum Sent {
    All,
    /// Its source failed.
    Cut,
    /// The program, or its sandbox, is gone.
    Unwanted,
}

impl FileWork {
    fn running(&mut self) -> Result<&mut RunningProgram, EngineError> {
        self.program.as_mut().ok_or(EngineError::ShuttingDown)
    }

    /// Its answer, the first line of what it says.
    ///
    /// # Errors
    /// [`EngineError::File`] where it is refused by the sandbox's kernel; any other.
    pub async fn answer<T: DeserializeOwned>(&mut self) -> Result<T, EngineError> {
        let (mut frozen, started) = (self.frozen.clone(), Instant::now());
        let line = tokio::select! {
            biased;
            line = self.line() => line?,
            () = awake_for(&mut frozen, started, ANSWER_WITHIN) => return Err(silent()),
        };
        self.untidy = false;
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
        let send = async {
            let mut chunk = vec![0u8; size_of::<u32>() + MAX_CHUNK_BYTES];
            loop {
                let (length, bytes) = chunk.split_at_mut(size_of::<u32>());
                let Ok(read) = content.read(bytes).await else { return Sent::Cut };
                length.copy_from_slice(&u32::try_from(read).unwrap_or(0).to_le_bytes());
                let sent = input.write(&chunk[..size_of::<u32>() + read]).await;
                let sent = if read == 0 && sent.is_ok() { input.end().await } else { sent };
                if sent.is_err() {
                    return Sent::Unwanted;
                }
                if read == 0 {
                    return Sent::All;
                }
            }
        };
        let (early, sent) = tokio::select! {
            biased;
            said = output.next() => (Some(said), Sent::All),
            sent = send => (None, sent),
            () = self.closed.cancelled() => return Err(EngineError::ShuttingDown),
        };
        match early {
            Some(Ok(Some(bytes))) => {
                self.spoke = true;
                self.said = bytes;
            }
            Some(Ok(None)) | None => {}
            Some(Err(error)) => return Err(self.fault(error).await),
        }
        match sent {
            Sent::Cut => Ok(None),
            Sent::All | Sent::Unwanted => self.answer().await.map(Some),
        }
    }

    /// The next line after its answer; none after the last.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn line(&mut self) -> Result<Option<Vec<u8>>, EngineError> {
        let mut looked_at = 0;
        loop {
            if let Some(end) = self.said[looked_at..].iter().position(|byte| *byte == b'\n') {
                let rest = self.said.split_off(looked_at + end + 1);
                let mut line = std::mem::replace(&mut self.said, rest);
                line.truncate(looked_at + end);
                return Ok(Some(line));
            }
            looked_at = self.said.len();
            if looked_at > MAX_LINE_BYTES {
                return Err(self.broken("it says more than anybody asked for").await);
            }
            match self.next().await? {
                Some(bytes) => self.said.extend_from_slice(&bytes),
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
        Ok(Some(std::mem::take(&mut self.said)))
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

impl Drop for FileWork {
    fn drop(&mut self) {
        let Some(program) = self.program.take().filter(|_| self.untidy) else { return };
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        // Content without its end is what a program clears up after.
        self.background.spawn(tokio::time::timeout(CLEAR_UP_WITHIN, async move {
            let RunningProgram { mut input, mut output } = program;
            if input.end().await.is_ok() {
                while let Ok(Some(_)) = output.next().await {}
            }
        }));
    }
}

fn silent() -> EngineError {
    let reason = format!("the program for files said nothing for {} s", ANSWER_WITHIN.as_secs());
    SandboxError::Lost { reason }.into()
}

#[cfg(test)]
mod tests {
    use faas_guest_protocol::files::FileFailure;
    use faas_types::ErrorCode;

    use super::FileError;

    #[test]
    fn what_the_kernel_says_has_a_code() {
        let code = |errno, size| FileError::new(FileFailure { errno, message: String::new(), size }).code();
        for (errno, expected) in [
            (2, ErrorCode::NotFound),
            (1, ErrorCode::Forbidden),
            (13, ErrorCode::Forbidden),
            (30, ErrorCode::Forbidden),
            (16, ErrorCode::Conflict),
            (17, ErrorCode::Conflict),
            (26, ErrorCode::Conflict),
            (39, ErrorCode::Conflict),
            (28, ErrorCode::InsufficientStorage),
            (122, ErrorCode::InsufficientStorage),
            (20, ErrorCode::InvalidRequest),
            (21, ErrorCode::InvalidRequest),
            (34, ErrorCode::InvalidRequest),
            (-1, ErrorCode::InvalidRequest),
        ] {
            assert_eq!(code(errno, None), expected, "{errno}");
        }
        assert_eq!(code(34, Some(7)), ErrorCode::RangeNotSatisfiable);
        assert_eq!(code(2, Some(7)), ErrorCode::NotFound);
    }

    #[test]
    fn a_message_is_one_short_line() {
        let message = "x\n\u{1b}[31m".to_owned() + &"y".repeat(5000);
        let error = FileError::new(FileFailure { errno: 2, message, size: Some(1) });
        let said = error.to_string();
        assert!(said.len() <= super::MAX_MESSAGE_CHARS && !said.contains(char::is_control), "{said}");
        assert_eq!(error.size(), None);
    }
}
