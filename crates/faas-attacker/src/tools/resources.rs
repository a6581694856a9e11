//! What the kernel has a limited number of, for each user or for the whole machine. `hold` takes all that it gets;
//! `use` takes a little, as any program would.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::held;
use crate::options::Options;
use crate::sys::{self, address, call};

/// Any port of loopback. Not as text: that would bring in the resolver.
const LOOPBACK: std::net::SocketAddr =
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// The most that is taken of anything, where no limit comes before.
const MOST: u64 = 400_000;

/// How long taking may last. What was got until then has to do.
const TAKING: Duration = Duration::from_secs(20);

/// Takes everything; prints how much that was.
pub(super) fn hold(options: &Options) -> Result<(), String> {
    let mut resource = Resource::new(options)?;
    let (most, started) = (options.number("most", MOST), Instant::now());
    let mut taken = 0;
    let mut ended_by = "nothing".to_owned();
    while taken < most && started.elapsed() < TAKING {
        match resource.take() {
            Ok(()) => taken += 1,
            Err(errno) => {
                ended_by = sys::errno_name(errno);
                break;
            }
        }
    }
    held::until_told()?;
    println!("held {taken}, ended by {ended_by}");
    Ok(())
}

/// Takes a little; fails when there is none.
pub(super) fn use_a_little(options: &Options) -> Result<(), String> {
    let mut resource = Resource::new(options)?;
    resource.lasting = false;
    for number in 0..3 {
        resource.take().map_err(|errno| format!("number {number}: {}", sys::errno_name(errno)))?;
    }
    println!("there is enough");
    Ok(())
}

struct Resource<'a> {
    what: &'a str,
    dir: &'a str,
    /// Whether what has a name is left when this process ends.
    lasting: bool,
    taken: usize,
    /// The current instance of what holds many.
    current: RawFd,
}

impl<'a> Resource<'a> {
    fn new(options: &'a Options) -> Result<Self, String> {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the structure is readable and writable and of the right type.
        unsafe {
            libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
            // What is in flight is held against the soft limit of descriptors.
            if options.get("what") != Some("inflight") {
                limit.rlim_cur = limit.rlim_max;
            }
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
        let dir = options.get("dir").unwrap_or("/tmp");
        Ok(Self { what: options.need("what")?, dir, lasting: true, taken: 0, current: -1 })
    }

    /// One more. What is taken stays so until the process ends.
    fn take(&mut self) -> Result<(), i32> {
        let number = self.taken;
        self.taken += 1;
        match self.what {
            "aio" => {
                let mut context = 0usize;
                call(libc::SYS_io_setup, [1024, address(&raw mut context)]).map(drop)
            }
            "epoll" => self.epoll(number),
            "inflight" => self.in_flight(number),
            // SAFETY: plain integers.
            "inotify-instances" => sys::check(unsafe { libc::inotify_init1(0) }).map(drop),
            "inotify-watches" => self.watch(number),
            "message-queues" => self.message_queue(number),
            "netlink" => netlink(),
            "pipes" => pipe(),
            "ptys" => sys::open("/dev/ptmx", libc::O_RDWR).map(drop),
            "shm" => self.segment(),
            "signals" => signal(),
            "tcp" => tcp(),
            "udp" => udp(),
            _ => Err(libc::ENOSYS),
        }
    }

    fn epoll(&mut self, number: usize) -> Result<(), i32> {
        // SAFETY: plain integers, and an event that lives until the call returns.
        unsafe {
            if number.is_multiple_of(10_000) {
                self.current = libc::epoll_create1(0);
                sys::check(self.current)?;
            }
            let watched = libc::eventfd(0, 0);
            sys::check(watched)?;
            let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
            sys::check(libc::epoll_ctl(self.current, libc::EPOLL_CTL_ADD, watched, &raw mut event)).map(drop)
        }
    }

    /// A descriptor sent over a socket and not received (unix(7), `SCM_RIGHTS`).
    fn in_flight(&mut self, number: usize) -> Result<(), i32> {
        let mut ends = [0; 2];
        if number.is_multiple_of(100) {
            // SAFETY: an array of two descriptors. The other end stays open too.
            sys::check(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, ends.as_mut_ptr()) })?;
            self.current = ends[0];
        }
        let mut byte = libc::iovec { iov_base: [0u8; 1].as_mut_ptr().cast(), iov_len: 1 };
        let mut space = [0usize; 4];
        // SAFETY: an all-zero header is valid, and everything it points to lives until the call returns; the control
        // message has room for one descriptor.
        unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_iov = &raw mut byte;
            message.msg_iovlen = 1;
            message.msg_control = space.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(4) as usize;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
            libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(0);
            match libc::sendmsg(self.current, &raw const message, libc::MSG_DONTWAIT) {
                -1 => Err(sys::errno()),
                _ => Ok(()),
            }
        }
    }

    /// One instance watches many files, and many instances watch the same ones.
    fn watch(&mut self, number: usize) -> Result<(), i32> {
        const FILES: usize = 4000;
        let file = format!("{}/watched-{}", self.dir, number % FILES);
        if number < FILES {
            sys::make_file(&file, b"", 0o644)?;
        }
        if number.is_multiple_of(FILES) {
            // SAFETY: plain integers.
            self.current = unsafe { libc::inotify_init1(0) };
            sys::check(self.current)?;
        }
        let path = sys::c(&file);
        // SAFETY: the path lives until the call returns.
        let added = unsafe { libc::inotify_add_watch(self.current, path.as_ptr(), libc::IN_MODIFY) };
        if !self.lasting {
            std::fs::remove_file(&file).map_err(|error| sys::number(&error))?;
        }
        sys::check(added).map(drop)
    }

    fn message_queue(&self, number: usize) -> Result<(), i32> {
        let name = sys::c(&format!("/attack-{}-{number}", sys::pid()));
        // SAFETY: the name lives until the calls return; default attributes.
        unsafe {
            let attributes = std::ptr::null::<libc::mq_attr>();
            sys::check(libc::mq_open(name.as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o600, attributes))?;
            if !self.lasting {
                libc::mq_unlink(name.as_ptr());
            }
        }
        Ok(())
    }

    fn segment(&self) -> Result<(), i32> {
        // SAFETY: plain integers.
        unsafe {
            let id = libc::shmget(libc::IPC_PRIVATE, 4096, 0o600);
            sys::check(id)?;
            if !self.lasting {
                libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut());
            }
        }
        Ok(())
    }
}

/// A pipe, full; one that has less room than usual is none (pipe(7), `pipe-user-pages-soft`).
fn pipe() -> Result<(), i32> {
    const USUAL: i32 = 65536;
    let mut ends = [0; 2];
    // SAFETY: an array of two descriptors; plain integers.
    unsafe {
        sys::check(libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK))?;
        if libc::fcntl(ends[0], libc::F_GETPIPE_SZ) < USUAL {
            return Err(libc::EDQUOT);
        }
    }
    Ok(())
}

/// A real-time signal to itself, which is blocked and so stays queued (`RLIMIT_SIGPENDING`).
fn signal() -> Result<(), i32> {
    // SAFETY: a set is made before it is read; plain integers.
    unsafe {
        let number = libc::SIGRTMIN() + 5;
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, number);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        let value = libc::sigval { sival_ptr: std::ptr::null_mut() };
        sys::check(libc::sigqueue(libc::getpid(), number, value)).map(drop)
    }
}

/// A connection over loopback whose buffers are full at both ends, as far as its sender gets.
fn tcp() -> Result<(), i32> {
    use std::io::Write as _;
    let connect = || {
        let listener = std::net::TcpListener::bind(LOOPBACK)?;
        let mut sender = std::net::TcpStream::connect(listener.local_addr()?)?;
        let (receiver, _) = listener.accept()?;
        sender.set_nonblocking(true)?;
        let block = vec![0u8; 1 << 20];
        let mut sent = 0;
        while let Ok(bytes) = sender.write(&block) {
            sent += bytes;
        }
        std::mem::forget((sender, receiver));
        Ok(sent)
    };
    match connect() {
        // Less than any program would be content with.
        Ok(0..4096) => Err(libc::ENOBUFS),
        Ok(_) => Ok(()),
        Err::<usize, std::io::Error>(error) => Err(sys::number(&error)),
    }
}

/// A socket whose receive buffer is full.
fn udp() -> Result<(), i32> {
    let fill = || {
        let receiver = std::net::UdpSocket::bind(LOOPBACK)?;
        let sender = std::net::UdpSocket::bind(LOOPBACK)?;
        sender.connect(receiver.local_addr()?)?;
        let block = [0u8; 32 << 10];
        for _ in 0..8 {
            sender.send(&block)?;
        }
        receiver.set_nonblocking(true)?;
        receiver.peek(&mut [0; 1])?;
        std::mem::forget((receiver, sender));
        Ok(())
    };
    fill().map_err(|error: std::io::Error| sys::number(&error))
}

/// A netlink socket with answers that it does not read (rtnetlink(7)).
fn netlink() -> Result<(), i32> {
    let socket = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
    for _ in 0..64 {
        ask_for_loopback(socket)?;
    }
    Ok(())
}

/// Sends `RTM_GETLINK` for the first interface.
pub(super) fn ask_for_loopback(socket: i32) -> Result<(), i32> {
    const LENGTH: u32 = 32;
    const REQUEST: u32 = libc::NLM_F_REQUEST as u32;
    // A header (netlink(7)) and an `ifinfomsg` with the index 1.
    let message = [LENGTH, u32::from(libc::RTM_GETLINK) | REQUEST << 16, 0, 0, 0, 1, 0, 0];
    // SAFETY: the message lives until the call returns.
    let sent =
        unsafe { libc::send(socket, message.as_ptr().cast(), size_of_val(&message), libc::MSG_DONTWAIT) };
    if sent < 0 { Err(sys::errno()) } else { Ok(()) }
}
