//! The benches themselves: one file for each.

pub(crate) mod cold;
pub(crate) mod docker;
pub(crate) mod gateway;
pub(crate) mod growth;
pub(crate) mod idle_instances;
pub(crate) mod instance;
pub(crate) mod memory;
pub(crate) mod present_image;
pub(crate) mod unpack;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use crate::RunArgs;
use crate::error::BenchError;
use crate::gateway::Gateway;
use crate::report::Report;
use crate::schedule::{Variant, measure};

/// A directory for one bench that mapped users of a peer can traverse; removed at the end.
pub(crate) fn scratch() -> Result<TempDir, BenchError> {
    let directory = tempfile::Builder::new()
        .prefix("faas-bench-")
        .tempdir()
        .map_err(BenchError::io("temporary directory"))?;
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o711))
        .map_err(BenchError::io(directory.path()))?;
    Ok(directory)
}

/// What the names of all things of this run hold: the directory, the gateway's own mark, and the peers'.
fn marks(scratch: &TempDir, gateway: &Gateway) -> Vec<String> {
    let mut marks = vec![scratch.path().to_string_lossy().into_owned(), peer_name("")];
    if let Ok(id) = std::fs::read_to_string(gateway.data_dir.join("gateway-id")) {
        marks.push(format!("faas-{}", id.trim()));
    }
    marks
}

/// Measures all variants at each concurrency, back-to-back and with a pause between.
fn measure_all(
    report: &mut Report,
    args: &RunArgs,
    variants: &[Variant],
    address: Option<SocketAddr>,
) -> Result<(), BenchError> {
    let pauses = if args.no_pause { vec![None] } else { vec![None, Some(cold::PAUSE)] };
    for &concurrency in &args.concurrency {
        for &pause in &pauses {
            report.tables.push(measure(variants, address, concurrency.max(1), pause)?);
        }
    }
    Ok(())
}

/// The name of something of a peer's on this machine.
pub(crate) fn peer_name(what: &str) -> String {
    format!("faasbench-{}-{what}", std::process::id())
}
