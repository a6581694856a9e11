//! The processes of ours inside of a sandbox, and the connection to them: ended, stopped, made to say something else.
//! Only the execution of whoever does it may suffer.

use std::io::Read as _;

use faas_test_support::gateway::http::Answer;
use serde_json::{Value, json};

use super::held::Held;
use super::known::Findings;
use super::scene::{ATTACKER, Scene, attack, stdout, with_attacker};
use super::standing::{Served, Standing};

fn gateway(standing: Standing) -> Served {
    standing.start(|builder| builder.arg("--max-concurrent").arg("64"))
}

/// An execution that goes on for a while and must come to its own end.
fn neighbour() -> Value {
    json!({"command": "for n in 1 2 3 4 5 6 7 8; do echo $n; sleep 0.25; done; exit 5", "timeout_ms": 60_000})
}

fn is_right(answer: &Answer) {
    let body = answer.ok();
    assert_eq!(
        (&body["exit_code"], &body["stdout"]),
        (&json!(5), &json!("1\n2\n3\n4\n5\n6\n7\n8\n")),
        "{body:#}"
    );
}

/// The agent makes its socket while the first program runs already.
const BOUND: &str = "until [ -S /.faas/run/agent.sock ]; do :; done";

/// How an execution may end.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(dead_code, reason = "only there an agent can be made to say things")
)]
enum End {
    /// `sandbox_lost`, and nothing of what was forged is passed on.
    Lost,
    /// Nothing is heard of the agent any more: `sandbox_lost`, or the timeout that the gateway keeps itself.
    LostInSilence,
    /// What the program itself did: nobody was disturbed.
    Undisturbed,
    /// The result that the sandbox's root made up for itself.
    Forged(i64),
    /// A typed error of another kind.
    Code(&'static str),
    /// As it happens to be: lost, or as if nothing had been.
    LostOrUndisturbed,
}

fn ended(name: &str, end: End, answer: &Answer) {
    let body = answer.json();
    println!("{name}: {} {} {}", answer.status, body["code"], body["exit_code"]);
    let undisturbed = answer.status == 200 && body["exit_code"] == 0;
    let lost = answer.status == 502 && body["code"] == "sandbox_lost";
    let good = match end {
        End::Lost => lost,
        End::LostInSilence => lost || (answer.status == 504 && body["code"] == "execution_timeout"),
        End::Undisturbed => undisturbed,
        End::Forged(code) => answer.status == 200 && body["exit_code"] == code,
        End::Code(code) => body["code"] == code,
        End::LostOrUndisturbed => lost || undisturbed,
    };
    assert!(good, "{name} must end as {end:?}: {}", answer.text());
    if answer.status != 200 {
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{name}");
        assert!(answer.body.len() < 8192, "{name}: {} bytes", answer.body.len());
    }
}

/// Runs all of them at once, with others beside them, and looks at each.
fn all_at_once(standing: Standing, requests: Vec<(&'static str, End, Value)>) {
    let gateway = gateway(standing);
    let client = gateway.client();
    std::thread::scope(|scope| {
        let beside: Vec<_> = (0..3).map(|_| scope.spawn(move || client.execute(neighbour()))).collect();
        let running: Vec<_> = requests
            .into_iter()
            .map(|(name, end, request)| (name, end, scope.spawn(move || client.execute(request))))
            .collect();
        for (name, end, answer) in running {
            ended(name, end, &answer.join().unwrap());
        }
        for answer in beside {
            is_right(&answer.join().unwrap());
        }
    });
    assert_eq!(gateway.request("GET", "/health", &[], &[]).status, 200);
    is_right(&gateway.execute(neighbour()));
    gateway.stop();
}

pub(crate) fn whoever_ends_the_agent_loses_its_own_sandbox_alone(standing: Standing) {
    let shell = |line: &str| json!({"command": line, "timeout_ms": 2000});
    all_at_once(
        standing,
        vec![
            // The program's parent is the agent, and the agent's parent the keeper.
            ("kill the agent", End::Lost, shell("kill -9 $PPID; sleep 1")),
            ("kill the keeper", End::Lost, shell("kill -9 $(awk '{print $4}' /proc/$PPID/stat); sleep 1")),
            (
                "kill init",
                End::Undisturbed,
                shell("kill -9 1; kill -TERM 1; kill -SEGV 1; kill -STOP 1; true"),
            ),
            ("kill everybody", End::Lost, {
                let mut request = attack(&["harm", "what=kill-all"]);
                request["timeout_ms"] = json!(2000);
                request
            }),
            ("stop the agent", End::LostInSilence, shell("kill -STOP $PPID; sleep 1")),
            (
                "stop the keeper",
                End::Undisturbed,
                shell("kill -STOP $(awk '{print $4}' /proc/$PPID/stat); exit 0"),
            ),
            ("stop everybody", End::LostInSilence, shell("kill -STOP -1; sleep 1")),
            ("end the agent politely", End::Lost, shell("kill -TERM $PPID; sleep 1")),
            ("crash the agent", End::Lost, shell("kill -SEGV $PPID; sleep 1")),
            (
                "close its socket's name",
                End::Undisturbed,
                shell(&format!("{BOUND}; rm /.faas/run/agent.sock")),
            ),
            (
                "a link in place of its socket",
                End::Undisturbed,
                shell(&format!("{BOUND}; ln -sf /run/docker.sock /.faas/run/agent.sock")),
            ),
            (
                "fill its directory",
                End::Undisturbed,
                shell("head -c 1000000 /dev/zero >/.faas/run/x 2>/dev/null; true"),
            ),
            (
                "a socket in place of its own",
                End::Undisturbed,
                with_attacker(json!({
                    "command": ["sh", "-c", format!("{BOUND}; mv /.faas/run/agent.sock /.faas/run/other.sock && {ATTACKER} whoami >/dev/null")],
                    "timeout_ms": 2000,
                })),
            ),
            (
                "starve the agent of processors",
                End::Undisturbed,
                shell("taskset -p 1 $PPID >/dev/null 2>&1; renice 19 $PPID >/dev/null 2>&1; true"),
            ),
            (
                "take its descriptors",
                End::Undisturbed,
                shell(
                    "ls -l /proc/$PPID/fd >/dev/null; cat /proc/$PPID/fd/3 2>/dev/null; echo x >/proc/$PPID/fd/3; true",
                ),
            ),
            (
                "take its limits",
                End::LostOrUndisturbed,
                shell(
                    "prlimit --pid $PPID --nofile=0:0 --as=0:0 2>/dev/null; prlimit --pid $PPID --cpu=0:0; exit 0",
                ),
            ),
        ],
    );
}

/// The agent made to say what the attacker wants (see `tools/forge.rs` of the attacker).
#[cfg(target_arch = "x86_64")]
pub(crate) fn a_forged_answer_is_believed_of_the_forger_alone(standing: Standing) {
    let words = [
        ("rubbish", End::Lost),
        ("giant-length", End::Lost),
        // What the agent says afterwards ends up within the frame.
        ("half-a-frame", End::LostInSilence),
        ("another-execution", End::Lost),
        ("the-connection-itself", End::Lost),
        ("another-version", End::Lost),
        ("own-result", End::Forged(77)),
        ("two-results", End::Forged(78)),
        ("impossible-exit", End::Lost),
        ("code-and-signal", End::Lost),
        ("exit-without-json", End::Lost),
        ("deep-json", End::Lost),
        ("greeting-again", End::Lost),
        ("started-again", End::Lost),
        ("false-error", End::Code("internal")),
        ("control-characters", End::Code("invalid_request")),
        ("too-much-output", End::Lost),
        ("many-pongs", End::Lost),
        ("many-unknown-frames", End::Lost),
        ("many-empty-frames", End::Undisturbed),
        ("silence", End::LostInSilence),
    ];
    let requests = words.into_iter().map(|(how, end)| {
        let mut request = attack(&["forge", &format!("how={how}")]);
        // Those that are never answered end so much later than this, and a bit.
        request["timeout_ms"] = json!(20_000);
        if matches!(how, "half-a-frame" | "silence") {
            request["timeout_ms"] = json!(1000);
        }
        (how, end, request)
    });
    all_at_once(standing, requests.collect());
}

/// What a forged error says must not look like the gateway's own words in its log.
#[cfg(target_arch = "x86_64")]
pub(crate) fn a_forged_error_writes_no_line_of_the_log(standing: Standing) {
    let mut findings = Findings::of(standing, "log");
    let gateway = gateway(standing);
    let answer = gateway.execute(attack(&["forge", "how=false-log-line"]));
    assert_eq!(answer.code(), "internal", "{}", answer.text());
    assert!(!answer.text().contains("FORGED"), "{}", answer.text());
    let log = gateway.log_text();
    let forged: Vec<_> =
        log.lines().filter(|line| line.starts_with("FORGED") || line.contains('\u{1b}')).collect();
    findings.expect(forged.is_empty(), "a line of its own", || format!("{forged:?}"));
    gateway.stop();
    findings.judge();
}

/// From outside the agent answers; from inside it does not (attempt `talk_to_its_own_agent`).
pub(crate) fn the_agent_answers_whoever_is_outside(standing: Standing) {
    let gateway = gateway(standing);
    let held = Held::start(gateway.client(), &["watch", "path=/tmp"], |_| {});
    let path = format!("/proc/{}/root/.faas/run/agent.sock", held.pid);
    let mut said = [0; 16];
    std::os::unix::net::UnixStream::connect(path).unwrap().read_exact(&mut said).unwrap();
    // The header of a greeting.
    assert_eq!(said[5], 64, "{said:?}");
    assert!(stdout(&held.end()).starts_with("events"));
    gateway.stop();
}

/// Files that a request puts in place, at paths that lead somewhere else.
pub(crate) fn input_files_stay_inside(standing: Standing) {
    let scene = Scene::start(standing);
    let private = scene.work().parent().unwrap().join("private").display().to_string();
    let below_usr = format!("{}/readable", scene.usr_dir().display());
    let before = std::fs::read(&below_usr).unwrap();
    // In an image of the store `/usr` is a directory of the sandbox's own like others.
    let own_usr = standing == Standing::InImage;
    for (path, good) in [
        // Somewhere of the sandbox's own that is called the same.
        (private.clone(), true),
        (format!("../../../../../../../../..{private}"), true),
        (format!("/proc/1/root{private}"), true),
        (format!("/proc/self/root{private}"), true),
        (format!("/proc/self/cwd{private}"), true),
        (below_usr.clone(), own_usr),
        ("/usr/bin/env".to_owned(), own_usr),
        ("/proc/sys/kernel/core_pattern".to_owned(), false),
        ("/proc/sysrq-trigger".to_owned(), false),
        ("/proc/self/uid_map".to_owned(), false),
        ("/proc/self/mem".to_owned(), false),
        ("/proc/1/mem".to_owned(), false),
        ("/proc/self/fd/3".to_owned(), false),
        ("/proc/self/oom_score_adj".to_owned(), false),
        ("/dev/null".to_owned(), false),
        ("/dev/ptmx".to_owned(), false),
        ("/dev/added".to_owned(), false),
        ("/.faas/agent".to_owned(), false),
        ("/.faas/added".to_owned(), false),
        // The agent takes its place when it has one.
        ("/.faas/run/agent.sock".to_owned(), true),
        ("/sys/added".to_owned(), true),
    ] {
        for user in standing.users() {
            let file = json!({"path": path, "content": "-1000", "mode": "6777"});
            let answer = scene.gateway.execute(json!({"command": "true", "files": [file], "user": user}));
            println!(
                "{path} for {user}: {} {}",
                answer.status,
                answer.text().chars().take(120).collect::<String>()
            );
            // Whoever is inside may have less; never more.
            match (good, answer.status) {
                (true, 200) | (_, 422) => {}
                _ => panic!("{path} for {user}: {}", answer.text()),
            }
        }
    }
    assert_eq!(std::fs::read(&below_usr).unwrap(), before);
    scene.stop();
}

/// The umask of whoever starts the gateway must not matter.
pub(crate) fn a_strict_umask_of_the_starter_does_not_matter(standing: Standing) {
    let mut findings = Findings::of(standing, "umask");
    for mask in ["077", "027", "0"] {
        let wrapper =
            ["sh".to_owned(), "-c".to_owned(), format!("umask {mask}; exec \"$@\""), "sh".to_owned()];
        let gateway = standing.start(|builder| builder.wrapper(wrapper));
        for user in standing.users() {
            let request = json!({"command": "cat /etc/passwd /etc/hosts >/dev/null && echo x >/tmp/x && stat -c %a /tmp/x", "user": user});
            let answer = gateway.execute(request);
            let good = answer.status == 200 && answer.json()["stdout"] == "644\n";
            findings.expect(good, mask, || format!("as {user}: {}", answer.text()));
        }
        gateway.stop();
    }
    findings.judge();
}
