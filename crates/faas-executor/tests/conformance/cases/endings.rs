//! Timeouts, cancelling, what is left running.

use std::time::Duration;

use faas_executor::{EngineError, ExecuteSpec};
use faas_types::ErrorCode;

use crate::subject::{SETTLE, Subject, said, text};

pub(crate) async fn a_timeout_kills_all_and_keeps_the_output(subject: &Subject) {
    let spec = ExecuteSpec {
        timeout: Duration::from_millis(1500),
        ..subject.shell(
            "trap '' TERM INT HUP; echo begun; echo so far >&2; (setsid sleep 3600 &); (sleep 3600 & (sleep 3600 &)); \
             setsid sh -c 'trap \"\" TERM HUP; sleep 3600; :' & while :; do sleep 3600; done",
        )
    };
    match subject.run(spec).await.unwrap_err() {
        EngineError::Timeout { outcome } => {
            assert_eq!((text(&outcome.stdout), text(&outcome.stderr)), ("begun\n", "so far\n"));
            assert_eq!((outcome.exit.code, outcome.exit.signal), (None, Some(9)), "{}", said(&outcome));
            assert!(outcome.exit.timed_out && !outcome.oom_killed);
            assert_eq!(outcome.timeout_ms, 1500);
        }
        other => panic!("{other}"),
    }
    subject.is_clean().await;
    // A stopped program is no less at its end.
    let stopped =
        ExecuteSpec { timeout: Duration::from_millis(500), ..subject.shell("kill -STOP $$; echo went on") };
    subject.refused(stopped, ErrorCode::ExecutionTimeout).await;
}

pub(crate) async fn what_is_left_in_the_background_neither_delays_nor_stays(subject: &Subject) {
    for line in [
        "sleep 3600 & echo begun",
        "setsid sleep 3600 & echo begun",
        "(setsid sleep 3600 >/dev/null 2>&1 </dev/null &); echo begun",
    ] {
        // Had it been waited for, the timeout would have come.
        assert_eq!(subject.stdout(subject.shell(line)).await, "begun\n", "{line}");
        subject.is_clean().await;
    }
}

pub(crate) async fn a_cancelled_execution_leaves_nothing(subject: &Subject) {
    // While it is made, while its agent starts, while it runs.
    for wait_ms in [0, 1, 3, 10, 30, 100, 300, 600] {
        let running = subject.run(subject.shell("(setsid sleep 3600 &); sleep 3600"));
        assert!(tokio::time::timeout(Duration::from_millis(wait_ms), running).await.is_err());
    }
    subject.is_clean().await;
    assert_eq!(subject.ok(subject.shell("true")).await.exit.code, Some(0));
}

pub(crate) async fn a_shutdown_ends_what_runs(subject: &Subject) {
    let running = subject.run(subject.shell("(setsid sleep 3600 &); sleep 3600"));
    let ending = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        subject.engine.shutdown(Duration::ZERO).await;
    };
    let (ended, ()) = tokio::time::timeout(SETTLE, async { tokio::join!(running, ending) }).await.unwrap();
    match ended {
        Err(error) => assert_eq!(error.code(), ErrorCode::SandboxLost, "{error}"),
        // Killed with its sandbox, and its agent could still say so.
        Ok(outcome) => assert_eq!(outcome.exit.signal, Some(9)),
    }
    subject.is_clean().await;
    subject.refused(subject.shell("true"), ErrorCode::Overloaded).await;
}
