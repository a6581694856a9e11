//! Makes this test program the launcher or the unpack process when the library starts it as one.

use std::ffi::{CStr, c_char, c_int};
use std::io::Write as _;
use std::process::ExitCode;

use faas_executor::{images::unpack, native::launcher};

/// Runs before `main`, with its arguments, while the process has one thread.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn(c_int, *const *const c_char) = before_main;

extern "C" fn before_main(count: c_int, arguments: *const *const c_char) {
    if count != 2 {
        return;
    }
    // SAFETY: the C library hands over `count` pointers to strings that live as long as the process.
    let argument = unsafe { CStr::from_ptr(*arguments.add(1)) };
    let code = match argument.to_str() {
        Ok(launcher::ARGUMENT) => launcher::main(),
        Ok(unpack::ARGUMENT) => unpack::main(),
        _ => return,
    };
    std::io::stdout().flush().unwrap();
    let status = (0..=255).find(|status| ExitCode::from(*status) == code).unwrap_or(255);
    // SAFETY: it ends the process; nothing of this program has been set up that would have to be torn down.
    unsafe { libc::_exit(status.into()) }
}
