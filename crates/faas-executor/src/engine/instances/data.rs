//! An instance as the engine holds it, and the same as a row of the store.

use std::collections::BTreeMap;

use faas_types::{InstanceId, Network, OnTimeout, Runtime, SandboxId, SnapshotId, TenantId};
use serde::{Deserialize, Serialize};

use super::executions::{MainRun, MainSpec};
use crate::sandbox::{Lifetime, Limits, SandboxRecord, SandboxSpec};
use crate::state::InstanceState;
use crate::store::{Instance as Row, NewEvent, StoreError};

/// What is asked for with a new instance, validated.
#[derive(Debug)]
pub struct NewInstance {
    /// Whose it is.
    pub tenant: TenantId,
    /// The image, or the default.
    pub image: Option<String>,
    /// The caller's name for it.
    pub name: Option<String>,
    /// The runtime.
    pub runtime: faas_types::RuntimeChoice,
    /// What every command in it starts with.
    pub defaults: CommandDefaults,
    /// Files put into it before anything runs.
    pub files: Vec<crate::engine::InputFile>,
    /// What it may use.
    pub limits: Limits,
    /// What it can reach.
    pub network: Network,
    /// How long it is there.
    pub times: Times,
    /// Its main command.
    pub main: Option<MainSpec>,
    /// The caller's own words.
    pub labels: BTreeMap<String, String>,
}

/// What every command of an instance starts with, where it says nothing itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandDefaults {
    /// Environment variables beyond the image's.
    pub env: Vec<(String, String)>,
    /// The working directory, or the image's.
    pub working_dir: Option<String>,
    /// The user, or the image's.
    pub user: Option<String>,
}

/// How long an instance is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// How long it is there from when that was said, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// How long it may be idle, in milliseconds.
    pub idle_timeout_ms: Option<u64>,
    /// What becomes of it then.
    pub on_timeout: OnTimeout,
    /// Whether a command resumes it when it is paused.
    pub auto_resume: bool,
}

/// One instance.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceInfo {
    /// Its id. Its sandbox has the same.
    pub id: InstanceId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The caller's name for it.
    pub name: Option<String>,
    /// The image it was made from, as it was asked for.
    pub image: String,
    /// The same as the image store knows it, which a name may not do any more.
    pub image_id: Option<String>,
    /// The runtime it is on.
    pub runtime: Runtime,
    /// Where it stands.
    pub state: InstanceState,
    /// Why it stands there.
    pub reason: Option<String>,
    /// When it was asked for, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When its `ttl_ms` is over, likewise.
    pub ttl_ends_at_ms: Option<u64>,
    /// When it was last used, likewise, to some seconds.
    pub last_active_at_ms: u64,
    /// When it was paused, likewise, where it is.
    pub paused_at_ms: Option<u64>,
    /// Whether it has ever run: then its files are its user's.
    pub born: bool,
    /// What every command in it starts with.
    pub defaults: CommandDefaults,
    /// What it may use.
    pub limits: Limits,
    /// What it can reach.
    pub network: Network,
    /// How long it is there.
    pub times: Times,
    /// Its main command.
    pub main: Option<MainSpec>,
    /// The newest run of that, as far as this server knows.
    pub main_run: Option<MainRun>,
    /// The caller's own words.
    pub labels: BTreeMap<String, String>,
    /// The instance that it is a branch of.
    pub parent_id: Option<InstanceId>,
    /// The snapshot that it was made from.
    pub snapshot_id: Option<SnapshotId>,
    /// What its backend finds it by.
    pub(crate) record: Option<SandboxRecord>,
    /// Counts its changes in the store.
    pub(crate) revision: i64,
}

/// What of an instance is in the column `spec`.
#[derive(Debug, Serialize, Deserialize)]
struct SavedSpec {
    version: u32,
    image_id: Option<String>,
    born: bool,
    defaults: CommandDefaults,
    memory_bytes: u64,
    cpu_millicores: u32,
    pids: u32,
    disk_bytes: Option<u64>,
    network: Network,
    times: Times,
    #[serde(default)]
    main: Option<MainSpec>,
    #[serde(default)]
    paused_at_ms: Option<u64>,
}

/// The version of [`SavedSpec`].
const VERSION: u32 = 1;

/// Now, in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A row that this version cannot read or write.
fn unreadable(what: impl std::fmt::Display) -> StoreError {
    StoreError::Row { table: "instances", reason: what.to_string() }
}

pub(in crate::engine::instances) fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

pub(in crate::engine::instances) fn unsigned(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0)
}

impl InstanceInfo {
    /// The id of its sandbox.
    pub(crate) fn sandbox_id(&self) -> SandboxId {
        SandboxId(self.id.as_str().to_owned())
    }

    /// Its sandbox, the image not yet had.
    pub(crate) fn sandbox_spec(&self) -> SandboxSpec {
        SandboxSpec {
            lifetime: Lifetime::Lasting,
            ..SandboxSpec::new(self.sandbox_id(), self.image.clone(), self.limits, self.network)
        }
    }

    /// When its time is over as things stand now, in milliseconds since 1970. One that does not run is not idle, and
    /// where the end of its time would pause it that end is of no use while it is paused, stopped or failed.
    #[must_use]
    pub fn expires_at_ms(&self) -> Option<u64> {
        self.expires_if_active_at(self.last_active_at_ms)
    }

    /// The same where it was last used at another time.
    pub(super) fn expires_if_active_at(&self, last_active_at_ms: u64) -> Option<u64> {
        let ends_by_ttl = match self.state {
            InstanceState::Paused | InstanceState::Stopped | InstanceState::Failed
                if self.times.on_timeout == OnTimeout::Pause =>
            {
                None
            }
            InstanceState::Deleting => None,
            _ => self.ttl_ends_at_ms,
        };
        let ends_by_idling = match (self.state, self.times.idle_timeout_ms) {
            (InstanceState::Running, Some(idle)) => Some(last_active_at_ms.saturating_add(idle)),
            _ => None,
        };
        [ends_by_ttl, ends_by_idling].into_iter().flatten().min()
    }

    /// When its ttl is over for one that runs from now on: one that was over did not end it, and begins anew.
    pub(super) fn renewed_ttl(&self) -> Option<u64> {
        let now = now_ms();
        match self.ttl_ends_at_ms {
            Some(ends) if ends <= now => self.times.ttl_ms.map(|ttl| now.saturating_add(ttl)),
            other => other,
        }
    }

    /// The same as it is to be written: when it was paused is known of one that is, and of no other.
    pub(super) fn with_time_of_pause(self) -> Self {
        let paused_at_ms = match self.state {
            InstanceState::Paused => self.paused_at_ms.or_else(|| Some(now_ms())),
            _ => None,
        };
        Self { paused_at_ms, ..self }
    }

    /// The event that goes with its state.
    pub(crate) fn event(&self) -> NewEvent {
        NewEvent {
            tenant: self.tenant.as_str().to_owned(),
            at_ms: signed(now_ms()),
            kind: format!("instance.{}", self.state.as_str()),
            subject: self.id.as_str().to_owned(),
            data: serde_json::json!({ "reason": self.reason, "name": self.name, "runtime": self.runtime.as_str() }),
        }
    }

    pub(crate) fn to_row(&self) -> Result<Row, StoreError> {
        let spec = SavedSpec {
            version: VERSION,
            image_id: self.image_id.clone(),
            born: self.born,
            defaults: self.defaults.clone(),
            memory_bytes: self.limits.memory_bytes,
            cpu_millicores: self.limits.cpu_millicores,
            pids: self.limits.pids,
            disk_bytes: self.limits.disk_bytes,
            network: self.network,
            times: self.times,
            main: self.main.clone(),
            paused_at_ms: self.paused_at_ms,
        };
        Ok(Row {
            id: self.id.as_str().to_owned(),
            tenant: self.tenant.as_str().to_owned(),
            name: self.name.clone(),
            status: self.state.as_str().to_owned(),
            status_reason: self.reason.clone(),
            runtime: self.runtime.as_str().to_owned(),
            image: self.image.clone(),
            spec: serde_json::to_value(spec).map_err(unreadable)?,
            record: self.record.clone().map(|record| record.0),
            labels: self.labels.clone(),
            created_at_ms: signed(self.created_at_ms),
            updated_at_ms: signed(now_ms()),
            expires_at_ms: self.ttl_ends_at_ms.map(signed),
            last_active_at_ms: signed(self.last_active_at_ms),
            parent_id: self.parent_id.as_ref().map(ToString::to_string),
            snapshot_id: self.snapshot_id.as_ref().map(ToString::to_string),
            revision: self.revision,
        })
    }

    pub(crate) fn from_row(row: Row) -> Result<Self, StoreError> {
        let unknown = |what: &str, word: &str| unreadable(format!("{what} {word:?}"));
        let spec: SavedSpec = serde_json::from_value(row.spec).map_err(unreadable)?;
        if spec.version != VERSION {
            return Err(unreadable(format!("version {} of an instance", spec.version)));
        }
        let state = InstanceState::parse(&row.status).ok_or_else(|| unknown("state", &row.status))?;
        let runtime = Runtime::ALL.into_iter().find(|runtime| runtime.as_str() == row.runtime);
        Ok(Self {
            id: InstanceId(row.id),
            tenant: TenantId(row.tenant),
            name: row.name,
            image: row.image,
            image_id: spec.image_id,
            runtime: runtime.ok_or_else(|| unknown("runtime", &row.runtime))?,
            state,
            reason: row.status_reason,
            created_at_ms: unsigned(row.created_at_ms),
            ttl_ends_at_ms: row.expires_at_ms.map(unsigned),
            last_active_at_ms: unsigned(row.last_active_at_ms),
            paused_at_ms: spec.paused_at_ms,
            born: spec.born,
            defaults: spec.defaults,
            limits: Limits {
                memory_bytes: spec.memory_bytes,
                cpu_millicores: spec.cpu_millicores,
                pids: spec.pids,
                disk_bytes: spec.disk_bytes,
            },
            network: spec.network,
            times: spec.times,
            main: spec.main,
            main_run: None,
            labels: row.labels,
            parent_id: row.parent_id.map(InstanceId),
            snapshot_id: row.snapshot_id.map(SnapshotId),
            record: row.record.map(SandboxRecord),
            revision: row.revision,
        })
    }
}

#[cfg(test)]
mod tests {
    use faas_types::{InstanceId, Network, Runtime, TenantId};

    use super::{CommandDefaults, InstanceInfo, OnTimeout, Times, now_ms};
    use crate::sandbox::Limits;
    use crate::state::InstanceState;

    fn instance(state: InstanceState) -> InstanceInfo {
        InstanceInfo {
            id: InstanceId("ins-1".to_owned()),
            tenant: TenantId("default".to_owned()),
            name: None,
            image: "host".to_owned(),
            image_id: None,
            runtime: Runtime::Native,
            state,
            reason: None,
            created_at_ms: 1,
            ttl_ends_at_ms: None,
            last_active_at_ms: 1,
            paused_at_ms: None,
            born: true,
            defaults: CommandDefaults::default(),
            limits: Limits { memory_bytes: 1, cpu_millicores: 1, pids: 1, disk_bytes: None },
            network: Network::None,
            times: Times::default(),
            main: None,
            main_run: None,
            labels: std::collections::BTreeMap::new(),
            parent_id: None,
            snapshot_id: None,
            record: None,
            revision: 1,
        }
    }

    #[test]
    fn the_time_of_a_pause_is_that_of_this_one() {
        let before = now_ms();
        let paused = instance(InstanceState::Paused).with_time_of_pause();
        let at = paused.paused_at_ms.unwrap();
        assert!(at >= before);
        // It stays over other changes, and in the row.
        let later = InstanceInfo { reason: Some("x".to_owned()), paused_at_ms: Some(at - 1), ..paused };
        let again = InstanceInfo::from_row(later.with_time_of_pause().to_row().unwrap()).unwrap();
        assert_eq!(again.paused_at_ms, Some(at - 1));
        for state in InstanceState::ALL.into_iter().filter(|state| *state != InstanceState::Paused) {
            let other = InstanceInfo { state, ..again.clone() }.with_time_of_pause();
            assert_eq!(other.paused_at_ms, None, "{state:?}");
        }
    }

    #[test]
    fn a_time_whose_end_would_pause_it_ends_only_for_one_that_runs() {
        use InstanceState::{Failed, Paused, Running, Stopped};
        for (state, on_timeout, ends) in [
            (Running, OnTimeout::Pause, Some(5)),
            (Paused, OnTimeout::Pause, None),
            (Stopped, OnTimeout::Pause, None),
            (Failed, OnTimeout::Pause, None),
            (Running, OnTimeout::Delete, Some(5)),
            (Paused, OnTimeout::Delete, Some(5)),
            (Stopped, OnTimeout::Delete, Some(5)),
            (Failed, OnTimeout::Delete, Some(5)),
        ] {
            let times = Times { ttl_ms: Some(4), on_timeout, ..Times::default() };
            let one = InstanceInfo { times, ttl_ends_at_ms: Some(5), ..instance(state) };
            assert_eq!(one.expires_at_ms(), ends, "{state:?} {on_timeout:?}");
            let renewed = one.renewed_ttl().unwrap();
            assert!(renewed > 5, "it was over");
        }
    }
}
