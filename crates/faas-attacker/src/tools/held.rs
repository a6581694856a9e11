//! Being there until the test has seen enough.

use std::cell::UnsafeCell;

use crate::sys;

/// How long a tool waits for the test at most, in seconds.
const PATIENCE_S: i64 = 120;

/// Says that everything is in place, and waits for SIGUSR1.
pub(super) fn until_told() -> Result<(), String> {
    let set = block()?;
    // SAFETY: the name is a C string of fewer than 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"ready".as_ptr()) };
    let time = libc::timespec { tv_sec: PATIENCE_S, tv_nsec: 0 };
    // SAFETY: set and time live until the call returns; nothing is asked of the signal.
    let told = unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const time) };
    if told == libc::SIGUSR1 { Ok(()) } else { Err(format!("not told: {}", sys::errno_name(sys::errno()))) }
}

/// Keeps SIGUSR1 until it is waited for.
fn block() -> Result<libc::sigset_t, String> {
    // SAFETY: a set is made before it is read; the old one is not asked for.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGUSR1);
        match libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) {
            0 => Ok(set),
            _ => Err(format!("sigprocmask: {}", sys::errno_name(sys::errno()))),
        }
    }
}

/// A place for the token, at the same address in every process of this program: it is not position-independent.
struct Place(UnsafeCell<[u8; 128]>);

// SAFETY: the program has one thread.
unsafe impl Sync for Place {}

static PLACE: Place = Place(UnsafeCell::new([0; 128]));

/// Puts the token into its place; gives the address.
pub(super) fn keep_token(token: &str) -> usize {
    // SAFETY: the program has one thread, and nobody else refers to the place.
    let place = unsafe { &mut *PLACE.0.get() };
    place.iter_mut().zip(token.bytes()).for_each(|(to, from)| *to = from);
    // Others read it, not this program.
    std::hint::black_box(&place);
    place.as_ptr().addr()
}
