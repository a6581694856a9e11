//! Compares what attempts gave in a sandbox with what they gave where they must succeed.

use std::collections::BTreeMap;

use serde_json::json;

use super::known::Findings;
use super::scene::{Scene, attack, stdout};
use super::standing::Standing;

/// Makes every attempt of a group in a sandbox, as its root and as somebody without privileges, and where it must
/// succeed.
pub(crate) fn judge(standing: Standing, group: &'static str) {
    let scene = Scene::start(standing);
    let mut findings = Findings::of(standing, group);
    let controls = controls(&scene, group);
    for user in standing.users() {
        let mut request = attack(&scene.arguments(group));
        request["user"] = json!(user);
        in_sandbox(group, user, &controls, &stdout(&scene.gateway.execute(request)), &mut findings);
    }
    on_host(&scene, group, &controls, &[], &mut findings);
    if standing == Standing::OneId {
        let answer = scene.gateway.execute(json!({"command": "true", "user": "1000:1000"}));
        assert_eq!(answer.status, 422, "there is nobody but root: {}", answer.text());
    }
    as_the_user(&scene, group, &mut findings);
    scene.stop();
    findings.judge();
}

/// What the gateway's user itself reaches, where that is not root: so it is worth something that its sandboxes do not.
const REACHED_BY_THE_USER: [(&str, &str); 6] = [
    ("files", "host_files_by_path"),
    ("files", "descriptors_of_visible_processes"),
    ("processes", "read_memory_with_process_vm_readv"),
    ("processes", "ptrace_seize"),
    ("processes", "kill"),
    ("processes", "read_limits"),
];

fn as_the_user(scene: &Scene, group: &str, findings: &mut Findings) {
    // Yama may keep a user from tracing its own processes (Documentation/admin-guide/LSM/Yama.rst).
    let yama = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let may_trace = matches!(yama.trim(), "" | "0");
    for (_, name) in REACHED_BY_THE_USER.iter().filter(|(of, _)| *of == group) {
        if !may_trace && matches!(*name, "read_memory_with_process_vm_readv" | "ptrace_seize") {
            continue;
        }
        let arguments = ["try", group, "control=bare", &format!("only={name}")].map(str::to_owned);
        let Some(said) = scene.run_as_the_user(&arguments) else { return };
        let outcome = outcomes(&said).get(name).copied().unwrap_or("missing").to_owned();
        println!("control user       {group:<11} {name:<46} {outcome}");
        findings.expect(outcome.starts_with("ESCAPED "), &format!("{name} by the user"), || outcome);
    }
}

/// Controls that say nothing in a standing.
fn has_control(standing: Standing, name: &str) -> bool {
    // Without root there is no cgroup whose name could be seen.
    !(standing.is_rootless() && name == "cgroup_of_the_gateway")
}

/// The attempts of a group, each with its control.
pub(crate) fn controls(scene: &Scene, group: &str) -> BTreeMap<String, String> {
    let listed = scene.run_on_host(false, &["list".to_owned(), group.to_owned()]);
    let controls: BTreeMap<_, _> = listed
        .lines()
        .map(|line| {
            let mut fields = line.split('\t').map(str::to_owned);
            (fields.next().unwrap(), fields.next().unwrap())
        })
        .collect();
    assert!(!controls.is_empty(), "{group}: {listed}");
    controls
}

/// Every attempt must have been refused, or have reached nothing.
pub(crate) fn in_sandbox(
    group: &str,
    user: &str,
    controls: &BTreeMap<String, String>,
    said: &str,
    findings: &mut Findings,
) {
    let outcomes = outcomes(said);
    for name in controls.keys() {
        let outcome = outcomes.get(name.as_str()).copied().unwrap_or("missing");
        println!("sandbox {user:<10} {group:<11} {name:<46} {outcome}");
        let good = outcome.starts_with("refused(") || outcome.starts_with("HARMLESS ");
        findings.expect(good, name, || format!("as {user}: {outcome}"));
    }
}

/// Where it has a control, every attempt must have succeeded.
pub(crate) fn on_host(
    scene: &Scene,
    group: &str,
    controls: &BTreeMap<String, String>,
    more: &[String],
    findings: &mut Findings,
) {
    let mut kinds: Vec<&str> = controls.values().map(String::as_str).filter(|kind| *kind != "none").collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        let mut arguments = vec!["try".to_owned(), group.to_owned(), format!("control={kind}")];
        arguments.extend(more.iter().cloned());
        let said = scene.run_on_host(kind == "started", &arguments);
        let outcomes = outcomes(&said);
        let of_kind = controls.iter().filter(|(_, control)| *control == kind);
        for (name, _) in of_kind.filter(|(name, _)| has_control(scene.standing, name)) {
            let outcome = outcomes.get(name.as_str()).copied().unwrap_or("missing");
            println!("control {kind:<10} {group:<11} {name:<46} {outcome}");
            let good = outcome.starts_with("ESCAPED ") || outcome.starts_with("absent(");
            findings.expect(good, &format!("control of {name}"), || outcome.to_owned());
        }
    }
}

/// What each attempt gave.
fn outcomes(said: &str) -> BTreeMap<&str, &str> {
    said.lines().filter_map(|line| line.strip_prefix("ATTEMPT ")?.split_once(": ")).collect()
}
