//! The server as it is built for macOS and Windows, with the runtime `docker` alone; here on Linux.
#![cfg(all(target_os = "linux", not(feature = "native")))]
#![expect(clippy::unwrap_used, reason = "what the helpers of a test cannot do fails the test")]

use std::process::Command;

use faas_test_support::gateway::Gateway;
use faas_test_support::gateway::http::Answer;
use faas_test_support::needs;
use serde_json::{Value, json};

#[expect(clippy::disallowed_methods, reason = "a test's switch, not a setting of the server")]
fn engine() -> String {
    std::env::var("FAAS_TEST_DOCKER_HOST").unwrap()
}

fn gateway(arguments: &[&str]) -> Gateway {
    let builder = Gateway::builder(env!("CARGO_BIN_EXE_faas-gateway-server"));
    arguments.iter().fold(builder, |builder, argument| builder.arg(argument)).start()
}

fn get(gateway: &Gateway, path: &str) -> Value {
    gateway.request("GET", path, &[], &[]).ok()
}

/// What a problem says, which must be whole and of this kind.
fn detail(answer: &Answer, status: u16, code: &str) -> String {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let body = answer.json();
    assert_eq!((&body["code"], &body["status"]), (&json!(code), &json!(status)), "{body:#}");
    assert_eq!(body["type"], format!("/docs/errors/{code}"));
    body["detail"].as_str().unwrap().to_owned()
}

const NO_NATIVE: &str = "this build has no native backend";

#[test]
fn a_build_with_docker_alone_runs_what_docker_can_and_says_what_is_not_in_it() {
    needs!(Root, Docker);
    let engine = engine();
    let gateway = gateway(&["--docker-host", &engine, "--pull", "never"]);

    let health = get(&gateway, "/health");
    assert_eq!(health["docker"], true, "{health:#}");
    assert_eq!(health["runtimes"]["native"]["reason"], NO_NATIVE, "{health:#}");
    let capabilities = get(&gateway, "/api/v1/capabilities");
    assert_eq!(capabilities["default_runtime"], "docker", "{capabilities:#}");
    assert_eq!(capabilities["default_image"], "alpine", "{capabilities:#}");
    let native = &capabilities["runtimes"]["native"];
    assert_eq!((&native["available"], &native["reason"]), (&json!(false), &json!(NO_NATIVE)));
    assert_eq!(capabilities["runtimes"]["docker"]["available"], true, "{capabilities:#}");
    assert_eq!(get(&gateway, "/readyz")["status"], "ok");

    for request in [
        json!({"command": "echo a; exit 3", "image": "alpine", "runtime": "docker"}),
        json!({"command": "echo a; exit 3", "image": "alpine", "runtime": "auto"}),
        json!({"command": "echo a; exit 3", "image": "alpine"}),
        json!({"command": "echo a; exit 3"}),
    ] {
        let body = gateway.execute(request.clone()).ok();
        let ran = [&body["stdout"], &body["exit_code"], &body["runtime"], &body["image"]];
        assert_eq!(ran, [&json!("a\n"), &json!(3), &json!("docker"), &json!("alpine")], "{request}");
    }

    let native = gateway.execute(json!({"command": "true", "runtime": "native"}));
    assert!(detail(&native, 501, "runtime_unavailable").contains(NO_NATIVE));
    let host = gateway.execute(json!({"command": "true", "image": "host"}));
    let said = detail(&host, 502, "image_unavailable");
    assert!(said.contains(NO_NATIVE) && said.contains("name an image of the engine"), "{said}");
    let ghost = gateway.execute(json!({"command": "true", "image": "ghost", "runtime": "docker"}));
    assert!(detail(&ghost, 502, "image_unavailable").contains("docker pull"));

    let json = [("content-type", "application/json")];
    for (method, path, body) in [
        ("GET", "/api/v1/images", ""),
        ("POST", "/api/v1/images", r#"{"name":"alpine"}"#),
        ("DELETE", "/api/v1/images?name=alpine", ""),
    ] {
        let said = detail(&gateway.request(method, path, &json, body.as_bytes()), 501, "unsupported");
        assert!(said.contains("no image store") && said.contains("docker pull"), "{said}");
    }
    // The contract is what this build does.
    let contract = get(&gateway, "/openapi.json");
    assert!(contract["paths"]["/api/v1/execute"].is_object(), "{contract:#}");
    assert!(contract["paths"]["/api/v1/images"].is_null());

    let label = format!("label=faas.gateway={}", gateway.id());
    gateway.stop();
    let list = ["--host", &engine, "ps", "--all", "--filter", &label, "--format", "{{.Names}}"];
    let left = Command::new("docker").args(list).output().unwrap();
    // One without a name is removed, whatever the engine lists.
    assert_eq!((left.status.code(), String::from_utf8_lossy(&left.stdout).trim()), (Some(0), ""));
}

#[test]
fn without_an_engine_such_a_build_answers_and_says_what_is_missing() {
    let gateway = gateway(&["--docker-host", "unix:///no/such/docker.sock"]);
    let health = gateway.request("GET", "/health", &[], &[]);
    assert_eq!((health.status, &health.json()["status"]), (503, &json!("unhealthy")), "{}", health.text());
    for answer in [gateway.request("GET", "/readyz", &[], &[]), gateway.execute(json!({"command": "true"}))] {
        let said = detail(&answer, 501, "runtime_unavailable");
        assert!(said.contains(NO_NATIVE) && said.contains("install and start"), "{said}");
    }
    assert_eq!(get(&gateway, "/livez")["status"], "ok");
    gateway.stop();
}

#[test]
fn options_and_subcommands_of_the_native_runtime_are_refused_by_name() {
    for (argument, rest) in [("--native-slots", "4"), ("--max-images-mb", "10"), ("images", "list")] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_faas-gateway-server")).args([argument, rest]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(said.contains(argument) && said.trim_end().lines().count() == 1, "{said}");
    }
}
