//! The command and its environment: what the kernel's execve(2) can be given.

use faas_guest_protocol::Program;
use faas_types::CommandLine;

use super::Findings;

/// The longest single string: MAX_ARG_STRLEN of execve(2), 32 pages, less its NUL byte.
const MAX_STRING_BYTES: usize = 131_071;
/// The most that arguments and environment may take together. The kernel takes a quarter of the stack's limit of
/// 8 MiB; the half of that leaves room for what image and agent add.
const MAX_TOTAL_BYTES: usize = 1 << 20;
/// What each string costs besides its own bytes: its NUL byte and a pointer to it.
const STRING_OVERHEAD: usize = 9;

pub(super) fn program(
    command: Option<CommandLine>,
    env: &[(String, String)],
    findings: &mut Findings,
) -> Option<Program> {
    let before = findings.0.len();
    let command = command.or_else(|| {
        findings.add("/command", "is required: a string for /bin/sh -c, or an array of strings to execute");
        None
    })?;
    match &command {
        CommandLine::Shell(line) => {
            if line.trim_ascii().is_empty() {
                findings.add("/command", "must not be empty");
            }
            string("/command", line, findings);
        }
        CommandLine::Argv(argv) => {
            if argv.is_empty() {
                findings.add("/command", "must have at least one entry, the program");
            }
            if argv.first().is_some_and(String::is_empty) {
                findings.add("/command/0", "must not be empty");
            }
            for (index, argument) in argv.iter().enumerate() {
                if findings.is_full() {
                    break;
                }
                string(&format!("/command/{index}"), argument, findings);
            }
        }
    }
    total(&command, env, findings);
    if findings.0.len() > before {
        return None;
    }
    Some(match command {
        CommandLine::Shell(line) => Program::Shell(line),
        CommandLine::Argv(argv) => Program::Argv(argv),
    })
}

fn string(pointer: &str, text: &str, findings: &mut Findings) {
    findings.no_nul(pointer, text);
    if text.len() > MAX_STRING_BYTES {
        findings.add(
            pointer,
            format!(
                "has {} bytes; the kernel takes at most {MAX_STRING_BYTES} in one argument: use stdin or files",
                text.len()
            ),
        );
    }
}

fn total(command: &CommandLine, env: &[(String, String)], findings: &mut Findings) {
    let of_command = match command {
        CommandLine::Shell(line) => line.len() + STRING_OVERHEAD,
        CommandLine::Argv(argv) => argv.iter().map(|argument| argument.len() + STRING_OVERHEAD).sum(),
    };
    let of_env: usize = env.iter().map(|(name, value)| name.len() + 1 + value.len() + STRING_OVERHEAD).sum();
    if of_command + of_env > MAX_TOTAL_BYTES {
        let pointer = if of_env > of_command { "/env_vars" } else { "/command" };
        findings.add(
            pointer,
            format!(
                "command and env_vars take {} bytes together, {STRING_OVERHEAD} of them for each string's end and \
                 pointer; at most {MAX_TOTAL_BYTES} are taken: use stdin or files",
                of_command + of_env
            ),
        );
    }
}

/// Checks the environment. Which of its accepted forms it came in is not known here: the pointer is to all of it.
pub(super) fn env(env: &[(String, String)], findings: &mut Findings) {
    const POINTER: &str = "/env_vars";
    for (name, value) in env {
        if findings.is_full() {
            break;
        }
        if name.is_empty() {
            findings.add(POINTER, "has a variable without a name");
        }
        if name.contains('=') {
            findings.add(POINTER, format!("variable {}: its name must not contain '='", shown(name)));
        }
        if name.contains('\0') || value.contains('\0') {
            findings.add(POINTER, format!("variable {}: must not contain a NUL byte", shown(name)));
        }
        let bytes = name.len() + 1 + value.len();
        if bytes > MAX_STRING_BYTES {
            findings.add(
                POINTER,
                format!(
                    "variable {}: has {bytes} bytes with its name; the kernel takes at most {MAX_STRING_BYTES}: use \
                     stdin or files",
                    shown(name)
                ),
            );
        }
    }
}

/// A name as it stands in a message: in quotes, escaped, not without end.
fn shown(name: &str) -> String {
    const SHOWN: usize = 64;
    let start: String = name.chars().take(SHOWN).collect();
    if start.len() < name.len() { format!("{start:?}...") } else { format!("{start:?}") }
}
