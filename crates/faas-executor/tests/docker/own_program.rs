//! Makes this test program the launcher or the unpack process when the library starts it as one, or a server when a test
//! does.

use std::ffi::OsStr;
use std::process::ExitCode;

#[cfg(feature = "native")]
use faas_executor::{images::unpack, native::launcher};

fn other_program(arguments: &[&OsStr]) -> Option<ExitCode> {
    match arguments {
        #[cfg(feature = "native")]
        [one] if *one == launcher::ARGUMENT => Some(launcher::main()),
        #[cfg(feature = "native")]
        [one] if *one == unpack::ARGUMENT => Some(unpack::main()),
        _ => super::lasting::server(arguments),
    }
}

faas_test_support::before_main!(other_program);
