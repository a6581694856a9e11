//! Ids and capabilities of this process, one line.

use crate::sys;

pub(super) fn run() -> Result<(), String> {
    let set = |name| {
        let text = sys::status_of("self", name).map_err(sys::errno_name)?;
        u64::from_str_radix(&text, 16).map_err(|error| format!("{name}: {error}"))
    };
    let capabilities = set("CapPrm")? | set("CapEff")?;
    // SAFETY: no memory is touched.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    println!("uid {uid} gid {gid} capabilities {capabilities:x}");
    Ok(())
}
