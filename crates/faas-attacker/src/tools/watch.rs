//! What inotify(7) says of a path.

use super::held;
use crate::options::Options;
use crate::sys;

/// Prints how many events there were between `ready` and SIGUSR1.
pub(super) fn run(options: &Options) -> Result<(), String> {
    let path = options.need("path")?;
    let at = sys::c(path);
    let step = |errno| format!("{path}: {}", sys::errno_name(errno));
    // SAFETY: plain integers.
    let inotify = unsafe { libc::inotify_init1(libc::IN_NONBLOCK) };
    sys::check(inotify).map_err(step)?;
    // SAFETY: the path lives until the call returns.
    let added = unsafe { libc::inotify_add_watch(inotify, at.as_ptr(), libc::IN_ALL_EVENTS) };
    sys::check(added).map_err(step)?;
    held::until_told()?;
    let mut bytes = 0;
    while let Ok(events) = sys::read_fd(inotify, 1 << 16) {
        bytes += events.len();
    }
    println!("events {}", bytes / size_of::<libc::inotify_event>());
    Ok(())
}
