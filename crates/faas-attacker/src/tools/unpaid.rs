//! Memory that the kernel keeps for a process: what was sent and not read, and rings between the two. Whatever of it is
//! not on the account of the sandbox's cgroup comes from the whole machine.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;

use crate::options::Options;
use crate::sys;

/// Where it ends.
const ENOUGH: usize = 256 << 20;

/// What is sent at once.
const BLOCK: usize = 32 << 10;

/// Gets as much as there is, up to `ENOUGH`; prints how much that was.
pub(super) fn run(options: &Options) -> Result<(), String> {
    let kind = options.need("kind")?;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is readable and writable and of the right type.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
    let (mut got, mut ended_by) = (0, "nothing".to_owned());
    let mut number = 0;
    while got < ENOUGH {
        let more = match kind {
            "packet-ring" => packet_ring(),
            "pipe" => pipe(),
            "netlink" => netlink(),
            "raw" => raw(number),
            "tcp" => tcp().map_err(|error| sys::number(&error)),
            "udp" => udp().map_err(|error| sys::number(&error)),
            "unix" => unix().map_err(|error| sys::number(&error)),
            "xdp-ring" => xdp_ring(),
            other => return Err(format!("no memory of kind {other:?}")),
        };
        match more {
            // Nothing more goes in.
            Ok(0) => break,
            Ok(bytes) => got += bytes,
            Err(errno) => {
                ended_by = sys::errno_name(errno);
                break;
            }
        }
        number += 1;
    }
    // Kept, so that whoever looks at it now and then has the time to.
    super::forge::pause_ms(options.number("keep_ms", 0));
    println!("{} MiB, ended by {ended_by}", got >> 20);
    Ok(())
}

/// packet(7): a ring of 64 MiB.
fn packet_ring() -> Result<usize, i32> {
    const PACKET_RX_RING: i32 = 5;
    let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
    // struct tpacket_req: size and number of blocks, size and number of frames.
    let request: [u32; 4] = [1 << 20, 64, 2048, 64 * 512];
    set(socket, libc::SOL_PACKET, PACKET_RX_RING, &request)?;
    Ok(64 << 20)
}

/// Documentation/networking/af_xdp.rst: rings for 2^22 descriptors of 16 bytes each.
fn xdp_ring() -> Result<usize, i32> {
    const SOL_XDP: i32 = 283;
    const XDP_RX_RING: i32 = 2;
    const XDP_TX_RING: i32 = 3;
    let socket = sys::socket(libc::AF_XDP, libc::SOCK_RAW, 0)?;
    for ring in [XDP_RX_RING, XDP_TX_RING] {
        set(socket, SOL_XDP, ring, &[1u32 << 22])?;
    }
    Ok(128 << 20)
}

fn set(socket: i32, level: i32, name: i32, value: &[u32]) -> Result<(), i32> {
    let length = size_of_val(value) as libc::socklen_t;
    // SAFETY: the value lives until the call returns, and the length is its own.
    sys::check(unsafe { libc::setsockopt(socket, level, name, value.as_ptr().cast(), length) }).map(drop)
}

/// Writes to something that nobody reads until it takes no more.
fn fill(mut to: impl std::io::Write) -> usize {
    let block = [1u8; BLOCK];
    let mut sent = 0;
    while let Ok(bytes @ 1..) = to.write(&block) {
        sent += bytes;
    }
    sent
}

fn tcp() -> std::io::Result<usize> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let mut sender = TcpStream::connect(listener.local_addr()?)?;
    let (receiver, _) = listener.accept()?;
    sender.set_nonblocking(true)?;
    let sent = fill(&mut sender);
    sender.flush()?;
    std::mem::forget((sender, receiver));
    Ok(sent)
}

fn unix() -> std::io::Result<usize> {
    let (sender, receiver) = UnixStream::pair()?;
    sender.set_nonblocking(true)?;
    let sent = fill(&sender);
    std::mem::forget((sender, receiver));
    Ok(sent)
}

fn pipe() -> Result<usize, i32> {
    let mut ends = [0; 2];
    // SAFETY: an array of two descriptors.
    sys::check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK) })?;
    let mut sent = 0;
    while let Ok(bytes) = sys::write_fd(ends[1], &[1; BLOCK]) {
        sent += bytes;
    }
    Ok(sent)
}

fn udp() -> std::io::Result<usize> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (receiver, sender) = (UdpSocket::bind(any)?, UdpSocket::bind(any)?);
    sender.connect(receiver.local_addr()?)?;
    for _ in 0..8 {
        sender.send(&[1; BLOCK])?;
    }
    let got = queued(receiver.as_raw_fd())?;
    std::mem::forget((receiver, sender));
    Ok(got)
}

/// How many bytes wait to be read of a datagram socket: the first datagram, since the kernel says no more; the rest
/// is what its buffer has taken of the eight that were sent.
fn queued(socket: i32) -> std::io::Result<usize> {
    // SO_MEMINFO (socket(7)): the first number is what is queued, with the kernel's own overhead.
    const SO_MEMINFO: i32 = 55;
    let mut numbers = [0u32; 9];
    let mut length = size_of_val(&numbers) as libc::socklen_t;
    // SAFETY: the buffer is writable, and `length` is its own.
    let asked = unsafe {
        libc::getsockopt(socket, libc::SOL_SOCKET, SO_MEMINFO, numbers.as_mut_ptr().cast(), &raw mut length)
    };
    sys::check(asked).map_err(std::io::Error::from_raw_os_error)?;
    Ok(numbers[0] as usize)
}

/// Each to an address of its own, so that no two share what was sent.
fn raw(number: usize) -> Result<usize, i32> {
    const EXPERIMENT: i32 = 253;
    let socket = sys::socket(libc::AF_INET, libc::SOCK_RAW, EXPERIMENT)?;
    // SAFETY: an all-zero address is valid; it lives until the calls return, and the length is its own.
    unsafe {
        let mut at: libc::sockaddr_in = std::mem::zeroed();
        at.sin_family = libc::AF_INET as u16;
        at.sin_addr.s_addr = (0x7f01_0001 + u32::try_from(number).unwrap_or(0)).to_be();
        let length = size_of_val(&at) as libc::socklen_t;
        sys::check(libc::bind(socket, (&raw const at).cast(), length))?;
        for _ in 0..8 {
            let block = [1u8; BLOCK];
            let sent = libc::sendto(
                socket,
                block.as_ptr().cast(),
                BLOCK,
                libc::MSG_DONTWAIT,
                (&raw const at).cast(),
                length,
            );
            if sent < 0 && sys::errno() != libc::EAGAIN {
                return Err(sys::errno());
            }
        }
    }
    queued(socket).map_err(|error| sys::number(&error))
}

/// netlink(7), `NETLINK_ROUTE`: answers that are not read. How much waits is what the kernel says of it (`SO_MEMINFO`).
fn netlink() -> Result<usize, i32> {
    const SO_MEMINFO: i32 = 55;
    let socket = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
    let mut info = [0u32; 9];
    for _ in 0..1000 {
        super::resources::ask_for_loopback(socket)?;
    }
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the buffer lives until the call returns, and the length is its own.
    sys::check(unsafe {
        libc::getsockopt(socket, libc::SOL_SOCKET, SO_MEMINFO, info.as_mut_ptr().cast(), &raw mut length)
    })?;
    Ok(info[0] as usize)
}
