//! The one seccomp filter that every task of a native sandbox carries.
//!
//! [`policy`] says what is allowed, in the terms of Docker's default profile; [`program`] compiles that to a BPF
//! program (seccomp(2), Documentation/userspace-api/seccomp_filter.rst). It is compiled once, in the launcher, and
//! installed in each sandbox before the guest agent starts.
//!
//! A binary search over ranges of syscall numbers, and not the linear chain that policy libraries give: when a filter
//! is installed the kernel runs it once for every syscall number (`seccomp_cache_prepare`), which is on the path of
//! every sandbox.

mod policy;
mod program;

use std::io;

pub(crate) use program::Program;

/// The filter of this architecture, or why there is none.
pub(crate) fn default_program() -> Program {
    program::compile(&policy::rules())
}

/// Installs `program` on the calling thread, for ever. `no_new_privs` must be set already.
pub(crate) fn install(program: &Program) -> io::Result<()> {
    let len = u16::try_from(program.instructions().len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let fprog = libc::sock_fprog { len, filter: program.instructions().as_ptr().cast_mut() };
    // SAFETY: `fprog` points to `len` instructions that live until the call returns; the kernel copies them and does
    // not write to them.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, std::ptr::from_ref(&fprog))
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
