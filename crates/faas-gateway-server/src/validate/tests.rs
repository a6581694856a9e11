use faas_types::{ExecuteRequest, RequestId};

use super::validate;
use crate::config::{Bound, LimitRules};

pub(super) const RULES: LimitRules = LimitRules {
    timeout_ms: Bound { default: 30_000, max: 3_600_000 },
    memory_mb: Bound { default: 512, max: 4096 },
    cpu_millicores: Bound { default: 1000, max: 4000 },
    pids: Bound { default: 256, max: 32_768 },
    max_disk_mb: 10_240,
    output_bytes: Bound { default: 1 << 20, max: 64 << 20 },
};

fn request(json: &str) -> ExecuteRequest {
    serde_json::from_str(json).unwrap()
}

/// The pointers of what is wrong.
fn wrong(json: &str) -> Vec<String> {
    let error = validate(request(json), RequestId("r".to_owned()), &RULES).unwrap_err();
    error.problem(&RequestId("r".to_owned())).errors.into_iter().map(|error| error.pointer).collect()
}

#[test]
fn a_request_becomes_an_execution_with_the_servers_defaults() {
    let spec = validate(request(r#"{"command":"true"}"#), RequestId("r".to_owned()), &RULES).unwrap();
    assert_eq!(spec.limits.memory_bytes, 512 << 20);
    assert_eq!((spec.limits.cpu_millicores, spec.limits.pids, spec.limits.disk_bytes), (1000, 256, None));
    assert_eq!((spec.timeout.as_millis(), spec.max_output_bytes), (30_000, 1 << 20));
}

#[test]
fn everything_that_is_wrong_is_named_at_once() {
    let json = r#"{"command":"","memory_mb":0,"cpu_cores":0,"pids_limit":1,"disk_mb":0,"timeout_ms":0,
        "working_dir":"x","user":"","image":"","max_output_bytes":99999999999}"#;
    assert_eq!(
        wrong(json),
        [
            "/command",
            "/image",
            "/working_dir",
            "/user",
            "/timeout_ms",
            "/memory_mb",
            "/pids_limit",
            "/max_output_bytes",
            "/disk_mb",
            "/cpu_cores",
        ]
    );
}

#[test]
fn limits_beyond_what_is_configured_are_refused_and_not_cut() {
    for (member, value) in [
        ("memory_mb", "4097"),
        ("cpu_cores", "4.001"),
        ("cpu_cores", "0.009"),
        ("pids_limit", "32769"),
        ("disk_mb", "10241"),
        ("timeout_ms", "3600001"),
    ] {
        let json = format!(r#"{{"command":"true","{member}":{value}}}"#);
        assert_eq!(wrong(&json), [format!("/{member}")], "{json}");
    }
    let most = r#"{"command":"true","memory_mb":4096,"cpu_cores":4,"pids_limit":32768,"disk_mb":10240}"#;
    assert!(validate(request(most), RequestId("r".to_owned()), &RULES).is_ok());
}

#[test]
fn strings_that_execve_cannot_take_are_refused() {
    let long = "x".repeat(140_000);
    assert_eq!(wrong(&format!(r#"{{"command":["true","{long}"]}}"#)), ["/command/1"]);
    assert_eq!(wrong(&format!(r#"{{"command":"true","env_vars":{{"A":"{long}"}}}}"#)), ["/env_vars"]);
    let many: Vec<_> = (0..20).map(|n| format!("V{n}={}", "y".repeat(100_000))).collect();
    let json = serde_json::json!({"command": "true", "env_vars": many}).to_string();
    assert_eq!(wrong(&json), ["/env_vars"]);
    assert_eq!(wrong("{\"command\":\"a\\u0000b\"}"), ["/command"]);
    assert_eq!(wrong(r#"{"command":[]}"#), ["/command"]);
    assert_eq!(wrong(r#"{"command":[""]}"#), ["/command/0"]);
}

#[test]
fn files_name_the_member_that_is_wrong() {
    for (file, pointer) in [
        (r#"{"path":"","content":""}"#, "/files/0/path"),
        (r#"{"path":"a/","content":""}"#, "/files/0/path"),
        (r#"{"path":"..","content":""}"#, "/files/0/path"),
        (r#"{"path":"a"}"#, "/files/0"),
        (r#"{"path":"a","content":"","content_base64":""}"#, "/files/0"),
        (r#"{"path":"a","content_base64":"%"}"#, "/files/0/content_base64"),
        (r#"{"path":"a","content":"","mode":"9"}"#, "/files/0/mode"),
        (r#"{"path":"a","content":"","mode":"10000"}"#, "/files/0/mode"),
    ] {
        assert_eq!(wrong(&format!(r#"{{"command":"true","files":[{file}]}}"#)), [pointer], "{file}");
    }
    let json = r#"{"command":"true","files":[{"path":"a","content":"x","mode":"0755"}],"secrets":{"t":"s"}}"#;
    let spec = validate(request(json), RequestId("r".to_owned()), &RULES).unwrap();
    assert_eq!((spec.files[0].mode, spec.files[0].secret), (0o755, false));
    assert_eq!((spec.files[1].mode, spec.files[1].secret), (0o400, true));
}

#[test]
fn content_that_does_not_fit_is_refused_before_a_sandbox_is_made() {
    let content = "x".repeat(5 << 20);
    let json = format!(r#"{{"command":"true","disk_mb":4,"files":[{{"path":"a","content":"{content}"}}]}}"#);
    assert_eq!(wrong(&json), ["/files"]);
}

#[test]
fn a_secrets_name_is_a_plain_file_name() {
    for name in ["", ".", "..", "a/b", "a b"] {
        let json = serde_json::json!({"command": "true", "secrets": {name: "x"}}).to_string();
        assert_eq!(wrong(&json).len(), 1, "{name}");
    }
}

#[test]
fn users_are_names_or_numbers() {
    for good in ["root", "1000", "1000:1000", "www-data:www-data", "_apt", "0:0"] {
        let json = serde_json::json!({"command": "true", "user": good}).to_string();
        assert!(validate(request(&json), RequestId("r".to_owned()), &RULES).is_ok(), "{good}");
    }
    for bad in ["", ":", "a:", ":b", "-1", "a b", "4294967295", "1:4294967296", "a\nb"] {
        let json = serde_json::json!({"command": "true", "user": bad}).to_string();
        assert_eq!(wrong(&json), ["/user"], "{bad}");
    }
}

#[test]
fn a_cache_key_without_the_mode_that_has_it_is_refused() {
    let request = request(r#"{"command":"true","cache_key":"k"}"#);
    let error = validate(request, RequestId("r".to_owned()), &RULES).unwrap_err();
    assert_eq!(error.problem(&RequestId("r".to_owned())).status, 501);
}
