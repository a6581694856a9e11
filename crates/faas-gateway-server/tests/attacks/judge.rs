//! Compares what attempts gave in a sandbox with what they gave where they must succeed.

use std::collections::BTreeMap;

use serde_json::json;

use super::known::Findings;
use super::scene::{Scene, attack, stdout};

/// Makes every attempt of a group in a sandbox, as its root and as somebody without privileges, and where it must
/// succeed.
pub(crate) fn judge(group: &'static str) {
    let scene = Scene::start();
    let mut findings = Findings::of(group);
    let controls = controls(&scene, group);
    for user in ["0:0", "1000:1000"] {
        let mut request = attack(&scene.arguments(group));
        request["user"] = json!(user);
        in_sandbox(group, user, &controls, &stdout(&scene.gateway.execute(request)), &mut findings);
    }
    on_host(&scene, group, &controls, &[], &mut findings);
    scene.stop();
    findings.judge();
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
        for (name, _) in controls.iter().filter(|(_, control)| *control == kind) {
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
