//! Tries to leave the sandbox it runs in, or to harm what is beside it.
//!
//! ```text
//! faas-attacker list GROUP               the names of a group's attempts, each with its control
//! faas-attacker try GROUP [KEY=VALUE]..  makes every attempt of the group
//! faas-attacker TOOL [KEY=VALUE]..       one of the tools of `tools`
//! ```
//!
//! An attempt prints one line, `ATTEMPT name: refused(EPERM)`, `ATTEMPT name: HARMLESS ...`, `ATTEMPT name: ESCAPED ...`
//! or, when it could not be made at all, `ATTEMPT name: BROKEN ...`. What it needs to know of the outside (a file that
//! must not be readable, PIDs that must not be reachable) comes as `KEY=VALUE` from the test, so that the same attempt
//! can be made where it must succeed: that is its control.

mod attempt;
mod attempts;
mod control;
mod options;
mod sys;
mod tools;

use std::process::ExitCode;

use options::Options;

fn main() -> ExitCode {
    // Before anything else is opened.
    attempts::inherited::note_descriptors();
    let mut args = std::env::args_os().skip(1);
    let mut word = || args.next().map(|arg| arg.to_string_lossy().into_owned()).unwrap_or_default();
    let command = word();
    match command.as_str() {
        "list" | "try" => {
            let group = word();
            let Some(attempts) = attempts::group(&group) else {
                eprintln!("no group {group:?}");
                return ExitCode::from(64);
            };
            if command == "list" {
                attempt::list(&attempts);
            } else {
                attempt::make_all(&attempts, &Options::parse(args));
            }
            ExitCode::SUCCESS
        }
        tool => match tools::run(tool, &Options::parse(args)) {
            Some(Ok(())) => ExitCode::SUCCESS,
            Some(Err(why)) => {
                eprintln!("{tool}: {why}");
                ExitCode::FAILURE
            }
            None => {
                eprintln!("no tool {tool:?}");
                ExitCode::from(64)
            }
        },
    }
}
