//! Where an instance stands and where it can go from there. No I/O; nobody else decides what is legal.
//!
//! ```text
//!                      create
//!                        |
//!                        v            sandbox ended
//!  start  +---------> Creating ------------------------+
//!         |              |                             |
//!         |              v   pause                     v
//!         |           Running --------> Paused ----> Failed
//!         |            |   ^  <-------- |  |           |
//!         |       stop |   |   resume   |  |           |
//!         |            v   |            |  |           |
//!         |          Stopping <---------+  |           |
//!         |            |        stop       |           |
//!         |            v                   |           |
//!         +-------- Stopped                |           |
//!         +--------------------------------|-----------+  (where its files are there)
//!
//!  delete: from every state to Deleting, and from there to nothing
//! ```

use faas_types::InstanceStatus;

/// Where an instance stands, as the store has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InstanceState {
    /// Its sandbox is being made, for the first time or again.
    Creating,
    /// Commands can be run in it.
    Running,
    /// Its processes are stopped where they are.
    Paused,
    /// Its processes are being ended.
    Stopping,
    /// Its processes are gone, its files are there.
    Stopped,
    /// Its sandbox ended without having been told to.
    Failed,
    /// It is being removed. Shown as `stopping`.
    Deleting,
}

/// What can be asked of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Run a command, with files, terminals and all else that goes through its agent.
    Exec,
    /// End its processes and keep its files.
    Stop,
    /// Make its sandbox again, over its files.
    Start,
    /// Stop its processes where they are.
    Pause,
    /// Let them go on.
    Resume,
    /// Give it other limits.
    Update,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Exec, Self::Stop, Self::Start, Self::Pause, Self::Resume, Self::Update];

    /// The word of the route.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Update => "update",
        }
    }
}

/// Something that an instance's state does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the instance is {state}{}; {}", in_brackets(reason.as_deref()), legal(*actual))]
pub struct Illegal {
    /// Where it stands, as it is shown.
    pub state: InstanceStatus,
    actual: InstanceState,
    /// Why it stands there.
    pub reason: Option<String>,
    /// What was asked.
    pub operation: Operation,
}

impl Illegal {
    /// `operation` in `state`, in which it stands for `reason`.
    #[must_use]
    pub fn new(state: InstanceState, reason: Option<String>, operation: Operation) -> Self {
        Self { state: state.shown(), actual: state, reason, operation }
    }
}

fn in_brackets(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(" ({reason})"))
}

fn legal(state: InstanceState) -> String {
    let legal = Operation::ALL.into_iter().filter(|operation| state.can(*operation));
    let mut words: Vec<_> = legal.map(Operation::as_str).collect();
    words.push("delete");
    format!("legal now: {}", words.join(", "))
}

impl InstanceState {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Creating,
        Self::Running,
        Self::Paused,
        Self::Stopping,
        Self::Stopped,
        Self::Failed,
        Self::Deleting,
    ];

    /// The word in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Deleting => "deleting",
        }
    }

    /// The state of a word in the store.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// The words in the store of all states that are shown as `status`.
    pub fn shown_as(status: InstanceStatus) -> impl Iterator<Item = &'static str> {
        Self::ALL.into_iter().filter(move |state| state.shown() == status).map(Self::as_str)
    }

    /// What a client is told.
    #[must_use]
    pub const fn shown(self) -> InstanceStatus {
        match self {
            Self::Creating => InstanceStatus::Creating,
            Self::Running => InstanceStatus::Running,
            Self::Paused => InstanceStatus::Paused,
            Self::Stopping | Self::Deleting => InstanceStatus::Stopping,
            Self::Stopped => InstanceStatus::Stopped,
            Self::Failed => InstanceStatus::Failed,
        }
    }

    /// Whether a client can ask this of an instance that stands here. It can always be deleted.
    #[must_use]
    pub const fn can(self, operation: Operation) -> bool {
        match operation {
            Operation::Exec | Operation::Pause | Operation::Update => matches!(self, Self::Running),
            Operation::Stop => matches!(self, Self::Running | Self::Paused),
            Operation::Start => matches!(self, Self::Stopped | Self::Failed),
            Operation::Resume => matches!(self, Self::Paused),
        }
    }

    /// Whether it is already where an operation leads: asked again, nothing is done and that is no error.
    #[must_use]
    pub const fn is_where(self, operation: Operation) -> bool {
        match operation {
            Operation::Exec | Operation::Update => false,
            Operation::Stop => matches!(self, Self::Stopped),
            Operation::Start | Operation::Resume => matches!(self, Self::Running),
            Operation::Pause => matches!(self, Self::Paused),
        }
    }

    /// Whether its sandbox is there as far as the store knows.
    #[must_use]
    pub const fn has_sandbox(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }

    /// Whether an instance may go from here to `next`.
    #[must_use]
    pub const fn can_become(self, next: Self) -> bool {
        match next {
            Self::Deleting => !matches!(self, Self::Deleting),
            Self::Creating => matches!(self, Self::Stopped | Self::Failed),
            Self::Running => matches!(self, Self::Creating | Self::Paused),
            Self::Paused => matches!(self, Self::Running),
            Self::Stopping => matches!(self, Self::Running | Self::Paused),
            Self::Stopped => matches!(self, Self::Stopping | Self::Creating),
            Self::Failed => {
                matches!(self, Self::Creating | Self::Running | Self::Paused | Self::Stopping)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Illegal, InstanceState, Operation};

    #[test]
    fn what_an_operation_leads_to_can_be_become() {
        for state in InstanceState::ALL {
            assert_eq!(InstanceState::parse(state.as_str()), Some(state));
            let steps = |operation| match operation {
                Operation::Stop => Some(InstanceState::Stopping),
                Operation::Start => Some(InstanceState::Creating),
                Operation::Pause => Some(InstanceState::Paused),
                Operation::Resume => Some(InstanceState::Running),
                Operation::Exec | Operation::Update => None,
            };
            for operation in Operation::ALL {
                if let (true, Some(next)) = (state.can(operation), steps(operation)) {
                    assert!(state.can_become(next), "{state:?} {operation:?}");
                }
                assert!(!(state.can(operation) && state.is_where(operation)), "{state:?} {operation:?}");
            }
            assert!(!state.can_become(state), "{state:?}");
        }
    }

    #[test]
    fn nothing_comes_back_from_being_deleted() {
        assert!(InstanceState::ALL.into_iter().all(|next| !InstanceState::Deleting.can_become(next)));
        assert!(Operation::ALL.into_iter().all(|operation| !InstanceState::Deleting.can(operation)));
    }

    #[test]
    fn a_refusal_says_where_it_stands_and_what_is_legal() {
        let refused = Illegal::new(InstanceState::Failed, Some("out of memory".to_owned()), Operation::Exec);
        assert_eq!(refused.to_string(), "the instance is failed (out of memory); legal now: start, delete");
        let refused = Illegal::new(InstanceState::Deleting, None, Operation::Stop);
        assert_eq!(refused.to_string(), "the instance is stopping; legal now: delete");
    }
}
