//! What an engine's word of a container's state means. No I/O.

use bollard::models::{ContainerState, ContainerStateStatusEnum as Status};

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// Its processes are there.
    Runs {
        /// Stopped where they are.
        paused: bool,
    },
    /// Its processes are gone, or never were; its files are there.
    Ended,
    /// It is being removed, or that failed halfway.
    Going,
}

/// Where a container with this state is.
pub(super) fn condition(state: &ContainerState) -> Condition {
    match state.status {
        Some(Status::REMOVING | Status::DEAD) => Condition::Going,
        _ if state.dead == Some(true) => Condition::Going,
        _ if state.running == Some(true) => Condition::Runs { paused: state.paused == Some(true) },
        _ => Condition::Ended,
    }
}

/// The exit code of a container whose end the engine has no word of, because two of its own threads came upon it at once
/// or because it was not there: containerd's `UnknownExitStatus`. The guest agent, which is the first process, never ends
/// with it.
const UNKNOWN: i64 = 255;

/// How a container ended, in a sentence's words without a subject, as far as the engine tells.
pub(super) fn ending(state: &ContainerState) -> String {
    let mut text = match (state.exit_code.unwrap_or(0), state.oom_killed == Some(true)) {
        (_, true) => "the kernel killed it for want of memory".to_owned(),
        // 128 and the number of the signal, as shells say it.
        (137, false) => "its first process was killed".to_owned(),
        (143, false) => "its first process was terminated".to_owned(),
        (UNKNOWN, false) => "its first process ended, and the engine does not know how".to_owned(),
        (code, false) => format!("its first process ended with exit code {code}"),
    };
    // To the second: the rest is of no use to a reader.
    if let Some(at) = state.finished_at.as_deref().filter(|at| !at.starts_with("0001-")) {
        let second = at.split_once('.').map_or(at, |(second, _)| second).trim_end_matches('Z');
        text.push_str(&format!(" at {second}Z"));
    }
    if let Some(error) = state.error.as_deref().filter(|error| !error.is_empty()) {
        text.push_str(&format!(" ({error})"));
    }
    text
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerState, ContainerStateStatusEnum as Status};

    use super::{Condition, condition, ending};

    fn state(status: Status, running: bool, paused: bool) -> ContainerState {
        ContainerState {
            status: Some(status),
            running: Some(running),
            paused: Some(paused),
            ..ContainerState::default()
        }
    }

    #[test]
    fn each_status_is_one_of_three_conditions() {
        for (state, expected) in [
            (state(Status::RUNNING, true, false), Condition::Runs { paused: false }),
            (state(Status::PAUSED, true, true), Condition::Runs { paused: true }),
            (state(Status::RESTARTING, true, false), Condition::Runs { paused: false }),
            (state(Status::EXITED, false, false), Condition::Ended),
            (state(Status::CREATED, false, false), Condition::Ended),
            (state(Status::REMOVING, true, false), Condition::Going),
            (state(Status::DEAD, false, false), Condition::Going),
        ] {
            assert_eq!(condition(&state), expected, "{state:?}");
        }
    }

    #[test]
    fn an_ending_is_told_in_words() {
        let ended = ContainerState {
            exit_code: Some(137),
            finished_at: Some("2024-01-02T03:04:05.678901Z".into()),
            error: Some(String::new()),
            ..ContainerState::default()
        };
        assert_eq!(ending(&ended), "its first process was killed at 2024-01-02T03:04:05Z");
        let memory = ContainerState { oom_killed: Some(true), finished_at: None, ..ended.clone() };
        assert_eq!(ending(&memory), "the kernel killed it for want of memory");
        let unknown = ContainerState { exit_code: Some(255), finished_at: None, ..ended.clone() };
        assert_eq!(ending(&unknown), "its first process ended, and the engine does not know how");
        let failed = ContainerState {
            exit_code: Some(127),
            error: Some("no such file".into()),
            finished_at: Some("0001-01-01T00:00:00Z".into()),
            ..ContainerState::default()
        };
        assert_eq!(ending(&failed), "its first process ended with exit code 127 (no such file)");
    }
}
