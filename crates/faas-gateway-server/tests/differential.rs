//! A sandbox beside runc: the same command lines give the same exit code, the same output and, where its words are the
//! program's own, the same standard error.
#![expect(clippy::unwrap_used, reason = "what the helpers of a test cannot do fails the test")]

#[path = "differential/lines.rs"]
mod lines;
#[path = "differential/runc.rs"]
mod runc;

use base64::Engine as _;
use faas_test_support::gateway::Gateway;
use faas_test_support::needs;
use lines::Line;
use serde_json::{Value, json};

/// What a command line gave.
#[derive(Clone, PartialEq, Eq)]
struct Said {
    code: i64,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Said {
    fn shown(&self) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(600)]).into_owned();
        format!("code {}, stdout {:?}, stderr {:?}", self.code, text(&self.stdout), text(&self.stderr))
    }
}

/// Where a sandbox is known to differ: the line, and why. One that does not differ any more fails the test.
const KNOWN: &[(&str, &str)] = &[];

#[test]
fn a_sandbox_gives_what_runc_gives() {
    needs!(Root, Runc);
    let gateway = Gateway::start(env!("CARGO_BIN_EXE_faas-gateway-server"));
    let runc = runc::Runc::new(&image(&gateway));
    let mut wrong = Vec::new();
    for line in lines::all() {
        let (ours, theirs) = (through_the_gateway(&gateway, &line), runc.run(&line));
        let same = ours.code == theirs.code
            && ours.stdout == theirs.stdout
            && (!line.same_stderr || ours.stderr == theirs.stderr);
        let known = KNOWN.iter().find(|(name, _)| *name == line.name);
        println!("{:<50} {}", line.name, if same { "same" } else { "DIFFERENT" });
        match (same, known) {
            (true, None) => {}
            (false, Some((_, why))) => println!("KNOWN {}: {why}", line.name),
            (true, Some(_)) => {
                wrong.push(format!("{} does not differ any more: take it off the list", line.name))
            }
            (false, None) => {
                wrong.push(format!(
                    "{}\n  sandbox: {}\n  runc:    {}",
                    line.name,
                    ours.shown(),
                    theirs.shown()
                ));
            }
        }
    }
    gateway.stop();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn through_the_gateway(gateway: &Gateway, line: &Line) -> Said {
    let command = match &line.command {
        lines::CommandLine::Shell(text) => json!(text),
        lines::CommandLine::Argv(argv) => json!(argv),
    };
    let mut request = json!({"command": command, "timeout_ms": 60_000, "max_output_bytes": 16 << 20});
    if let Some(cwd) = line.cwd {
        request["working_dir"] = json!(cwd);
    }
    if let Some(stdin) = &line.stdin {
        request["stdin"] = json!(stdin);
    }
    if line.ids != (0, 0) {
        request["user"] = json!(format!("{}:{}", line.ids.0, line.ids.1));
    }
    request["env_vars"] =
        Value::Object(line.env.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect());
    let body = gateway.execute(request).ok();
    let code = body["exit_code"].as_i64().unwrap_or_else(|| panic!("{}: {body:#}", line.name));
    Said { code, stdout: stream(&body, "stdout"), stderr: stream(&body, "stderr") }
}

/// A stream's bytes: in base64 where they are no text.
fn stream(body: &Value, name: &str) -> Vec<u8> {
    match body[format!("{name}_base64")].as_str() {
        Some(text) => base64::engine::general_purpose::STANDARD.decode(text).unwrap(),
        None => body[name].as_str().unwrap().as_bytes().to_vec(),
    }
}

/// The image as a sandbox has it, without the host's programs and what is mounted.
fn image(gateway: &Gateway) -> Vec<u8> {
    let command =
        "cd / && tar -cf - --one-file-system --exclude=./tmp/* --exclude=./.faas . 2>/dev/null | base64 -w0";
    let answer = gateway.execute(json!({"command": command, "max_output_bytes": 16 << 20}));
    let body = answer.ok();
    assert_eq!(
        (&body["exit_code"], &body["stdout_truncated"]),
        (&json!(0), &json!(false)),
        "{}",
        body["stderr"]
    );
    base64::engine::general_purpose::STANDARD.decode(body["stdout"].as_str().unwrap()).unwrap()
}
