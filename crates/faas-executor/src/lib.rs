//! The sandbox library: makes sandboxes on several backends and runs programs in them. It knows no HTTP.
//!
//! [`Engine`] is what a caller uses; [`sandbox::SandboxExecutor`] is the seam behind which the backends stand;
//! everything that happens inside a sandbox goes through [`guest`], the same on every backend.

#[cfg(not(any(feature = "docker", all(target_os = "linux", feature = "native"))))]
compile_error!("a build needs a backend: the feature `docker`, or on Linux `native`");

mod agent_binary;
mod data_dir;
#[cfg(feature = "docker")]
pub mod docker;
pub mod engine;
pub mod error;
mod file_error;
pub mod guest;
#[cfg(all(target_os = "linux", feature = "native"))]
pub mod images;
#[cfg(all(target_os = "linux", feature = "native"))]
pub mod native;
mod output_log;
pub mod platform;
mod registry_auth;
pub mod sandbox;
pub mod state;
pub mod store;

pub use agent_binary::{agent_binary, agent_digest};
pub use data_dir::DataDir;
pub use engine::events::{EventPage, Events, EventsError};
pub use engine::instances::{
    CommandDefaults, ExecSpec, ExecutionEnd, ExecutionInfo, ExecutionOutput, ExecutionPage, ExecutionView,
    FileCall, FileWork, HowEnded, InstanceInfo, InstancePage, Instances, LastingSpec, LimitChange, LogEntry,
    LogFollower, LogItem, MainRun, MainSpec, MayHaveBegun, NewInstance, OutputEvent, Removal, TimeChange,
    Times,
};
pub use engine::{
    Engine, EngineConfig, EventRetention, ExecuteSpec, ExecutionOutcome, InputFile, LiveOutput, PullPolicy,
};
pub use error::{EngineError, StartError};
pub use file_error::FileError;
pub use output_log::OutputBudget;
