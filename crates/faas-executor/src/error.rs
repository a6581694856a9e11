//! What the engine answers when it cannot do what was asked.

use faas_guest_protocol::{AgentError, AgentErrorKind};
use faas_types::ErrorCode;

use crate::engine::ExecutionOutcome;
use crate::sandbox::SandboxError;

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
    #[error("no runtime can do this: {reasons}")]
    NoRuntime {
        /// Each runtime with its reason.
        reasons: String,
    },
    /// More executions wait than the engine keeps in its queue.
    #[error("{waiting} executions are waiting already")]
    Overloaded {
        /// How many wait.
        waiting: usize,
    },
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
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Sandbox(error) => match error {
                SandboxError::Unsupported(_) => ErrorCode::Unsupported,
                SandboxError::RuntimeUnavailable { .. } => ErrorCode::RuntimeUnavailable,
                SandboxError::ImageUnavailable { .. } => ErrorCode::ImageUnavailable,
                SandboxError::Exhausted { .. } => ErrorCode::Overloaded,
                SandboxError::NoSpace { .. } => ErrorCode::InsufficientStorage,
                SandboxError::Lost { .. } => ErrorCode::SandboxLost,
                SandboxError::Create { .. } | SandboxError::Io { .. } => ErrorCode::Internal,
            },
            Self::Agent(error) => match error.kind {
                AgentErrorKind::WorkingDir
                | AgentErrorKind::User
                | AgentErrorKind::File
                | AgentErrorKind::TooLarge
                | AgentErrorKind::Limit => ErrorCode::InvalidRequest,
                AgentErrorKind::BadRequest | AgentErrorKind::Internal => ErrorCode::Internal,
            },
            Self::NoRuntime { .. } => ErrorCode::RuntimeUnavailable,
            Self::Overloaded { .. } | Self::ShuttingDown => ErrorCode::Overloaded,
            Self::Timeout { .. } => ErrorCode::ExecutionTimeout,
        }
    }
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
    /// A backend that was asked for by configuration cannot start.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}
