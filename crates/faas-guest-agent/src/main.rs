//! The static program inside every sandbox.
//!
//! Started as `faas-guest-agent init` or `init --stdio` it becomes three processes, by fork and without another exec, so that they share
//! their pages: [`init`], PID 1, which reaps; [`keeper`], the root of what a checkpoint holds; [`agent`], which serves
//! the gateway. It trusts nothing in the sandbox and needs nothing of it: no libraries, no shell, no files.

mod agent;
mod agent_lasting;
mod attachment;
mod connection;
mod execution;
mod file;
mod files;
mod hosts;
mod init;
mod keeper;
mod lasting;
mod oom;
mod output;
mod processes;
mod program;
mod pty;
mod receiving;
mod running;
mod spawn;
mod sys;
mod users;

use std::process::ExitCode;

use keeper::Link;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match (args.next(), args.next(), args.next()) {
        (Some(verb), None, None) if verb == "init" => init::run(Link::Socket),
        (Some(verb), Some(option), None) if verb == "init" && option == "--stdio" => init::run(Link::Stdio),
        (Some(verb), None, None) if verb == "terminate" => processes::terminate_all(),
        (Some(verb), Some(request), None) if verb == faas_guest_protocol::files::FILE_VERB => {
            file::run(&request)
        }
        (Some(verb), None, None) if verb == "--version" => {
            println!(
                "faas-guest-agent {} (protocol {})",
                env!("CARGO_PKG_VERSION"),
                faas_guest_protocol::VERSION
            );
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!(
                "usage: faas-guest-agent init [--stdio] | terminate | file REQUEST\nThe gateway starts it inside a sandbox; it is of no use elsewhere."
            );
            ExitCode::from(64)
        }
    }
}
