//! Environment, working directory, user.

use faas_executor::ExecuteSpec;
use faas_types::ErrorCode;

use crate::backends::GATEWAYS_OWN;
use crate::subject::{Subject, file};

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(crate) async fn the_requests_environment_wins_and_nothing_of_the_gateways_is_in_it(subject: &Subject) {
    let plain = subject.stdout(subject.argv(&["env"])).await;
    let value = |name: &str| {
        plain.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
    };
    assert_eq!(value("HOME").as_deref(), Some("/root"));
    assert_eq!((value("USER").as_deref(), value("LOGNAME").as_deref()), (Some("root"), Some("root")));
    assert!(value("PATH").is_some_and(|path| path.contains("/bin")), "{plain}");
    assert!(!plain.contains(GATEWAYS_OWN) && !plain.contains("FAAS_"), "{plain}");
    let env = pairs(&[
        ("A", "1"),
        ("A", "2"),
        ("EMPTY", ""),
        ("TEXT", "a b\n=c'\"$A ü"),
        ("HOME", "/elsewhere"),
        ("PATH", "/bin:/usr/bin:/own"),
    ]);
    let line = "printf '%s|' \"$A\" \"${EMPTY-unset}\" \"$TEXT\" \"$HOME\" \"$PATH\" \"${UNSET-unset}\"";
    let spec = ExecuteSpec { env, ..subject.shell(line) };
    let expected = "2||a b\n=c'\"$A ü|/elsewhere|/bin:/usr/bin:/own|unset|";
    assert_eq!(subject.stdout(spec).await, expected);
}

pub(crate) async fn the_working_directory_is_the_requests_and_must_exist(subject: &Subject) {
    assert_eq!(subject.stdout(subject.argv(&["pwd"])).await, "/\n");
    let within = |dir: &str| ExecuteSpec { working_dir: Some(dir.to_owned()), ..subject.argv(&["pwd"]) };
    assert_eq!(subject.stdout(within("/tmp")).await, "/tmp\n");
    // What files are put first may make it.
    let made = ExecuteSpec { files: vec![file("/tmp/made/here", 0o644, b"")], ..within("/tmp/made") };
    assert_eq!(subject.stdout(made).await, "/tmp/made\n");
    for wrong in ["/no/such", "/etc/passwd"] {
        let said = subject.refused(within(wrong), ErrorCode::InvalidRequest).await;
        assert!(said.contains(wrong), "{said}");
    }
}

pub(crate) async fn the_user_is_root_unless_another_is_asked_for(subject: &Subject) {
    let line = "echo $(id -u) $(id -g) $HOME";
    assert_eq!(subject.stdout(subject.shell(line)).await, "0 0 /root\n");
    assert_eq!(subject.stdout(as_user(subject, "root", line)).await, "0 0 /root\n");
    if !subject.has_users() {
        for user in ["nobody", "1234", "0:1234"] {
            let said = subject.refused(as_user(subject, user, line), ErrorCode::InvalidRequest).await;
            assert!(!said.is_empty(), "{user}");
        }
        return;
    }
    let ids = "echo $(id -u) $(id -g)";
    assert!(subject.stdout(as_user(subject, "nobody", ids)).await.starts_with("65534 6553"));
    for (user, expected) in [("65534:7", "65534 7\n"), ("1234", "1234 0\n"), ("1234:5678", "1234 5678\n")] {
        assert_eq!(subject.stdout(as_user(subject, user, ids)).await, expected, "{user}");
    }
    // It owns what is put for it, and no more.
    let own = ExecuteSpec {
        files: vec![file("/tmp/own/x", 0o600, b"mine")],
        ..as_user(
            subject,
            "1234:5678",
            "cat /tmp/own/x; echo; ls -ln /tmp/own/x | awk '{print $3, $4}'; : >/etc/x",
        )
    };
    let outcome = subject.ok(own).await;
    assert_eq!(crate::subject::text(&outcome.stdout), "mine\n1234 5678\n");
    assert_ne!(outcome.exit.code, Some(0), "it may write to /etc");
}

pub(crate) async fn an_unknown_user_or_group_is_refused(subject: &Subject) {
    for (user, named) in [("no-such-user", "no-such-user"), ("root:no-such-group", "no-such-group")] {
        let said = subject.refused(as_user(subject, user, "id"), ErrorCode::InvalidRequest).await;
        assert!(said.contains(named), "{said}");
    }
}

pub(crate) fn as_user(subject: &Subject, user: &str, line: &str) -> ExecuteSpec {
    ExecuteSpec { user: Some(user.to_owned()), ..subject.shell(line) }
}
