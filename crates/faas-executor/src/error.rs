//! What the engine answers when it cannot do what was asked.

use faas_guest_protocol::{AgentError, AgentErrorKind};
use faas_types::{ErrorCode, Runtime};

use crate::engine::ExecutionOutcome;
#[cfg(all(target_os = "linux", feature = "native"))]
use crate::images::{ImageError, ImageErrorKind};
use crate::sandbox::SandboxError;
use crate::store::StoreError;

/// Why an execution gave no result.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The backend refused or failed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The guest agent could not start the program.
    #[error("cannot start the command: {0}")]
    Agent(#[from] AgentError),
    /// No runtime can do what was asked; one sentence for each says what is missing.
    #[error("no runtime can do this: {}", join(refusals))]
    NoRuntime {
        /// Each runtime with its refusal.
        refusals: Vec<(Runtime, SandboxError)>,
    },
    /// More executions wait than the engine keeps in its queue.
    #[error("{waiting} executions are waiting already")]
    Overloaded {
        /// How many wait.
        waiting: usize,
    },
    /// There is no such thing, or it is another tenant's.
    #[error("{what} is not there")]
    NotFound {
        /// What, with its id.
        what: String,
    },
    /// The state of the instance does not allow it.
    #[error(transparent)]
    Illegal(#[from] crate::state::Illegal),
    /// The state of an execution does not allow it.
    #[error("{reason}")]
    Conflict {
        /// Why not.
        reason: String,
    },
    /// An execution that somebody waits for ends with that: nobody else writes to it or reads of it.
    #[error(
        "this execution ends with the request that waits for it; one with `background` or `keep_running` can be written to, \
         signalled and read from by others"
    )]
    NotLasting,
    /// There are as many executions in the instance as there may be.
    #[error("{most} lasting executions run in the instance already, as many as there may be in one")]
    TooManyExecutions {
        /// How many there may be.
        most: usize,
    },
    /// The output at an offset is not held any more.
    #[error("that output is not held any more; what is begins at offset {first}")]
    OutputGone {
        /// Where what is held begins.
        first: u64,
    },
    /// An offset lies behind the end of the output.
    #[error("the output ends at offset {next}")]
    OutputBeyond {
        /// The offset after its last byte.
        next: u64,
    },
    /// The output that is kept cannot be read or written.
    #[error("the output that is kept: {0}")]
    Output(#[from] std::io::Error),
    /// The image has no entrypoint and no command.
    #[error("the image has no main command, and none was given")]
    NoMainCommand,
    /// There are as many instances as there may be.
    #[error("there are {most} instances already, as many as there may be here (the option max_instances)")]
    TooManyInstances {
        /// How many there may be.
        most: usize,
    },
    /// The store did not do what it was asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file cannot be had, or not be put where it was to go.
    #[error(transparent)]
    File(#[from] crate::file_error::FileError),
    /// The engine is shutting down.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The command was still running at its timeout.
    #[error("the command was still running after {} ms and was killed", outcome.timeout_ms)]
    Timeout {
        /// What it had done until then.
        outcome: Box<ExecutionOutcome>,
    },
}

impl EngineError {
    /// The code of the public contract for this error.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Sandbox(error) => code_of(error),
            Self::Agent(error) => match error.kind {
                AgentErrorKind::WorkingDir
                | AgentErrorKind::User
                | AgentErrorKind::File
                | AgentErrorKind::TooLarge
                | AgentErrorKind::Limit => ErrorCode::InvalidRequest,
                // The last four are of lasting executions, which answer for them by themselves.
                AgentErrorKind::BadRequest
                | AgentErrorKind::Internal
                | AgentErrorKind::NoExecution
                | AgentErrorKind::StillRunning
                | AgentErrorKind::Ended
                | AgentErrorKind::Offset => ErrorCode::Internal,
            },
            // A runtime that is there and refuses says more than one that is not there.
            Self::NoRuntime { refusals } => refusals
                .iter()
                .map(|(_, refusal)| code_of(refusal))
                .find(|code| *code != ErrorCode::RuntimeUnavailable)
                .unwrap_or(ErrorCode::RuntimeUnavailable),
            Self::Overloaded { .. } | Self::ShuttingDown => ErrorCode::Overloaded,
            Self::NotFound { .. } => ErrorCode::NotFound,
            Self::Illegal(_) | Self::Conflict { .. } | Self::NotLasting => ErrorCode::Conflict,
            Self::TooManyInstances { .. } | Self::TooManyExecutions { .. } => ErrorCode::QuotaExceeded,
            Self::OutputGone { .. } => ErrorCode::Gone,
            Self::OutputBeyond { .. } => ErrorCode::RangeNotSatisfiable,
            Self::Output(_) => ErrorCode::Internal,
            Self::NoMainCommand => ErrorCode::InvalidRequest,
            Self::Store(error) => code_of_store(error),
            Self::File(error) => error.code(),
            Self::Timeout { .. } => ErrorCode::ExecutionTimeout,
        }
    }
}

const fn code_of_store(error: &StoreError) -> ErrorCode {
    match error {
        StoreError::Unreachable { .. } => ErrorCode::Overloaded,
        StoreError::Full { .. } => ErrorCode::InsufficientStorage,
        StoreError::NameTaken { .. } | StoreError::Exists { .. } | StoreError::Stale => ErrorCode::Conflict,
        StoreError::Text => ErrorCode::InvalidRequest,
        StoreError::NoInstance => ErrorCode::NotFound,
        StoreError::TooNew { .. }
        | StoreError::Foreign { .. }
        | StoreError::Schema(_)
        | StoreError::Row { .. }
        | StoreError::Url(_)
        | StoreError::File { .. }
        | StoreError::Database(_) => ErrorCode::Internal,
    }
}

const fn code_of(error: &SandboxError) -> ErrorCode {
    match error {
        SandboxError::Unsupported(_) => ErrorCode::Unsupported,
        SandboxError::RuntimeUnavailable { .. } => ErrorCode::RuntimeUnavailable,
        SandboxError::ImageUnavailable { .. } => ErrorCode::ImageUnavailable,
        #[cfg(all(target_os = "linux", feature = "native"))]
        SandboxError::Image(error) => code_of_image(error),
        SandboxError::Exhausted { .. } => ErrorCode::Overloaded,
        SandboxError::NoSpace { .. } => ErrorCode::InsufficientStorage,
        SandboxError::Lost { .. } => ErrorCode::SandboxLost,
        SandboxError::Create { .. } | SandboxError::Io { .. } => ErrorCode::Internal,
    }
}

/// The code of the public contract for an error of the image store.
#[cfg(all(target_os = "linux", feature = "native"))]
pub(crate) const fn code_of_image(error: &ImageError) -> ErrorCode {
    match error.kind() {
        ImageErrorKind::Invalid => ErrorCode::InvalidRequest,
        ImageErrorKind::NotFound | ImageErrorKind::Unavailable => ErrorCode::ImageUnavailable,
        ImageErrorKind::NoSpace => ErrorCode::InsufficientStorage,
        ImageErrorKind::InUse => ErrorCode::Conflict,
        ImageErrorKind::Internal => ErrorCode::Internal,
    }
}

fn join(refusals: &[(Runtime, SandboxError)]) -> String {
    let said = refusals.iter().map(|(runtime, refusal)| match refusal {
        // These name the runtime by themselves.
        SandboxError::Unsupported(unsupported) => unsupported.to_string(),
        SandboxError::RuntimeUnavailable { reason, .. } => format!("{runtime} is not available: {reason}"),
        other => format!("{runtime}: {other}"),
    });
    said.collect::<Vec<_>>().join("; ")
}

/// Why the engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another gateway uses the data directory.
    #[error("data directory {} is in use by another gateway", path.display())]
    InUse {
        /// The directory.
        path: std::path::PathBuf,
    },
    /// Something on the host could not be read or made.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path.
        path: std::path::PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The image store cannot be used.
    #[cfg(all(target_os = "linux", feature = "native"))]
    #[error(transparent)]
    Images(#[from] ImageError),
    /// The store cannot be opened.
    #[error("{place}: {source}")]
    Store {
        /// The file, or the option with its value less the password.
        place: String,
        /// Why.
        source: StoreError,
    },
    /// A backend that was asked for by configuration cannot start.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

#[cfg(test)]
mod tests {
    use faas_types::{ErrorCode, Runtime};

    use super::{EngineError, SandboxError};

    #[test]
    fn without_a_runtime_each_says_why_and_one_that_is_there_decides_the_code() {
        let absent = |runtime| {
            let reason = "no socket".to_owned();
            (runtime, SandboxError::RuntimeUnavailable { runtime, reason })
        };
        let image = SandboxError::ImageUnavailable { image: "x".into(), reason: "not here".into() };
        let both =
            EngineError::NoRuntime { refusals: vec![(Runtime::Native, image), absent(Runtime::Docker)] };
        assert_eq!(both.code(), ErrorCode::ImageUnavailable);
        let said = both.to_string();
        assert!(
            said.contains("native: image x") && said.contains("docker is not available: no socket"),
            "{said}"
        );
        let none = EngineError::NoRuntime { refusals: vec![absent(Runtime::Docker)] };
        assert_eq!(none.code(), ErrorCode::RuntimeUnavailable);
    }
}
