//! What tests need beside attempts: victims, a bad starter for the gateway, whoever takes up what all share, whoever
//! puts words into the agent's mouth.
//!
//! | tool | what it does |
//! |---|---|
//! | `whoami` | prints its ids and capabilities |
//! | `canary` | holds the token in memory, in descriptors, in a mapping, until its standard input ends |
//! | `starter` | executes what stands after `--` with everything that must not be inherited |
//! | `neighbour` | holds the token wherever another process might look for it |
//! | `hold`, `use` | takes all there is of a resource; takes a little of it |
//! | `lock`, `trylock` | holds a lock on a file; says whether it could have one |
//! | `watch` | counts what inotify says of a path |
//! | `harm` | uses up processes, memory, disk |
//! | `unpaid` | has the kernel keep memory that is on nobody's account |
//! | `forge` | makes the agent say something else |
//!
//! A tool that holds something names itself `ready` when it does, where the test sees that from the host, and goes on
//! until it is sent SIGUSR1.

mod canary;
mod forge;
mod harm;
mod held;
mod lock;
mod neighbour;
mod resources;
mod starter;
mod unpaid;
mod watch;
mod whoami;

use crate::options::Options;

/// Runs a tool, if there is one of that name.
pub(crate) fn run(name: &str, options: &Options) -> Option<Result<(), String>> {
    Some(match name {
        "whoami" => whoami::run(),
        "canary" => canary::run(options),
        "starter" => starter::run(options),
        "neighbour" => neighbour::run(options),
        "hold" => resources::hold(options),
        "use" => resources::use_a_little(options),
        "lock" => lock::hold(options),
        "trylock" => lock::attempt(options),
        "watch" => watch::run(options),
        "harm" => harm::run(options),
        "unpaid" => unpaid::run(options),
        "forge" => forge::run(options),
        _ => return None,
    })
}
