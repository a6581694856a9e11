//! Words that cross the HTTP boundary: ids, enums, request and response bodies, error codes.
//!
//! Data only: serde and utoipa derive everything here. No validation that needs a host, no I/O, no HTTP status
//! (the gateway maps [`ErrorCode`] to one). Field names are the contract of `docs/api.md`: adding a field is
//! allowed, renaming one is not.
#![forbid(unsafe_code)]

mod capability;
mod error;
mod event;
mod execute;
mod execution;
mod file;
mod ids;
mod image;
mod instance;
mod server;

pub use capability::{Capabilities, LimitSupport, LimitsSupport, RuntimeCapabilities};
pub use error::{ErrorCode, Failure, FieldError, Problem};
pub use event::{EventMessage, EventsEnd, LifecycleEvent};
pub use execute::{
    CommandLine, EnvVars, ExecuteEvent, ExecuteRequest, ExecuteResponse, ExecutionExit, ExecutionStarted,
    InputFile, Network, OutputGap, OutputPiece, Runtime, RuntimeChoice, Timings, Usage,
};
pub use execution::{
    Execution, ExecutionKind, ExecutionStatus, MainCommand, PtyCommand, PtyEvent, PtyStarted, RestartPolicy,
    Signal, SignalRequest, TerminalSize,
};
pub use file::{FileChange, FileEvent, FileInfo, FileLook, FilePlaced, FileType, Unpacked};
pub use ids::{ExecutionId, GatewayId, InstanceId, RequestId, SandboxId, SnapshotId, TenantId};
pub use image::{ImageEvent, ImageInfo, ImageProgress, ImagesAdded, PullRequest};
pub use instance::{
    CreateInstanceRequest, ExecRequest, Instance, InstanceMetrics, InstanceStatus, LogEntry, LogEvent,
    LogItem, LogOutput, OnTimeout, Resources, StopRequest, TimeoutRequest, UpdateInstanceRequest,
};
pub use server::{Health, HealthStatus, LeakInfo, RuntimeHealth, StoreHealth, VersionInfo};
