//! What a lasting container is found by again. No I/O but the kernel's boot id.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::refuse::unsupported;
use crate::sandbox::{ImageDefaults, SandboxError, SandboxRecord};

/// One run of a container: from a start of its first process until that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    /// The container's id.
    pub(super) container: String,
    /// When the engine started it, in the engine's words: another start is another run.
    pub(super) started_at: String,
}

/// A lasting container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(flatten)]
    pub(super) run: Run,
    /// Which engine has it ([`super::facts::Facts::identity`]).
    pub(super) engine: String,
    /// The engine's process at the start, where that is known ([`super::transport::engine_process`]).
    pub(super) engine_process: Option<String>,
    /// The boot of the host at the start.
    pub(super) boot_id: String,
    /// The digest of the guest agent that is mounted into it.
    pub(super) agent: String,
    /// The id of its image, and what that says of programs: the name may be another image's by now.
    pub(super) image: String,
    env: Vec<(String, String)>,
    working_dir: Option<String>,
    user: Option<String>,
    #[serde(default)]
    entrypoint: Vec<String>,
    #[serde(default)]
    cmd: Vec<String>,
}

impl Record {
    pub(super) fn new(
        run: Run,
        engine: (String, Option<String>),
        boot_id: String,
        agent: String,
        image: (String, &ImageDefaults),
    ) -> Self {
        let (image, defaults) = image;
        Self {
            run,
            engine: engine.0,
            engine_process: engine.1,
            boot_id,
            agent,
            image,
            env: defaults.env.clone(),
            working_dir: defaults.working_dir.clone(),
            user: defaults.user.clone(),
            entrypoint: defaults.entrypoint.clone(),
            cmd: defaults.cmd.clone(),
        }
    }

    /// What its image says of programs.
    pub(super) fn defaults(&self) -> ImageDefaults {
        ImageDefaults {
            env: self.env.clone(),
            working_dir: self.working_dir.clone(),
            user: self.user.clone(),
            entrypoint: self.entrypoint.clone(),
            cmd: self.cmd.clone(),
        }
    }

    /// As its caller keeps it.
    pub(super) fn to_seam(&self) -> Result<SandboxRecord, SandboxError> {
        let value = serde_json::to_value(self);
        let value = value.map_err(|error| unsupported("the record of a container", error.to_string()))?;
        Ok(SandboxRecord(value))
    }

    /// From what its caller kept.
    pub(super) fn of_seam(record: &SandboxRecord) -> Result<Self, SandboxError> {
        serde_json::from_value(record.0.clone()).map_err(|error| {
            let reason = format!("it is none of this version's: {error}");
            unsupported("the record of a container", reason)
        })
    }
}

/// Where the kernel says which boot this is (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The boot of this host.
pub(super) fn boot_id() -> Result<String, SandboxError> {
    let read = std::fs::read_to_string(BOOT_ID);
    let text = read.map_err(|source| SandboxError::Io { path: PathBuf::from(BOOT_ID), source })?;
    Ok(text.trim().to_owned())
}

/// The digest that an agent's directory is named for.
pub(super) fn agent_of(agent_dir: &Path) -> String {
    agent_dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::{Record, Run};
    use crate::sandbox::{ImageDefaults, SandboxError, SandboxRecord};

    #[test]
    fn a_record_is_read_as_it_was_written_and_nothing_else_is() {
        let run = Run { container: "ab".into(), started_at: "2024-01-01T00:00:00.1Z".into() };
        let defaults = ImageDefaults {
            env: vec![("A".into(), "b=c".into())],
            working_dir: None,
            user: Some("app".into()),
            entrypoint: vec!["/e".into()],
            cmd: vec!["a".into()],
        };
        let engine = ("id /var/lib/docker".to_owned(), None);
        let record = Record::new(run, engine, "boot".into(), "digest".into(), ("sha256:1".into(), &defaults));
        let text = serde_json::to_string(&record.to_seam().unwrap()).unwrap();
        let read: SandboxRecord = serde_json::from_str(&text).unwrap();
        assert_eq!(Record::of_seam(&read).unwrap(), record);
        assert_eq!(record.defaults(), defaults);
        let other = SandboxRecord(serde_json::json!({"pid": 1}));
        assert!(matches!(Record::of_seam(&other), Err(SandboxError::Unsupported(_))));
    }
}
