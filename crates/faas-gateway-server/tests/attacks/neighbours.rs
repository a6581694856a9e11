//! Sandboxes beside each other: what is in one is not in another, and what one uses up the others still have.

use std::collections::BTreeSet;

use faas_test_support::gateway::Gateway;
use faas_test_support::needs;
use serde_json::{Value, json};

use super::held::{Held, HeldOnHost};
use super::judge;
use super::known::Findings;
use super::scene::{ATTACKER, Scene, attack, random, stdout, with_attacker};

const PROGRAM: &str = env!("CARGO_BIN_EXE_faas-gateway-server");

fn gateway() -> Gateway {
    Gateway::builder(PROGRAM).arg("--max-concurrent").arg("32").start()
}

/// A command of a neighbour that must go well whatever else happens.
fn must_go_well(gateway: &Gateway) {
    let answer =
        gateway.execute(json!({"command": "echo right; cat /etc/hostname >/dev/null", "timeout_ms": 60_000}));
    assert_eq!(stdout(&answer), "right\n");
}

#[test]
fn nothing_of_another_sandbox_can_be_reached() {
    needs!(Root);
    let scene = Scene::start();
    let mut findings = Findings::of("neighbour");
    let controls = judge::controls(&scene, "neighbour");
    let name = format!("neighbour-{}", random());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let own = [format!("name={name}"), format!("port={port}"), "key=7007".to_owned()];

    let token = scene.token_option();
    let mut tool = vec!["neighbour", "dir=/tmp", token.as_str()];
    tool.extend(own.iter().map(String::as_str));
    let other = Held::start(scene.gateway.client(), &tool, |_| {});
    for user in ["0:0", "1000:1000"] {
        // The PIDs of the other one by which the host knows it, and by which it knows itself.
        let inner = std::fs::read_to_string(format!("/proc/{}/status", other.pid)).unwrap();
        let inner = inner.lines().find_map(|line| line.strip_prefix("NSpid:")?.split_whitespace().last());
        assert!(inner.is_some(), "a sandbox has a PID namespace");
        let mut arguments =
            vec!["try".to_owned(), "neighbour".to_owned(), "dir=/tmp".to_owned(), token.clone()];
        arguments.extend(own.iter().cloned());
        arguments.push(format!("victim={}:{}", other.pid, scene.kept_at()));
        let mut request = attack(&arguments);
        request["user"] = json!(user);
        let said = stdout(&scene.gateway.execute(request));
        judge::in_sandbox("neighbour", user, &controls, &said, &mut findings);
    }
    assert_eq!(other.end().ok()["exit_code"], 0, "the other one was disturbed");

    // The control: the same on the host, where everybody reaches everybody.
    let mut tool = vec!["neighbour".to_owned(), format!("dir={}", scene.work().display()), token];
    tool.extend(own.iter().cloned());
    let other = HeldOnHost::start(&scene.attacker(), &tool);
    let mut more = own.to_vec();
    more.push(format!("victim={}:{}", other.pid(), scene.kept_at()));
    judge::on_host(&scene, "neighbour", &controls, &more, &mut findings);
    drop(other);
    scene.stop();
    findings.judge();
}

/// What there is so little of that all of it is taken in no time, on every machine.
const SMALL: [&str; 6] = ["aio", "inflight", "inotify-instances", "pipes", "ptys", "shm"];

/// What the kernel counts for each user it counts for both, where two gateways give their sandboxes the same ids.
#[test]
fn sandboxes_of_two_gateways_have_ids_of_their_own() {
    needs!(Root);
    let mut findings = Findings::of("ids");
    // With one slot ready each takes the first that there is.
    let gateways = [(); 2].map(|()| Gateway::builder(PROGRAM).arg("--native-slots").arg("1").start());
    let used = |gateway: &Gateway| {
        let ranges: BTreeSet<String> = (0..8)
            .map(|_| {
                stdout(&gateway.execute(json!({"command": ["awk", "{print $2}", "/proc/self/uid_map"]})))
            })
            .collect();
        ranges
    };
    let (one, other) = (used(&gateways[0]), used(&gateways[1]));
    findings.expect(one.is_disjoint(&other), "two gateways", || format!("{one:?} and {other:?}"));
    gateways.into_iter().for_each(Gateway::stop);
    findings.judge();
}

/// How much of each is taken, where the kernel sets no limit that could be reached in a test.
const MOST: [(&str, &str); 4] =
    [("tcp", "most=20"), ("udp", "most=400"), ("netlink", "most=200"), ("epoll", "most=100000")];

#[test]
fn what_one_sandbox_takes_up_the_others_and_the_host_still_have() {
    needs!(Root);
    let gateway = Gateway::builder(PROGRAM).alone().start();
    let mut findings = Findings::of("resources");
    let dir = tempfile::tempdir().unwrap();
    let attacker = dir.path().join("attacker");
    std::fs::write(&attacker, faas_attacker::program()).unwrap();
    std::fs::set_permissions(&attacker, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for resource in faas_attacker::RESOURCES {
        let what = format!("what={resource}");
        let most = MOST.iter().find(|(name, _)| *name == resource).map(|(_, most)| *most);
        let tool: Vec<&str> = ["hold", &what].into_iter().chain(most).collect();
        let taker = Held::start(gateway.client(), &tool, |request| request["memory_mb"] = json!(1024));
        let neighbour = gateway.execute(attack(&["use", &what])).ok();
        let host = std::process::Command::new(&attacker)
            .args(["use", &what])
            .arg(format!("dir={}", dir.path().display()))
            .output()
            .unwrap();
        let taken = taker.end().ok();
        println!(
            "{resource:<20} {} neighbour: {}{} host: {}{}",
            taken["stdout"].as_str().unwrap_or_default().trim(),
            neighbour["stdout"].as_str().unwrap_or_default().trim(),
            neighbour["stderr"].as_str().unwrap_or_default().trim(),
            String::from_utf8_lossy(&host.stdout).trim(),
            String::from_utf8_lossy(&host.stderr).trim(),
        );
        let text = taken["stdout"].as_str().unwrap_or_default();
        // A call that no sandbox may make; otherwise, when nothing was taken, nothing is proved.
        if text != "held 0, ended by ENOSYS\n" {
            let taken = text.starts_with("held ") && !text.starts_with("held 0,");
            findings.expect(taken, resource, || text.to_owned());
            let used_up = !SMALL.contains(&resource) || !text.contains("ended by nothing");
            findings.expect(used_up, resource, || format!("there is still more of it: {text}"));
            let others_have = neighbour["exit_code"] == 0;
            findings.expect(others_have, resource, || format!("a neighbour has none: {neighbour}"));
        }
        let said = String::from_utf8_lossy(&host.stderr);
        findings.expect(host.status.success(), resource, || format!("the host has none: {said}"));
    }
    gateway.stop();
    findings.judge();
}

/// What is sent and not read, with how much memory a sandbox has: more of it than that must not be had.
#[test]
fn what_the_kernel_keeps_for_a_sandbox_is_on_its_account() {
    needs!(Root);
    let gateway = gateway();
    let mut findings = Findings::of("memory");
    for kind in ["pipe", "unix", "packet-ring", "xdp-ring", "raw", "netlink", "udp", "tcp"] {
        let mut request = attack(&["unpaid", &format!("kind={kind}"), "keep_ms=5000"]);
        request["memory_mb"] = json!(64);
        let answer = gateway.execute(request);
        let body = answer.json();
        let said = body["stdout"].as_str().unwrap_or_default();
        let got: Option<u64> = said.split_whitespace().next().and_then(|number| number.parse().ok());
        println!("{kind:<12} {} {} {}", answer.status, body["signal"], said.trim());
        match got {
            Some(got) => findings.expect(got <= 64, kind, || said.trim().to_owned()),
            // Ended for want of memory, alone or with its agent.
            None => {
                let ended = body["oom_killed"] == true || body["code"] == "sandbox_lost";
                findings.expect(ended, kind, || body.to_string());
            }
        }
        must_go_well(&gateway);
    }
    gateway.stop();
    findings.judge();
}

/// Commands that use up what they can get, each with what may come of it.
#[test]
fn harm_stays_with_whoever_does_it() {
    needs!(Root);
    let gateway = gateway();
    let limits = |mut request: Value| {
        request["timeout_ms"] = json!(3000);
        request["memory_mb"] = json!(128);
        request["pids_limit"] = json!(64);
        request
    };
    let tool = |arguments: &[&str]| limits(attack(arguments));
    let shell = |line: &str| limits(with_attacker(json!({"command": line})));
    let harms = [
        ("fork bomb", tool(&["harm", "what=forks"])),
        ("fork bomb of a shell", shell(":() { : | : & }; :; sleep 9")),
        ("memory", tool(&["harm", "what=memory"])),
        ("zombies", tool(&["harm", "what=zombies"])),
        ("cpu", shell("for n in 1 2 3 4 5 6 7 8; do (while :; do :; done) & done; wait")),
        ("output", shell("yes 0123456789012345678901234567890123456789")),
        ("output on both", shell("yes a & yes b >&2")),
        ("deaf to signals", shell("trap '' TERM INT HUP QUIT; while :; do sleep 1; done")),
        ("daemons", shell("for n in 1 2 3 4; do setsid sleep 100 & done; exit 0")),
        ("kills everybody", tool(&["harm", "what=kill-all"])),
    ];
    let client = gateway.client();
    std::thread::scope(|scope| {
        let running: Vec<_> = harms
            .iter()
            .map(|(name, request)| (name, scope.spawn(move || client.execute(request.clone()))))
            .collect();
        // While it goes on.
        while running.iter().any(|(_, harm)| !harm.is_finished()) {
            must_go_well(&gateway);
        }
        for (name, harm) in running {
            let answer = harm.join().unwrap();
            let body = answer.json();
            println!("{name}: {} {} {} {}", answer.status, body["code"], body["exit_code"], body["signal"]);
            let typed = match answer.status {
                200 => body["exit_code"].is_number() || body["signal"].is_string(),
                502 => body["code"] == "sandbox_lost",
                504 => body["code"] == "execution_timeout" && body["execution"].is_object(),
                _ => false,
            };
            assert!(typed, "{name}: {}", answer.text());
        }
    });
    must_go_well(&gateway);
    gateway.stop();
}

#[test]
fn a_full_file_system_is_an_error_and_no_more_than_was_given() {
    needs!(Root, Loop);
    let gateway = gateway();
    let fill = |dir: &str, disk_mb: Option<u64>| {
        let mut request = attack(&["harm", "what=disk", &format!("dir={dir}")]);
        request["memory_mb"] = json!(256);
        if let Some(disk_mb) = disk_mb {
            request["disk_mb"] = json!(disk_mb);
        }
        let said = stdout(&gateway.execute(request));
        println!("{dir} {disk_mb:?}: {}", said.trim());
        let (bytes, errno) = said.trim().split_once(" bytes, ").unwrap();
        assert!(matches!(errno, "ENOSPC" | "EDQUOT"), "{said}");
        bytes.parse::<u64>().unwrap() >> 20
    };
    assert!(fill("/tmp", None) <= 128, "half of its memory");
    assert!(fill("/dev/shm", None) <= 64);
    assert!(fill("/run", None) <= 16);
    assert!(fill("/tmp", Some(64)) <= 64);
    must_go_well(&gateway);
    gateway.stop();
}

/// A lock that one sandbox holds on a file that it has in common with others keeps nobody else from having it.
#[test]
fn locks_on_what_all_share_are_each_sandboxs_own() {
    needs!(Root);
    let scene = Scene::start();
    let mut findings = Findings::of("locks");
    let readable = format!("{}/readable", scene.usr_dir().display());
    let shared = [
        readable.as_str(),
        "/usr/bin/env",
        "/etc/passwd",
        "/dev/null",
        "/dev/urandom",
        "/dev",
        "/.faas",
        "/.faas/agent",
    ];
    for path in shared {
        let path_option = format!("path={path}");
        let holder = Held::start(scene.gateway.client(), &["lock", &path_option], |_| {});
        let neighbour = stdout(&scene.gateway.execute(attack(&["trylock", &path_option])));
        findings.expect(neighbour == "free\n", path, || format!("a neighbour is told {}", neighbour.trim()));
        if !path.starts_with("/.faas") {
            let host = scene.run_on_host(false, &["trylock".to_owned(), path_option.clone()]);
            findings.expect(host == "free\n", path, || format!("the host is told {}", host.trim()));
        }
        assert_eq!(stdout(&holder.end()), "");
    }
    // The control: within one sandbox it does.
    let both = format!(
        "{ATTACKER} lock path={readable} & until grep -qx ready /proc/$!/comm; do :; done; \
         {ATTACKER} trylock path={readable}; kill -USR1 $!; wait"
    );
    let answer =
        scene.gateway.execute(with_attacker(json!({"command": ["bash", "-c", both], "timeout_ms": 60_000})));
    assert_eq!(stdout(&answer), "EAGAIN\n");
    scene.stop();
    findings.judge();
}

/// What inotify tells of files that a sandbox has in common with others is what happens in the sandbox itself.
#[test]
fn nobody_is_watched_over_what_all_share() {
    needs!(Root);
    let scene = Scene::start();
    let mut findings = Findings::of("watches");
    let usr = scene.usr_dir().display().to_string();
    let used = format!(
        "cat {usr}/readable /etc/passwd >/dev/null; ls {usr} /dev /.faas /usr/bin >/dev/null; head -c 1 /dev/urandom >/dev/null"
    );
    let watch = |path: &str, meanwhile: &dyn Fn()| {
        let watcher = Held::start(scene.gateway.client(), &["watch", &format!("path={path}")], |_| {});
        meanwhile();
        stdout(&watcher.end()).trim().to_owned()
    };
    let by_neighbour = || drop(stdout(&scene.gateway.execute(json!({"command": used.as_str()}))));
    let by_host = || {
        let done = std::process::Command::new("sh")
            .arg("-c")
            .arg(&used)
            .stderr(std::process::Stdio::null())
            .status();
        assert!(done.is_ok());
    };
    let readable = format!("{usr}/readable");
    for path in [
        readable.as_str(),
        &usr,
        "/usr/bin",
        "/etc",
        "/etc/passwd",
        "/dev",
        "/dev/null",
        "/dev/urandom",
        "/.faas",
        "/.faas/agent",
    ] {
        for (who, meanwhile) in [("a neighbour", &by_neighbour as &dyn Fn()), ("the host", &by_host)] {
            let seen = watch(path, meanwhile);
            println!("{path} used by {who}: {seen}");
            findings.expect(seen == "events 0", path, || format!("{seen} of {who}"));
        }
    }
    // The control: what happens in the sandbox is seen.
    let own = format!(
        "{ATTACKER} watch path={usr} & until grep -qx ready /proc/$!/comm; do :; done; {used}; kill -USR1 $!; wait"
    );
    let answer =
        scene.gateway.execute(with_attacker(json!({"command": ["bash", "-c", own], "timeout_ms": 60_000})));
    let seen = stdout(&answer);
    assert!(seen.starts_with("events ") && seen != "events 0\n", "{seen}");
    scene.stop();
    findings.judge();
}
