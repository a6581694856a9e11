//! Sandboxes beside each other: what is in one is not in another, and what one uses up the others still have.

use std::collections::BTreeSet;

use faas_test_support::gateway::Gateway;
use faas_test_support::needs;
use serde_json::{Value, json};

use super::held::{Held, HeldOnHost};
use super::judge;
use super::known::Findings;
use super::scene::{ATTACKER, Scene, attack, random, stdout, with_attacker};
use super::standing::{Served, Standing};

fn gateway(standing: Standing) -> Served {
    standing.start(|builder| builder.arg("--max-concurrent").arg("32"))
}

/// A command of a neighbour that must go well whatever else happens.
fn must_go_well(gateway: &Gateway) {
    let answer =
        gateway.execute(json!({"command": "echo right; cat /etc/hostname >/dev/null", "timeout_ms": 60_000}));
    assert_eq!(stdout(&answer), "right\n");
}

pub(crate) fn nothing_of_another_sandbox_can_be_reached(standing: Standing) {
    let scene = Scene::start(standing);
    let mut findings = Findings::of(standing, "neighbour");
    let controls = judge::controls(&scene, "neighbour");
    let name = format!("neighbour-{}", random());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let own = [format!("name={name}"), format!("port={port}"), "key=7007".to_owned()];

    let token = scene.token_option();
    let mut tool = vec!["neighbour", "dir=/tmp", token.as_str()];
    tool.extend(own.iter().map(String::as_str));
    let other = Held::start(scene.gateway.client(), &tool, |_| {});
    let status = std::fs::read_to_string(format!("/proc/{}/status", other.pid)).unwrap();
    let numbers = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(|number| number.parse::<u32>().unwrap()).collect::<Vec<_>>()
    };
    assert!(numbers("NSpid:").len() > 1, "a sandbox has a PID namespace");
    let ids = standing.ids_on_the_host(scene.gateway.user());
    for id in numbers("Uid:") {
        assert!(ids.contains(&id), "{id} is not in {ids:?}");
    }
    for user in standing.users() {
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
pub(crate) fn sandboxes_of_two_gateways_have_ids_of_their_own(standing: Standing) {
    let mut findings = Findings::of(standing, "ids");
    // With one slot ready each takes the first that there is.
    let gateways = standing.start_two(|builder| builder.arg("--native-slots").arg("1"));
    let used = |gateway: &Gateway| {
        let ranges: BTreeSet<String> = (0..8)
            .map(|_| {
                stdout(&gateway.execute(json!({"command": ["awk", "{print $2}", "/proc/self/uid_map"]})))
            })
            .collect();
        ranges
    };
    let (one, other) = (used(&gateways.0), used(&gateways.1));
    findings.expect(one.is_disjoint(&other), "two gateways", || format!("{one:?} and {other:?}"));
    gateways.0.stop();
    gateways.1.stop();
    findings.judge();
}

/// How much of each is taken, where the kernel sets no limit that could be reached in a test.
const MOST: [(&str, &str); 4] =
    [("tcp", "most=20"), ("udp", "most=400"), ("netlink", "most=200"), ("epoll", "most=100000")];

pub(crate) fn what_one_sandbox_takes_up_the_others_and_the_host_still_have(standing: Standing) {
    // An ordinary user's takes what is counted for that user.
    let gateway = standing.start(|builder| if standing.is_rootless() { builder } else { builder.alone() });
    let mut findings = Findings::of(standing, "resources");
    let dir = tempfile::tempdir().unwrap();
    let attacker = dir.path().join("attacker");
    std::fs::write(&attacker, faas_attacker::program()).unwrap();
    for path in [dir.path(), &attacker] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    if let Some(user) = gateway.user() {
        user.own(dir.path());
    }
    for resource in faas_attacker::RESOURCES {
        let what = format!("what={resource}");
        let most = MOST.iter().find(|(name, _)| *name == resource).map(|(_, most)| *most);
        let tool: Vec<&str> = ["hold", &what].into_iter().chain(most).collect();
        let taker = Held::start(gateway.client(), &tool, |request| request["memory_mb"] = json!(1024));
        let neighbour = gateway.execute(attack(&["use", &what])).json();
        let host = std::process::Command::new(&attacker)
            .args(["use", &what])
            .arg(format!("dir={}", dir.path().display()))
            .output()
            .unwrap();
        let of_user = gateway.user().map(|user| {
            let mut command = user.command(&attacker);
            command.args(["use", &what]).arg(format!("dir={}", dir.path().display()));
            command.output().unwrap()
        });
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
        let what = format!("{resource} of the user");
        if text.contains("ended by nothing") {
            findings.not_seen(resource);
            findings.not_seen(&what);
        }
        // Where the gateway is an ordinary user's: whether the user itself has any, and so the gateway. How much may be
        // in flight is each sender's own limit of descriptors.
        if let Some(of_user) = of_user.filter(|_| resource != "inflight") {
            let said = String::from_utf8_lossy(&of_user.stderr);
            println!("{what}: {}{said}", String::from_utf8_lossy(&of_user.stdout));
            findings.expect(of_user.status.success(), &what, || said.into_owned());
        }
    }
    gateway.stop();
    findings.judge();
}

/// What is sent and not read, with how much memory a sandbox has: more of it than that must not be had.
pub(crate) fn what_the_kernel_keeps_for_a_sandbox_is_on_its_account(standing: Standing) {
    let gateway = gateway(standing);
    let mut findings = Findings::of(standing, "memory");
    if standing.is_rootless() {
        // What is known to get through is what the gateway says of itself.
        let memory = &gateway.request("GET", "/api/v1/capabilities", &[], &[]).ok()["runtimes"]["native"]["limits"]
            ["memory"];
        assert_eq!(memory["supported"], false, "{memory}");
    }
    for kind in ["pipe", "unix", "packet-ring", "xdp-ring", "raw", "netlink", "udp", "tcp"] {
        // Nobody but the watchdog of netlink sockets looks later where there are no cgroups.
        let keep = if standing.is_rootless() && kind != "netlink" { "keep_ms=0" } else { "keep_ms=5000" };
        let mut request = attack(&["unpaid", &format!("kind={kind}"), keep]);
        request["memory_mb"] = json!(64);
        let answer = gateway.execute(request);
        let body = answer.json();
        let said = body["stdout"].as_str().unwrap_or_default();
        let got: Option<u64> = said.split_whitespace().next().and_then(|number| number.parse().ok());
        println!("{kind:<12} {} {} {}", answer.status, body["signal"], said.trim());
        match got {
            Some(got) => {
                if got <= 64 && said.contains("EMFILE") {
                    findings.not_seen(kind);
                }
                findings.expect(got <= 64, kind, || said.trim().to_owned());
            }
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
pub(crate) fn harm_stays_with_whoever_does_it(standing: Standing) {
    let gateway = gateway(standing);
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

pub(crate) fn a_full_file_system_is_an_error_and_no_more_than_was_given(standing: Standing) {
    if !standing.is_rootless() {
        needs!(Loop);
    }
    let gateway = gateway(standing);
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
pub(crate) fn locks_on_what_all_share_are_each_sandboxs_own(standing: Standing) {
    let scene = Scene::start(standing);
    let mut findings = Findings::of(standing, "locks");
    let (_, readable) = scene.shared();
    let shared = [
        readable.as_str(),
        if standing == Standing::InImage { "/bin/sh" } else { "/usr/bin/env" },
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
        if let Some(there) = scene.on_the_host(path) {
            let host = scene.run_on_host(false, &["trylock".to_owned(), format!("path={there}")]);
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
        scene.gateway.execute(with_attacker(json!({"command": ["sh", "-c", both], "timeout_ms": 60_000})));
    assert_eq!(stdout(&answer), "EAGAIN\n");
    scene.stop();
    findings.judge();
}

/// What inotify tells of files that a sandbox has in common with others is what happens in the sandbox itself.
pub(crate) fn nobody_is_watched_over_what_all_share(standing: Standing) {
    let scene = Scene::start(standing);
    let mut findings = Findings::of(standing, "watches");
    let (usr, readable) = scene.shared();
    let use_all = |at: &dyn Fn(&str) -> String| {
        let [readable, usr, passwd, bin] = [&readable, &usr, "/etc/passwd", "/usr/bin"].map(at);
        format!(
            "cat {readable} {passwd} >/dev/null; ls {usr} /dev /.faas {bin} >/dev/null; head -c 1 /dev/urandom >/dev/null"
        )
    };
    let used = use_all(&str::to_owned);
    let used_on_host = use_all(&|path| scene.on_the_host(path).unwrap());
    let watch = |path: &str, meanwhile: &dyn Fn()| {
        let watcher = Held::start(scene.gateway.client(), &["watch", &format!("path={path}")], |_| {});
        meanwhile();
        stdout(&watcher.end()).trim().to_owned()
    };
    let by_neighbour = || drop(stdout(&scene.gateway.execute(json!({"command": used.as_str()}))));
    let by_host = || {
        let done = std::process::Command::new("sh")
            .arg("-c")
            .arg(&used_on_host)
            .stderr(std::process::Stdio::null())
            .status();
        assert!(done.is_ok());
    };
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
        scene.gateway.execute(with_attacker(json!({"command": ["sh", "-c", own], "timeout_ms": 60_000})));
    let seen = stdout(&answer);
    assert!(seen.starts_with("events ") && seen != "events 0\n", "{seen}");
    scene.stop();
    findings.judge();
}
