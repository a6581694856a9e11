//! The server's program. With the single argument `launcher` it is the process that native sandboxes come from.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use faas_gateway_server::config::{Config, Invocation, Surroundings};
use faas_gateway_server::run;

fn main() -> ExitCode {
    // Before anything that could start a thread: the launcher forks.
    #[cfg(all(target_os = "linux", feature = "native"))]
    if is_launcher() {
        return faas_executor::native::launcher::main();
    }
    match Config::from_process(std::env::args_os(), &Surroundings::of_process()) {
        Ok(Invocation::Serve(config)) => run::run(*config),
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
fn is_launcher() -> bool {
    let mut args = std::env::args_os().skip(1);
    args.next().is_some_and(|first| first == faas_executor::native::launcher::ARGUMENT)
        && args.next().is_none()
}
