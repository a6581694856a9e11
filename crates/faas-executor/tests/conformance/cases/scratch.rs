//! An image of one static program and nothing else (`images/scratch.sh`): it says its arguments, then its input.

use faas_executor::ExecuteSpec;
use faas_types::ErrorCode;

use super::output::bytes;
use crate::subject::{Subject, file, said};

pub(crate) async fn a_static_program_runs_without_anything_else(subject: &Subject) {
    let spec = ExecuteSpec { stdin: Some(b"input".to_vec()), ..subject.argv(&["/echo", "a", " b"]) };
    assert_eq!(subject.stdout(spec).await, "a  b\ninput");
    assert_eq!(subject.stdout(subject.argv(&["/echo"])).await, "\n");
    let by_path =
        ExecuteSpec { env: vec![("PATH".to_owned(), "/".to_owned())], ..subject.argv(&["echo", "x"]) };
    assert_eq!(subject.stdout(by_path).await, "x\n");
    assert_eq!(subject.ok(subject.argv(&["echo"])).await.exit.code, Some(127));
}

pub(crate) async fn there_is_no_shell(subject: &Subject) {
    let outcome = subject.ok(subject.shell("true")).await;
    assert_eq!(outcome.exit.code, Some(127), "{}", said(&outcome));
    assert!(!outcome.stderr.is_empty());
}

pub(crate) async fn users_are_numbers_where_there_is_no_passwd(subject: &Subject) {
    let as_user = |user: &str| ExecuteSpec { user: Some(user.to_owned()), ..subject.argv(&["/echo", "x"]) };
    assert_eq!(subject.stdout(as_user("0:0")).await, "x\n");
    subject.refused(as_user("ann"), ErrorCode::InvalidRequest).await;
    subject.refused(as_user("0:staff"), ErrorCode::InvalidRequest).await;
    if subject.has_users() {
        assert_eq!(subject.stdout(as_user("1234:5")).await, "x\n");
    } else {
        subject.refused(as_user("1234:5"), ErrorCode::InvalidRequest).await;
    }
}

pub(crate) async fn a_file_needs_no_directory(subject: &Subject) {
    let spec = |dir: &str| ExecuteSpec {
        files: vec![file("/deep/er/file", 0o644, b"x")],
        working_dir: Some(dir.to_owned()),
        ..subject.argv(&["/echo", "x"])
    };
    assert_eq!(subject.stdout(spec("/deep/er")).await, "x\n");
    subject.refused(spec("/deep/er/file"), ErrorCode::InvalidRequest).await;
    subject.refused(spec("/deep/other"), ErrorCode::InvalidRequest).await;
}

pub(crate) async fn binary_input_and_output_are_exact_and_limited(subject: &Subject) {
    let stdin = bytes(2 << 20);
    for (max, truncated) in [(4 << 20, false), (1 << 20, true)] {
        let spec = ExecuteSpec {
            stdin: Some(stdin.clone()),
            max_output_bytes: max,
            ..subject.argv(&["/echo", "x"])
        };
        let outcome = subject.ok(spec).await;
        let all = [b"x\n", &stdin[..]].concat();
        let kept = all.len().min(usize::try_from(max).unwrap());
        assert!(outcome.stdout == all[..kept], "{} bytes", outcome.stdout.len());
        assert_eq!(outcome.exit.stdout_truncated, truncated);
    }
}
