//! Lets a test program be another program first: a launcher, an unpack process, an ordinary user's part of a test. The
//! library starts its own program again for some of its work, and in a test that program is the test's.

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

/// Calls `$run` with the arguments before `main`, while the process has one thread. Where it gives an exit code the
/// process ends with that; otherwise the tests run. `$run` is a `fn(&[&OsStr]) -> Option<ExitCode>`.
#[macro_export]
macro_rules! before_main {
    ($run:path) => {
        #[used]
        #[unsafe(link_section = ".init_array")]
        static BEFORE_MAIN: $crate::own_program::Start = {
            extern "C" fn start(count: std::ffi::c_int, arguments: *const *const std::ffi::c_char) {
                // SAFETY: the C library hands over `count` pointers to strings that live as long as the process.
                unsafe { $crate::own_program::start(count, arguments, $run) }
            }
            start
        };
    };
}

/// What stands in `.init_array` (the GNU C library gives it the arguments of `main`).
pub type Start = extern "C" fn(c_int, *const *const c_char);

/// What [`before_main!`] calls.
///
/// # Safety
/// `arguments` are `count` pointers to strings that live as long as the process.
pub unsafe fn start(count: c_int, arguments: *const *const c_char, run: fn(&[&OsStr]) -> Option<ExitCode>) {
    let arguments: Vec<&OsStr> = (1..count.unsigned_abs() as usize)
        .map(|number| {
            // SAFETY: as the caller promises.
            OsStr::from_bytes(unsafe { CStr::from_ptr(*arguments.add(number)) }.to_bytes())
        })
        .collect();
    // A panic must not cross into C.
    let code = std::panic::catch_unwind(|| run(&arguments)).unwrap_or(Some(ExitCode::FAILURE));
    let Some(code) = code else { return };
    let status = (0..=255).find(|status| ExitCode::from(*status) == code).unwrap_or(255);
    match std::io::stdout().flush() {
        // Nobody may read it.
        Ok(()) | Err(_) => {}
    }
    // SAFETY: it ends the process; nothing of this program has been set up that would have to be torn down.
    unsafe { libc::_exit(status.into()) }
}
