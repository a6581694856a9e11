//! The attempts, grouped by what they go for.

mod devices;
mod files;
mod identity;
pub(crate) mod inherited;
mod kernel;
mod limits;
mod mounts;
mod namespaces;
mod neighbour;
mod network;
mod proc;
mod processes;
mod programs;
mod roots;

use crate::attempt::Attempt;

/// The attempts of a group.
pub(crate) fn group(name: &str) -> Option<Vec<Attempt>> {
    Some(match name {
        "devices" => devices::all(),
        "files" => files::all(),
        "identity" => identity::all(),
        "inherited" => inherited::all(),
        "kernel" => kernel::all(),
        "mounts" => mounts::all(),
        "namespaces" => namespaces::all(),
        "neighbour" => neighbour::all(),
        "network" => network::all(),
        "proc" => proc::all(),
        "processes" => processes::all(),
        _ => return None,
    })
}
