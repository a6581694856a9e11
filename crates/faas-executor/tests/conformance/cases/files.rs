//! Files and secrets.

use faas_executor::{ExecuteSpec, InputFile};
use faas_types::ErrorCode;

use super::output::bytes;
use crate::subject::{Subject, file, said, text};

pub(crate) async fn files_are_there_before_the_command(subject: &Subject) {
    let large = bytes((3 << 20) + 7);
    let spec = ExecuteSpec {
        working_dir: Some("/tmp".to_owned()),
        files: vec![
            file("/tmp/deep/er/run", 0o755, b"#!/bin/sh\necho script\n"),
            file("relative", 0o640, b"in the working directory"),
            file("/tmp/large", 0o600, &large),
            file("/tmp/empty", 0o444, b""),
            file("relative-dir/x", 0o644, b"last\n"),
        ],
        stdin: Some(large),
        ..subject.shell(
            "/tmp/deep/er/run; cat /tmp/relative; echo; cmp - /tmp/large && echo same; \
             stat -c '%a %s %u' /tmp/relative /tmp/large /tmp/empty; cat relative-dir/x",
        )
    };
    let expected = "script\nin the working directory\nsame\n640 24 0\n600 3145735 0\n444 0 0\nlast\n";
    assert_eq!(subject.stdout(spec).await, expected);
}

pub(crate) async fn secrets_are_files_of_the_user_alone_in_memory(subject: &Subject) {
    let spec = || ExecuteSpec {
        files: vec![InputFile {
            path: "token".to_owned(),
            mode: 0o644,
            content: b"s3cret".to_vec(),
            secret: true,
        }],
        ..subject
            .shell("cat /run/secrets/token; stat -c ' %a' /run/secrets/token; stat -f -c %T /run/secrets")
    };
    assert_eq!(subject.stdout(spec()).await, "s3cret 400\ntmpfs\n");
    if subject.has_users() {
        let other = ExecuteSpec { user: Some("1234:5".to_owned()), ..spec() };
        assert_eq!(subject.stdout(other).await, "s3cret 400\ntmpfs\n");
    }
    // It is not there for the next.
    let next = subject.ok(subject.shell("cat /run/secrets/token")).await;
    assert_ne!(next.exit.code, Some(0), "{}", said(&next));
    assert!(!text(&next.stdout).contains("s3cret"));
}

pub(crate) async fn a_file_that_cannot_be_put_is_refused(subject: &Subject) {
    for path in ["/proc/x", "/tmp", "/etc/passwd/x"] {
        let spec = ExecuteSpec { files: vec![file(path, 0o644, b"x")], ..subject.shell("true") };
        let said = subject.refused(spec, ErrorCode::InvalidRequest).await;
        assert!(said.contains(path), "{said}");
    }
}
