//! Makes this test program the unpack process, or an ordinary user's server, when it is started as one.

use std::ffi::OsStr;
use std::process::ExitCode;

use faas_executor::images::unpack;

/// The first argument with which a test starts this program as another user; a directory follows.
pub(crate) const AS_USER: &str = "as-user";

/// The first argument with which a test starts this program to be killed in the middle of an import.
pub(crate) const IMPORT: &str = "import";

fn other_program(arguments: &[&OsStr]) -> Option<ExitCode> {
    match arguments {
        [one] if *one == unpack::ARGUMENT => Some(unpack::main()),
        [first, dir] if *first == AS_USER => Some(run(|| super::rootless::as_user(dir.as_ref()))),
        [first, dir] if *first == IMPORT => Some(run(|| super::crashes::import_in(dir.as_ref()))),
        _ => None,
    }
}

faas_test_support::before_main!(other_program);

fn run(work: impl FnOnce() + std::panic::UnwindSafe) -> ExitCode {
    match std::panic::catch_unwind(work) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
