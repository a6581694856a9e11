//! Locks on a file that others have too.

use super::held;
use crate::options::Options;
use crate::sys;

fn take(options: &Options) -> Result<Result<(), i32>, String> {
    let path = options.need("path")?;
    let fd =
        sys::open(path, libc::O_RDONLY).map_err(|errno| format!("{path}: {}", sys::errno_name(errno)))?;
    // SAFETY: plain integers. The descriptor stays open.
    let locked = unsafe { libc::flock(fd, libc::LOCK_EX | libc::LOCK_NB) };
    Ok(sys::check(locked).map(drop))
}

pub(super) fn hold(options: &Options) -> Result<(), String> {
    take(options)?.map_err(|errno| format!("cannot be locked: {}", sys::errno_name(errno)))?;
    held::until_told()
}

/// Prints `free` or the errno.
pub(super) fn attempt(options: &Options) -> Result<(), String> {
    match take(options)? {
        Ok(()) => println!("free"),
        Err(errno) => println!("{}", sys::errno_name(errno)),
    }
    Ok(())
}
