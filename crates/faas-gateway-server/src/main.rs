//! The server's program. With the single argument `launcher` it is the process that native sandboxes come from, with
//! `unpack` the one that has to do with what is in images; `images ...` is the command line of the image store.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use faas_gateway_server::config::{Config, Invocation, Surroundings};
use faas_gateway_server::run;

fn main() -> ExitCode {
    // Before anything that could start a thread: both fork.
    #[cfg(all(target_os = "linux", feature = "native"))]
    match only_argument() {
        Some(argument) if argument == faas_executor::native::launcher::ARGUMENT => {
            return faas_executor::native::launcher::main();
        }
        Some(argument) if argument == faas_executor::images::unpack::ARGUMENT => {
            return faas_executor::images::unpack::main();
        }
        _ => {}
    }
    match Config::from_process(std::env::args_os(), &Surroundings::of_process()) {
        Ok(Invocation::Serve(config)) => run::run(*config),
        #[cfg(all(target_os = "linux", feature = "native"))]
        Ok(Invocation::Images(config, command, output)) => {
            faas_gateway_server::images_command::run(*config, command, output)
        }
        Ok(Invocation::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("faas-gateway-server: {error}");
            ExitCode::from(run::EXIT_USAGE)
        }
    }
}

#[cfg(all(target_os = "linux", feature = "native"))]
fn only_argument() -> Option<std::ffi::OsString> {
    let mut args = std::env::args_os().skip(1);
    args.next().filter(|_| args.next().is_none())
}
