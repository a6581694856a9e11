//! Makes this test program the unpack process, or an ordinary user's server, when it is started as one.

use std::ffi::{CStr, c_char, c_int};
use std::io::Write as _;
use std::process::ExitCode;

use faas_executor::images::unpack;

/// The first argument with which a test starts this program as another user; a directory follows.
pub(crate) const AS_USER: &str = "as-user";

/// The first argument with which a test starts this program to be killed in the middle of an import.
pub(crate) const IMPORT: &str = "import";

/// Runs before `main`, with its arguments, while the process has one thread.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn(c_int, *const *const c_char) = before_main;

extern "C" fn before_main(count: c_int, arguments: *const *const c_char) {
    let argument = |number: usize| {
        // SAFETY: the C library hands over `count` pointers to strings that live as long as the process.
        (number < count.unsigned_abs() as usize).then(|| unsafe { CStr::from_ptr(*arguments.add(number)) })
    };
    let text = |number| argument(number).and_then(|text| text.to_str().ok());
    let code = match (text(1), text(2), argument(3)) {
        (Some(unpack::ARGUMENT), None, None) => unpack::main(),
        (Some(AS_USER), Some(dir), None) => run(|| super::rootless::as_user(dir.as_ref())),
        (Some(IMPORT), Some(dir), None) => run(|| super::crashes::import_in(dir.as_ref())),
        _ => return,
    };
    std::io::stdout().flush().unwrap();
    let status = (0..=255).find(|status| ExitCode::from(*status) == code).unwrap_or(255);
    // SAFETY: it ends the process; nothing of this program has been set up that would have to be torn down.
    unsafe { libc::_exit(status.into()) }
}

fn run(work: impl FnOnce() + std::panic::UnwindSafe) -> ExitCode {
    match std::panic::catch_unwind(work) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
