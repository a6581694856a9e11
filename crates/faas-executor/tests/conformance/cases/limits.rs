//! Limits hold, and what cannot be held is said.

use faas_executor::ExecuteSpec;
use faas_executor::sandbox::Limits;
use faas_types::ErrorCode;

use crate::subject::{Subject, said, text};

fn limits(memory_mb: u64, pids: u32) -> Limits {
    Limits { memory_bytes: memory_mb << 20, cpu_millicores: 1000, pids, disk_bytes: None }
}

pub(crate) async fn memory_beyond_its_limit_is_taken_from_the_command(subject: &Subject) {
    // tail keeps the one long line.
    let line = "head -c 200000000 /dev/zero | tail >/dev/null; echo $?";
    let spec = ExecuteSpec { limits: limits(64, 32), ..subject.shell(line) };
    let outcome = match subject.run(spec).await {
        Ok(outcome) => outcome,
        // The kernel may take the agent, whatever it was told; then that is said.
        Err(error) => {
            assert_eq!(error.code(), ErrorCode::SandboxLost, "{error}");
            return assert!(error.to_string().contains("memory"), "{error}");
        }
    };
    let told: Option<i32> = text(&outcome.stdout).trim().parse().ok();
    // It may take the shell too, before that can tell.
    let status = told.or(outcome.exit.signal.map(|signal| 128 + signal));
    let status = status.unwrap_or_else(|| panic!("neither told nor killed: {}", said(&outcome)));
    if subject.capabilities.limits.memory.supported {
        assert_eq!((status, outcome.oom_killed), (137, true), "{}", said(&outcome));
    } else {
        // Each process has the limit for itself, and fails by itself.
        assert_ne!(status, 0, "{}", said(&outcome));
        assert!(!subject.capabilities.limits.memory.detail.is_empty());
    }
    // It is not held against the next.
    let next = subject.ok(ExecuteSpec { limits: limits(64, 32), ..subject.shell("true") }).await;
    assert_eq!((next.exit.code, next.oom_killed), (Some(0), false));
}

pub(crate) async fn processes_beyond_their_limit_are_refused(subject: &Subject) {
    let line = "n=0; while [ $n -lt 60 ]; do sleep 30 & n=$((n + 1)); done; echo all of them";
    let few = subject.ok(ExecuteSpec { limits: limits(256, 20), ..subject.shell(line) }).await;
    assert!(!text(&few.stdout).contains("all") && text(&few.stderr).contains("fork"), "{}", said(&few));
    let enough = ExecuteSpec { limits: limits(256, 100), ..subject.shell(line) };
    assert_eq!(subject.stdout(enough).await, "all of them\n");
}

pub(crate) async fn a_fraction_of_a_core_is_enough_to_run(subject: &Subject) {
    for cpu_millicores in [50, 500, 2000] {
        let limits = Limits { cpu_millicores, ..limits(128, 32) };
        let spec = ExecuteSpec {
            limits,
            ..subject.shell("n=0; while [ $n -lt 1000 ]; do n=$((n + 1)); done; echo $n")
        };
        assert_eq!(subject.stdout(spec).await, "1000\n");
    }
}

pub(crate) async fn a_disk_limit_holds_or_is_refused(subject: &Subject) {
    let line = "head -c 10000000 /dev/zero >/tmp/small && echo fits; \
                dd if=/dev/zero of=/tmp/large bs=65536 count=1600 || echo $?";
    let limits = Limits { disk_bytes: Some(64 << 20), ..limits(512, 32) };
    let spec = ExecuteSpec { limits, ..subject.shell(line) };
    let support = &subject.capabilities.limits.disk;
    if !support.supported {
        let said = subject.refused(spec, ErrorCode::Unsupported).await;
        return assert!(said.contains(&support.detail), "{said}");
    }
    let outcome = subject.ok(spec).await;
    assert_eq!(text(&outcome.stdout), "fits\n1\n", "{}", said(&outcome));
    assert!(text(&outcome.stderr).contains("No space left"), "{}", said(&outcome));
    assert!(!outcome.oom_killed);
}
