//! A process that keeps the token wherever another one might look for it: in files, in memory, in every kind of shared
//! memory, behind sockets.

use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::UnixListener;

use super::held;
use crate::options::Options;
use crate::sys;

pub(super) fn run(options: &Options) -> Result<(), String> {
    let (token, name) = (options.token()?, options.need("name")?);
    let step = |what: &'static str| move |errno: i32| format!("{what}: {}", sys::errno_name(errno));
    held::keep_token(&token);
    let files = [format!("{}/{name}", options.need("dir")?), format!("/dev/shm/{name}")];
    for file in &files {
        sys::make_file(file, token.as_bytes(), 0o644).map_err(step("make a file"))?;
    }
    let segment = system_v(options, &token).map_err(step("System V"))?;
    let queue = sys::c(&format!("/{name}"));
    match message_queue(&queue, &token) {
        // Where there are none nobody can read one.
        Ok(()) | Err(libc::EACCES) => {}
        Err(errno) => return Err(step("message queue")(errno)),
    }
    let at = std::os::unix::net::SocketAddr::from_abstract_name(name).map_err(|error| error.to_string())?;
    let unix = UnixListener::bind_addr(&at).map_err(|error| format!("abstract socket: {error}"))?;
    let port = u16::try_from(options.need_number("port")?).map_err(|error| error.to_string())?;
    let tcp = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)))
        .map_err(|error| format!("port: {error}"))?;
    let told = held::until_told();
    drop((unix, tcp));
    // SAFETY: the id is this function's own; the name lives until the call returns.
    unsafe {
        libc::shmctl(segment, libc::IPC_RMID, std::ptr::null_mut());
        libc::mq_unlink(queue.as_ptr());
    }
    for file in &files {
        std::fs::remove_file(file).map_err(|error| format!("{file}: {error}"))?;
    }
    told
}

fn system_v(options: &Options, token: &str) -> Result<i32, i32> {
    let key = options.number("key", 0).try_into().unwrap_or(0);
    // SAFETY: plain integers.
    let id = unsafe { libc::shmget(key, 4096, libc::IPC_CREAT | 0o666) };
    sys::check(id)?;
    // SAFETY: attached where the kernel likes; the segment has one page, which is longer than the token.
    unsafe {
        let at = libc::shmat(id, std::ptr::null(), 0);
        if at.addr() == usize::MAX {
            return Err(sys::errno());
        }
        std::ptr::copy_nonoverlapping(token.as_ptr(), at.cast(), token.len());
    }
    Ok(id)
}

fn message_queue(name: &std::ffi::CStr, token: &str) -> Result<(), i32> {
    // SAFETY: the name lives until the call returns; default attributes.
    let queue = unsafe {
        libc::mq_open(name.as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o666, std::ptr::null::<libc::mq_attr>())
    };
    sys::check(queue)?;
    // SAFETY: the token lives until the call returns.
    sys::check(unsafe { libc::mq_send(queue, token.as_ptr().cast(), token.len(), 0) }).map(drop)
}
