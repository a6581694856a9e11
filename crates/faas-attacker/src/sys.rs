//! System calls without wrapping, and what attempts have in common.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{FromRawFd as _, RawFd};

/// The last error.
pub(crate) fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// A system call by number, missing arguments 0.
pub(crate) fn call<const N: usize>(number: libc::c_long, args: [usize; N]) -> Result<usize, i32> {
    let arg = |n: usize| args.get(n).copied().unwrap_or(0);
    // SAFETY: callers pass pointers to what lives until the call returns, or values that are no pointers.
    let result = unsafe { libc::syscall(number, arg(0), arg(1), arg(2), arg(3), arg(4), arg(5)) };
    if result == -1 { Err(errno()) } else { Ok(result.cast_unsigned() as usize) }
}

/// The result of a libc call that gives -1 on failure.
pub(crate) fn check(result: libc::c_int) -> Result<usize, i32> {
    if result == -1 { Err(errno()) } else { Ok(result.unsigned_abs() as usize) }
}

/// An address as a plain argument.
pub(crate) fn address<T: ?Sized>(value: *const T) -> usize {
    value.cast::<u8>().addr()
}

/// A C string of text without NUL.
pub(crate) fn c(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}

/// open(2).
pub(crate) fn open(path: &str, flags: i32) -> Result<RawFd, i32> {
    open_at(libc::AT_FDCWD, path, flags)
}

/// openat(2).
pub(crate) fn open_at(dir: RawFd, path: &str, flags: i32) -> Result<RawFd, i32> {
    let path = c(path);
    // SAFETY: the path lives until the call returns.
    let fd = unsafe { libc::openat(dir, path.as_ptr(), flags | libc::O_CLOEXEC | libc::O_NOCTTY, 0o600) };
    check(fd).map(|_| fd)
}

/// The first `limit` bytes of an open file.
pub(crate) fn read_fd(fd: RawFd, limit: usize) -> Result<Vec<u8>, i32> {
    let mut bytes = vec![0; limit];
    // SAFETY: the buffer has `limit` bytes.
    let read = unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), limit) };
    if read < 0 {
        return Err(errno());
    }
    bytes.truncate(read.unsigned_abs());
    Ok(bytes)
}

/// The first 64 KiB of a file.
pub(crate) fn read(path: &str) -> Result<Vec<u8>, i32> {
    let fd = open(path, libc::O_RDONLY | libc::O_NONBLOCK)?;
    let result = read_fd(fd, 65536);
    close(fd);
    result
}

/// The whole of a text file of /proc.
pub(crate) fn read_text(path: &str) -> Result<String, i32> {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .map_err(|error| error.raw_os_error().unwrap_or(0))
}

pub(crate) fn close(fd: RawFd) {
    // SAFETY: no one uses the descriptor after this. That it may not be open is of no consequence.
    unsafe { libc::close(fd) };
}

/// write(2) of all of `bytes` at once.
pub(crate) fn write_fd(fd: RawFd, bytes: &[u8]) -> Result<usize, i32> {
    // SAFETY: the buffer lives until the call returns.
    let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
    if written < 0 { Err(errno()) } else { Ok(written.unsigned_abs()) }
}

/// Writes to a file that exists.
pub(crate) fn write(path: &str, bytes: &[u8]) -> Result<usize, i32> {
    let fd = open(path, libc::O_WRONLY)?;
    let result = write_fd(fd, bytes);
    close(fd);
    result
}

/// fstat(2).
pub(crate) fn stat_fd(fd: RawFd) -> Result<libc::stat, i32> {
    // SAFETY: the structure holds integers only, for which all-zero is valid.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is writable and of the right type.
    check(unsafe { libc::fstat(fd, &raw mut stat) }).map(|_| stat)
}

/// stat(2).
pub(crate) fn stat(path: &str) -> Result<libc::stat, i32> {
    let path = c(path);
    // SAFETY: as above.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the path lives until the call returns; `stat` is writable and of the right type.
    check(unsafe { libc::stat(path.as_ptr(), &raw mut stat) }).map(|_| stat)
}

/// The names in a directory, without `.` and `..`.
pub(crate) fn names(dir: &str) -> Result<Vec<String>, i32> {
    std::fs::read_dir(dir)
        .map(|entries| entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
        .map_err(|error| error.raw_os_error().unwrap_or(0))
}

/// readlink(2).
pub(crate) fn link(path: &str) -> Result<String, i32> {
    std::fs::read_link(path)
        .map(|target| target.to_string_lossy().into_owned())
        .map_err(|error| error.raw_os_error().unwrap_or(0))
}

/// A new file with this content and mode.
pub(crate) fn make_file(path: &str, content: &[u8], mode: u32) -> Result<(), i32> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, content)
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)))
        .map_err(|error| error.raw_os_error().unwrap_or(0))
}

/// The errno of an error of std.
pub(crate) fn number(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

/// The value of a line of /proc/PID/status.
pub(crate) fn status_of(pid: &str, name: &str) -> Result<String, i32> {
    let text = read_text(&format!("/proc/{pid}/status"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(value.unwrap_or_default().trim().to_owned())
}

/// socket(2) by the raw call, so that every bit of its arguments is as given.
pub(crate) fn socket(family: i32, kind: i32, protocol: i32) -> Result<RawFd, i32> {
    // SAFETY: plain integers.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    check(fd).map(|_| fd)
}

/// Every PID that /proc shows.
pub(crate) fn visible_pids() -> Vec<i32> {
    let mut pids: Vec<i32> =
        names("/proc").unwrap_or_default().iter().filter_map(|name| name.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

pub(crate) fn pid() -> i32 {
    std::process::id().cast_signed()
}

/// Runs `work` in a child; gives what it returned and its wait status.
pub(crate) fn fork_with(work: impl FnOnce() -> String) -> Result<(String, i32), i32> {
    let mut ends = [0; 2];
    // SAFETY: an array of two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: the program has one thread.
    let child = unsafe { libc::fork() };
    if child == 0 {
        close(ends[0]);
        let said = work();
        let code = i32::from(write_fd(ends[1], said.as_bytes()).is_err());
        // SAFETY: ends the child without running what the parent registered.
        unsafe { libc::_exit(code) };
    }
    close(ends[1]);
    check(child)?;
    let status = wait(child)?;
    // Not to the end of the file: a process that the attempt left may still hold the pipe.
    // SAFETY: the descriptor is this function's own.
    let mut file = unsafe { File::from_raw_fd(ends[0]) };
    // SAFETY: plain integers.
    unsafe { libc::fcntl(ends[0], libc::F_SETFL, libc::O_NONBLOCK) };
    let mut bytes = vec![0; 65536];
    let read = file.read(&mut bytes).unwrap_or(0);
    bytes.truncate(read);
    Ok((String::from_utf8_lossy(&bytes).into_owned(), status))
}

/// waitpid(2), for ever.
pub(crate) fn wait(child: libc::pid_t) -> Result<i32, i32> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is writable.
        match check(unsafe { libc::waitpid(child, &raw mut status, 0) }) {
            Ok(_) => return Ok(status),
            Err(libc::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Whether a file holds the token.
pub(crate) fn holds(path: &str, token: &str) -> Result<bool, i32> {
    read(path).map(|bytes| contains(&bytes, token))
}

/// Whether `bytes` holds the token.
pub(crate) fn contains(bytes: &[u8], token: &str) -> bool {
    bytes.windows(token.len().max(1)).any(|window| window == token.as_bytes())
}

/// The name of an errno.
pub(crate) fn errno_name(errno: i32) -> String {
    // SAFETY: glibc gives a static string, or null for a number it does not know.
    let name = unsafe { strerrorname_np(errno) };
    if name.is_null() {
        return errno.to_string();
    }
    // SAFETY: not null, and a C string.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

unsafe extern "C" {
    fn strerrorname_np(errno: libc::c_int) -> *const libc::c_char;
}
