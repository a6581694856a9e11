//! Files over HTTP, at paths that lead somewhere else: all of them are the instance's own.

use std::path::Path;

use faas_test_support::gateway::http::Answer;
use serde_json::json;

use crate::scene::Scene;
use crate::standing::Standing;

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// What is behind a `%` is taken as it is.
fn encoded(path: &str) -> String {
    path.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

struct Instance<'a> {
    scene: &'a Scene,
    route: String,
}

impl<'a> Instance<'a> {
    fn create(scene: &'a Scene) -> Self {
        let answer = scene.gateway.request("POST", "/api/v1/instances", JSON, b"{}");
        assert_eq!(answer.status, 201, "{}", answer.text());
        let route = format!("/api/v1/instances/{}", answer.json()["id"].as_str().unwrap());
        Self { scene, route }
    }

    fn exec(&self, command: &str) {
        let body = json!({"command": command}).to_string();
        let answer =
            self.scene.gateway.request("POST", &format!("{}/exec", self.route), JSON, body.as_bytes());
        assert_eq!(answer.json()["exit_code"], 0, "{command}: {}", answer.text());
    }

    /// An answer, unless its content could not be brought to its end.
    fn files(&self, method: &str, path: &str, more: &str, body: &[u8]) -> Option<Answer> {
        let target = format!("{}/files?path={}{more}", self.route, encoded(path));
        self.scene.gateway.client().try_request(method, &target, &[], body).ok()
    }

    fn delete(self) {
        let answer = self.scene.gateway.request("DELETE", &self.route, &[], &[]);
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
}

fn has(answer: &Answer, token: &[u8]) -> bool {
    answer.body.windows(token.len()).any(|part| part == token)
}

/// A path of the host by ways that may lead there, were it not for the sandbox.
fn ways(path: &Path) -> Vec<String> {
    let path = path.display();
    vec![
        path.to_string(),
        format!("/../../..{path}"),
        format!("/tmp/../../../..{path}"),
        format!("/proc/1/root{path}"),
        format!("/proc/self/root{path}"),
        format!("/proc/self/cwd{path}"),
        format!("/tmp/root{path}"),
        format!("/tmp/up{path}"),
        format!("/tmp/proc{path}"),
    ]
}

pub(crate) fn all_files_are_the_instances_own(standing: Standing) {
    let scene = Scene::start(standing);
    let (host, usr) = (scene.work().parent().unwrap().to_owned(), scene.usr_dir().to_owned());
    let token = std::fs::read(host.join("private")).unwrap();
    let instance = Instance::create(&scene);
    instance.exec(
        "ln -s / /tmp/root; ln -s ../../../../../.. /tmp/up; ln -s /proc/1/root /tmp/proc; \
         ln -s /proc/self/fd /tmp/fds",
    );
    // With one id a sandbox's root is the gateway's user below `/usr` too: `known.rs`, `private_file_below_usr`.
    let below_usr = (standing != Standing::OneId).then(|| usr.join("secret"));
    for secret in [host.join("private"), host.join("readable")].into_iter().chain(below_usr) {
        for path in ways(&secret) {
            for more in ["", "&tar=true", "&stat=true", "&watch=true"] {
                let Some(answer) = instance.files("GET", &path, more, &[]) else { continue };
                println!("{path}{more}: {}", answer.status);
                let is_shown = more == "&stat=true" && secret.starts_with(&usr) && answer.status == 200;
                assert!(is_shown || matches!(answer.status, 403 | 404), "{path}{more}: {}", answer.text());
                assert!(!has(&answer, &token), "{path}{more}: {}", answer.text());
            }
        }
    }
    for tree in [host.as_path(), &usr, Path::new("/proc/1/fd"), Path::new("/tmp/fds")] {
        let tree = tree.display().to_string();
        for more in ["&list=true", "&tar=true"] {
            let Some(answer) = instance.files("GET", &tree, more, &[]) else { continue };
            let is_usr = Path::new(&tree) == usr;
            assert!(is_usr && standing == Standing::OneId || !has(&answer, &token), "{tree}{more}");
            assert!(is_usr || !has(&answer, b"private"), "{tree}{more}: {}", answer.text());
        }
    }
    // Whatever becomes of these, it is in the instance. `Scene::stop` looks at what is outside.
    for victim in [host.join("private"), host.join("readable"), usr.join("readable")] {
        let before = std::fs::read(&victim).unwrap();
        for path in ways(&victim) {
            for (method, more) in [
                ("PUT", "&mode=6777".to_owned()),
                ("POST", "&op=mkdir".to_owned()),
                ("POST", format!("&op=move&to={}", encoded("/tmp/moved"))),
                ("DELETE", "&recursive=true".to_owned()),
            ] {
                let answer = instance.files(method, &path, &more, b"changed").unwrap();
                println!("{method} {path}{more}: {}", answer.status);
                assert!(answer.status < 500, "{method} {path}{more}: {}", answer.text());
            }
        }
        assert_eq!(std::fs::read(&victim).unwrap(), before, "{}", victim.display());
    }
    for path in [
        "/.faas/agent",
        "/.faas/added",
        "/proc/sysrq-trigger",
        "/proc/sys/kernel/core_pattern",
        "/proc/1/mem",
    ] {
        let answer = instance.files("PUT", path, "", b"changed").unwrap();
        assert!(
            matches!(answer.status, 403 | 404 | 409 | 422),
            "{path}: {} {}",
            answer.status,
            answer.text()
        );
        let answer = instance.files("DELETE", path, "", &[]).unwrap();
        assert!(matches!(answer.status, 403 | 404 | 409), "{path}: {} {}", answer.status, answer.text());
    }
    // Its agent is as it was.
    assert_eq!(instance.files("GET", "/etc/passwd", "", &[]).unwrap().status, 200);
    instance.delete();
    scene.stop();
}
