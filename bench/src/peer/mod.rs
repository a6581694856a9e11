//! The peers: what else runs a command in a sandbox on this machine. Each gives an order for the helper, or says why
//! it is not here.

pub(crate) mod bwrap;
pub(crate) mod docker;
pub(crate) mod runc;
pub(crate) mod umoci;

use std::process::{Command, Stdio};

/// The first line that `program args...` prints, or why it does not.
pub(crate) fn first_line(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    let text = if output.status.success() { &output.stdout } else { &output.stderr };
    let line = String::from_utf8_lossy(text).lines().next().unwrap_or_default().trim().to_owned();
    if output.status.success() { Ok(line) } else { Err(line) }
}
