//! What runs, and how its end is told.

use faas_executor::ExecuteSpec;
use faas_types::ErrorCode;

use crate::subject::{Subject, file, said, text};

pub(crate) async fn a_string_is_run_by_the_shell_and_an_array_as_it_is(subject: &Subject) {
    let line = "x=1; echo $((x + 1)) | cat; echo \"$0\"";
    assert_eq!(subject.stdout(subject.shell(line)).await, "2\n/bin/sh\n");
    assert_eq!(subject.stdout(subject.argv(&["echo", "$((1 + 1))", "|", "cat"])).await, "$((1 + 1)) | cat\n");
    assert_eq!(subject.stdout(subject.argv(&["/bin/echo", "by path"])).await, "by path\n");
}

pub(crate) async fn arguments_arrive_as_they_are(subject: &Subject) {
    let words = ["", " two  words ", "line\nbreak", "'\"\\", "*", "ünï\u{1f600}", "-n", "--"];
    let line = "printf '[%s]' \"$@\"";
    let command: Vec<&str> = ["sh", "-c", line, "sh"].into_iter().chain(words).collect();
    let expected: String = words.iter().map(|word| format!("[{word}]")).collect();
    assert_eq!(subject.stdout(subject.argv(&command)).await, expected);
}

pub(crate) async fn a_program_is_looked_up_in_the_requests_path(subject: &Subject) {
    let spec = || ExecuteSpec {
        files: vec![
            file("/tmp/first/tool", 0o644, b"not executable"),
            file("/tmp/second/tool", 0o755, b"#!/bin/sh\necho found $1\n"),
        ],
        ..subject.argv(&["tool", "it"])
    };
    assert_eq!(subject.ok(spec()).await.exit.code, Some(127));
    let path = vec![("PATH".to_owned(), "/tmp/none:/tmp/first:/tmp/second:/usr/bin:/bin".to_owned())];
    assert_eq!(subject.stdout(ExecuteSpec { env: path, ..spec() }).await, "found it\n");
}

pub(crate) async fn an_argument_that_the_kernel_does_not_take_is_refused(subject: &Subject) {
    // MAX_ARG_STRLEN is 32 pages (execve(2)).
    let long = "x".repeat(1 << 18);
    subject.refused(subject.argv(&["true", &long]), ErrorCode::InvalidRequest).await;
    let fits = "x".repeat(100_000);
    assert_eq!(subject.stdout(subject.argv(&["echo", &fits])).await.len(), fits.len() + 1);
}

pub(crate) async fn exit_codes_are_the_commands(subject: &Subject) {
    for code in [0, 1, 3, 128, 255] {
        let outcome = subject.ok(subject.shell(&format!("exit {code}"))).await;
        assert_eq!((outcome.exit.code, outcome.exit.signal), (Some(code), None));
        assert!(!outcome.oom_killed && !outcome.exit.timed_out && !outcome.exit.cancelled);
    }
}

pub(crate) async fn a_signal_that_ends_the_command_is_told(subject: &Subject) {
    for signal in [9, 15, 11, 1] {
        let outcome = subject.ok(subject.shell(&format!("kill -{signal} $$; sleep 60"))).await;
        assert_eq!((outcome.exit.code, outcome.exit.signal), (None, Some(signal)), "{}", said(&outcome));
        assert!(!outcome.oom_killed && !outcome.exit.timed_out);
    }
}

pub(crate) async fn what_is_not_found_is_127_and_what_cannot_be_executed_126(subject: &Subject) {
    for command in [["no-such-program"], ["/no/such/program"]] {
        let outcome = subject.ok(subject.argv(&command)).await;
        assert_eq!((outcome.exit.code, outcome.exit.signal), (Some(127), None), "{command:?}");
        assert!(text(&outcome.stderr).contains("no"), "{command:?}: {}", said(&outcome));
    }
    assert_eq!(subject.ok(subject.shell("no-such-program")).await.exit.code, Some(127));
    for command in [["/etc/passwd"], ["/tmp"]] {
        let outcome = subject.ok(subject.argv(&command)).await;
        assert_eq!((outcome.exit.code, outcome.exit.signal), (Some(126), None), "{command:?}");
        assert!(!outcome.stderr.is_empty(), "{command:?}");
    }
}
