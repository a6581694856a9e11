//! A terminal of the sandbox's own devpts.

use std::os::fd::OwnedFd;

use faas_guest_protocol::TtySize;
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::users::Identity;

/// Makes a terminal of this size for `identity`: our end, which does not block, and the program's.
pub(crate) fn open(size: TtySize, identity: &Identity) -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = rustix::pty::openpt(flags)?;
    rustix::pty::unlockpt(&ours)?;
    // Not by its name, where the sandbox's root may have put something else (ioctl_tty(2), `TIOCGPTPEER`).
    let its = rustix::pty::ioctl_tiocgptpeer(&ours, flags)?;
    resize(&ours, size)?;
    if identity.uid != 0 {
        // So that the program can open it again by its name.
        rustix::fs::fchown(&its, Some(Uid::from_raw(identity.uid)), None::<Gid>)?;
    }
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, its))
}

/// Changes its size. The kernel tells the program in its foreground (SIGWINCH).
pub(crate) fn resize(tty: &OwnedFd, size: TtySize) -> Result<(), Errno> {
    let size = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(tty, size)
}

#[cfg(test)]
mod tests {
    use faas_guest_protocol::TtySize;

    use super::{open, resize};
    use crate::users::Identity;

    #[test]
    fn a_terminal_has_the_size_that_was_asked_for() {
        let root = Identity { uid: 0, gid: 0, groups: vec![], name: None, home: "/".into() };
        let (ours, its) = open(TtySize { rows: 33, cols: 101 }, &root).unwrap();
        let size = rustix::termios::tcgetwinsize(&its).unwrap();
        assert_eq!((size.ws_row, size.ws_col), (33, 101));
        resize(&ours, TtySize { rows: 7, cols: 8 }).unwrap();
        let size = rustix::termios::tcgetwinsize(&its).unwrap();
        assert_eq!((size.ws_row, size.ws_col), (7, 8));
    }
}
