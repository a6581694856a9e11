//! Another sandbox, or another process of the host in the control: the tool `neighbour` holds the token in all of these
//! places.

use std::net::{SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::UnixStream;

use crate::attempt::{Attempt, Attempted, Control, Outcome, found, must_fail};
use crate::options::Options;
use crate::sys::{self, call};

pub(crate) fn all() -> Vec<Attempt> {
    use Control::Bare;
    vec![
        Attempt::new("its_files", Bare, files),
        Attempt::new("its_shared_memory_file", Bare, |o| held(o, &format!("/dev/shm/{}", o.need("name")?))),
        Attempt::new("its_system_v_shared_memory", Bare, system_v),
        Attempt::new("its_message_queue", Bare, queue),
        Attempt::new("its_abstract_socket", Bare, abstract_socket),
        Attempt::new("its_tcp_port", Bare, tcp),
        Attempt::new("its_memory", Bare, memory),
        Attempt::new("kill_it", Bare, |o| must_fail(call(libc::SYS_kill, [victim(o)?, 0]))),
        Attempt::new("trace_it", Bare, trace),
        Attempt::new("its_agents_socket", Bare, agent_socket),
    ]
}

fn victim(options: &Options) -> Result<usize, Outcome> {
    let victims = options.victims()?;
    Ok(victims.first().map_or(0, |victim| usize::try_from(victim.pid).unwrap_or(0)))
}

fn held(options: &Options, path: &str) -> Attempted {
    match sys::holds(path, &options.token()?)? {
        true => Ok(Outcome::Escaped(path.to_owned())),
        false => Ok(Outcome::Harmless("there is another".to_owned())),
    }
}

fn files(options: &Options) -> Attempted {
    held(options, &format!("{}/{}", options.need("dir")?, options.need("name")?))
}

fn system_v(options: &Options) -> Attempted {
    let key = i32::try_from(options.need_number("key")?).map_err(|error| error.to_string())?;
    // SAFETY: plain integers.
    let id = unsafe { libc::shmget(key, 0, 0) };
    sys::check(id)?;
    // SAFETY: attached where the kernel likes, to be read.
    let at = unsafe { libc::shmat(id, std::ptr::null(), libc::SHM_RDONLY) };
    if at.addr() == usize::MAX {
        return Ok(Outcome::Refused(sys::errno()));
    }
    let token = options.token()?;
    // SAFETY: a segment has at least one page, and the token is shorter; nobody writes to it meanwhile.
    let bytes = unsafe { std::slice::from_raw_parts(at.cast::<u8>(), token.len()) };
    match sys::contains(bytes, &token) {
        true => Ok(Outcome::Escaped("it was read".to_owned())),
        false => Ok(Outcome::Harmless("there is another".to_owned())),
    }
}

fn queue(options: &Options) -> Attempted {
    let name = sys::c(&format!("/{}", options.need("name")?));
    // SAFETY: the name lives until the call returns.
    let queue = unsafe { libc::mq_open(name.as_ptr(), libc::O_RDWR | libc::O_NONBLOCK) };
    sys::check(queue)?;
    let mut message = [0u8; 8192];
    let mut priority = 0;
    // SAFETY: the buffer is as long as a message may be by default.
    let length =
        unsafe { libc::mq_receive(queue, message.as_mut_ptr().cast(), message.len(), &raw mut priority) };
    if length < 0 {
        return Ok(Outcome::Escaped(format!("it opens; {}", sys::errno_name(sys::errno()))));
    }
    let message = &message[..length.unsigned_abs()];
    // Put back, for whoever comes next.
    // SAFETY: the buffer lives until the call returns.
    sys::check(unsafe { libc::mq_send(queue, message.as_ptr().cast(), message.len(), 0) })?;
    match sys::contains(message, &options.token()?) {
        true => Ok(Outcome::Escaped("it was read".to_owned())),
        false => Ok(Outcome::Harmless("there is another".to_owned())),
    }
}

fn abstract_socket(options: &Options) -> Attempted {
    let at = std::os::unix::net::SocketAddr::from_abstract_name(options.need("name")?);
    let at = at.map_err(|error| error.to_string())?;
    UnixStream::connect_addr(&at).map_err(|error| sys::number(&error))?;
    Ok(Outcome::Escaped("connected".to_owned()))
}

fn tcp(options: &Options) -> Attempted {
    let port = u16::try_from(options.need_number("port")?).map_err(|error| error.to_string())?;
    TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).map_err(|error| sys::number(&error))?;
    Ok(Outcome::Escaped("connected".to_owned()))
}

fn memory(options: &Options) -> Attempted {
    let token = options.token()?;
    let (mut seen, mut refusal) = (Vec::new(), None);
    for victim in options.victims()? {
        let mut buffer = vec![0u8; token.len()];
        let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: token.len() };
        let remote =
            libc::iovec { iov_base: std::ptr::without_provenance_mut(victim.address), iov_len: token.len() };
        // SAFETY: the local buffer is writable and of the length given; the remote one is the kernel's to check.
        let read =
            unsafe { libc::process_vm_readv(victim.pid, &raw const local, 1, &raw const remote, 1, 0) };
        if read < 0 {
            refusal = Some(sys::errno());
        } else if sys::contains(&buffer, &token) {
            seen.push(victim.pid.to_string());
        }
    }
    found(&seen, refusal, "there is something else")
}

fn trace(options: &Options) -> Attempted {
    let pid = victim(options)?;
    call(libc::SYS_ptrace, [libc::PTRACE_SEIZE as usize, pid, 0, 0])?;
    call(libc::SYS_ptrace, [libc::PTRACE_DETACH as usize, pid, 0, 0]).or(Ok::<_, i32>(0))?;
    Ok(Outcome::Escaped("it was traced".to_owned()))
}

/// `/proc/PID/root` of the other one, and in it what stands for its agent's socket.
fn agent_socket(options: &Options) -> Attempted {
    let pid = victim(options)?;
    let socket = match options.get("control") {
        Some(_) => options.need("socket")?.to_owned(),
        None => "/.faas/run/agent.sock".to_owned(),
    };
    match UnixStream::connect(format!("/proc/{pid}/root{socket}")) {
        Ok(_) => Ok(Outcome::Escaped("connected".to_owned())),
        Err(error) => Ok(Outcome::Refused(sys::number(&error))),
    }
}
