//! The host's network and its sockets, and families of sockets that reach further than a network.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::attempt::{Attempt, Attempted, Control, Outcome, found, must_fail, policy};
use crate::options::Options;
use crate::sys::{self, call};

pub(crate) fn all() -> Vec<Attempt> {
    use Control::{Apart, Bare, None};
    vec![
        Attempt::new("tcp_of_the_host_on_loopback", Bare, tcp),
        Attempt::new("tcp_of_the_gateway", Bare, gateway),
        Attempt::new("udp_to_the_host", Bare, udp),
        Attempt::new("abstract_unix_socket_of_the_host", Bare, abstract_socket),
        Attempt::new("unix_socket_of_the_host_by_path", Bare, path_socket),
        Attempt::new("unix_socket_of_the_host_through_proc", Bare, path_socket_through_proc),
        Attempt::new("metadata_service", None("few hosts have one"), |_| connect_to("169.254.169.254:80")),
        Attempt::new("anywhere_else", None("a host may be without a network"), |_| {
            connect_to("192.0.2.1:80")
        }),
        Attempt::new("sniff_what_the_host_sends", Bare, sniff),
        Attempt::new("interfaces_other_than_loopback", Bare, interfaces),
        Attempt::new("sockets_of_the_host_in_proc", Bare, proc_net),
        Attempt::new("sockets_of_the_host_by_netlink", Bare, sock_diag),
        Attempt::new("take_loopback_down", Apart, loopback_down),
        Attempt::new("add_an_address_by_netlink", Apart, add_address),
        Attempt::optional("vsock", Bare, &[libc::EAFNOSUPPORT], |_| {
            family(libc::AF_VSOCK as usize, libc::SOCK_STREAM)
        }),
        Attempt::optional("vsock_with_high_bits", Bare, &[libc::EAFNOSUPPORT], |_| {
            family(1 << 40 | libc::AF_VSOCK as usize, libc::SOCK_STREAM)
        }),
        Attempt::optional("alg", Bare, &[libc::EAFNOSUPPORT], |_| {
            family(libc::AF_ALG as usize, libc::SOCK_SEQPACKET)
        }),
        Attempt::new("families_of_sockets", None("which there are is the kernel's affair"), families),
    ]
}

/// Whether what a connection says is the token.
fn says_token(mut stream: impl std::io::Read, token: &str) -> Attempted {
    let mut said = vec![0; token.len()];
    match stream.read_exact(&mut said) {
        Ok(()) if sys::contains(&said, token) => Ok(Outcome::Escaped("it answered".to_owned())),
        other => Err(format!("somebody else answered: {other:?}").into()),
    }
}

fn tcp(options: &Options) -> Attempted {
    let port = u16::try_from(options.need_number("tcp")?).map_err(|error| error.to_string())?;
    let mut refusal = libc::ECONNREFUSED;
    for host in ["127.0.0.1", "::1"].into_iter().chain(options.all("address")) {
        let Ok(ip) = host.parse::<IpAddr>() else { continue };
        match TcpStream::connect_timeout(&SocketAddr::new(ip, port), Duration::from_secs(3)) {
            Ok(stream) => return says_token(stream, &options.token()?),
            Err(error) => refusal = sys::number(&error),
        }
    }
    Ok(Outcome::Refused(refusal))
}

fn gateway(options: &Options) -> Attempted {
    let address: SocketAddr =
        options.need("gateway")?.parse().map_err(|error| format!("gateway: {error}"))?;
    let mut stream = TcpStream::connect(address).map_err(|error| sys::number(&error))?;
    let asked = stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    asked.map_err(|error| sys::number(&error))?;
    Ok(Outcome::Escaped("it can be reached".to_owned()))
}

/// A listener on the host answers whoever sends it a datagram.
fn udp(options: &Options) -> Attempted {
    let port = u16::try_from(options.need_number("udp")?).map_err(|error| error.to_string())?;
    let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let socket = std::net::UdpSocket::bind(loopback(0)).map_err(|error| sys::number(&error))?;
    let set = socket.set_read_timeout(Some(Duration::from_millis(500)));
    set.and_then(|()| socket.connect(loopback(port))).map_err(|error| sys::number(&error))?;
    let mut said = [0; 128];
    let mut refusal = libc::ECONNREFUSED;
    for _ in 0..4 {
        match socket.send(b"hello").and_then(|_| socket.recv(&mut said)) {
            Ok(length) if sys::contains(&said[..length], &options.token()?) => {
                return Ok(Outcome::Escaped("it answered".to_owned()));
            }
            Ok(_) => return Err("somebody else answered".to_owned().into()),
            Err(error) => refusal = sys::number(&error),
        }
    }
    Ok(Outcome::Refused(refusal))
}

fn abstract_socket(options: &Options) -> Attempted {
    let at = std::os::unix::net::SocketAddr::from_abstract_name(options.need("abstract")?);
    let at = at.map_err(|error| error.to_string())?;
    let stream = UnixStream::connect_addr(&at).map_err(|error| sys::number(&error))?;
    says_token(stream, &options.token()?)
}

fn path_socket(options: &Options) -> Attempted {
    let stream = UnixStream::connect(options.need("socket")?).map_err(|error| sys::number(&error))?;
    says_token(stream, &options.token()?)
}

fn path_socket_through_proc(options: &Options) -> Attempted {
    let path = options.need("socket")?;
    let mut refusal = libc::ENOENT;
    for pid in sys::visible_pids() {
        match UnixStream::connect(format!("/proc/{pid}/root{path}")) {
            Ok(stream) => return says_token(stream, &options.token()?),
            Err(error) => refusal = sys::number(&error),
        }
    }
    Ok(Outcome::Refused(refusal))
}

fn connect_to(address: &str) -> Attempted {
    let address: SocketAddr = address.parse().map_err(|error| format!("{address}: {error}"))?;
    match TcpStream::connect_timeout(&address, Duration::from_secs(3)) {
        Ok(_) => Ok(Outcome::Escaped("connected".to_owned())),
        Err(error) => match error.raw_os_error() {
            Some(errno) => Ok(Outcome::Refused(errno)),
            None => Ok(Outcome::Escaped(format!("a packet was sent: {error}"))),
        },
    }
}

/// Listens on every interface while the test sends datagrams with the token over the host's loopback.
fn sniff(options: &Options) -> Attempted {
    let token = options.token()?;
    let protocol = i32::from((libc::ETH_P_ALL as u16).to_be());
    let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW, protocol)?;
    let time = libc::timeval { tv_sec: 0, tv_usec: 200_000 };
    let length = size_of_val(&time) as libc::socklen_t;
    // SAFETY: the value lives until the call returns, and the length is its own.
    sys::check(unsafe {
        libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const time).cast(), length)
    })?;
    let mut packets = 0;
    let mut silent = 0;
    while silent < 10 && packets < 100_000 {
        match sys::read_fd(socket, 65536) {
            Ok(bytes) if sys::contains(&bytes, &token) => {
                return Ok(Outcome::Escaped(format!("packet {packets}")));
            }
            Ok(_) => packets += 1,
            Err(libc::EAGAIN | libc::EINTR) => silent += 1,
            Err(errno) => return Ok(Outcome::Refused(errno)),
        }
    }
    Ok(Outcome::Harmless(format!("{packets} packets, none of the host's")))
}

fn interfaces(_: &Options) -> Attempted {
    let text = sys::read_text("/proc/net/dev")?;
    let others: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim().to_owned())
        .filter(|name| name != "lo")
        .collect();
    // A host with loopback alone has the test's listener on it.
    if others.is_empty() && text.is_empty() {
        return Err("/proc/net/dev is empty".to_owned().into());
    }
    found(&others, None, "loopback alone")
}

fn proc_net(options: &Options) -> Attempted {
    let port = format!(":{:04X} ", options.need_number("tcp")?);
    let mut seen = Vec::new();
    for pid in sys::visible_pids() {
        for file in ["tcp", "unix"] {
            let path = format!("/proc/{pid}/net/{file}");
            let Ok(text) = sys::read_text(&path) else { continue };
            let has = |what: &str| text.contains(what);
            if has(&port) || (file == "unix" && options.all("abstract").any(|name| has(&format!("@{name}"))))
            {
                seen.push(path);
            }
        }
    }
    seen.truncate(3);
    found(&seen, None, "none of them")
}

/// sock_diag(7): every TCP socket that listens.
fn sock_diag(options: &Options) -> Attempted {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const TCP_LISTEN: u32 = 10;
    let port = u16::try_from(options.need_number("tcp")?).map_err(|error| error.to_string())?;
    let mut request = vec![0u8; 16 + 56];
    let length = u32::try_from(request.len()).map_err(|error| error.to_string())?;
    request[0..4].copy_from_slice(&length.to_ne_bytes());
    request[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    request[6..8].copy_from_slice(&flags.to_ne_bytes());
    request[16] = libc::AF_INET as u8;
    request[17] = libc::IPPROTO_TCP as u8;
    request[20..24].copy_from_slice(&(1u32 << TCP_LISTEN).to_ne_bytes());
    let socket = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_SOCK_DIAG)?;
    sys::write_fd(socket, &request)?;
    for _ in 0..1000 {
        let answer = sys::read_fd(socket, 65536)?;
        let mut rest = answer.as_slice();
        while let Some((header, _)) = rest.split_first_chunk::<16>() {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let kind = i32::from(u16::from_ne_bytes([header[4], header[5]]));
            if kind == libc::NLMSG_DONE {
                return Ok(Outcome::Harmless("it is not among them".to_owned()));
            }
            if kind == libc::NLMSG_ERROR {
                let errno = rest.get(16..20).map_or(0, |n| -i32::from_ne_bytes([n[0], n[1], n[2], n[3]]));
                return Ok(Outcome::Refused(errno));
            }
            // struct inet_diag_msg: four bytes, then the local port in network order.
            if rest.get(20..22) == Some(&port.to_be_bytes()[..]) {
                return Ok(Outcome::Escaped("it is among them".to_owned()));
            }
            rest = rest.get(length.next_multiple_of(4).max(16)..).unwrap_or_default();
        }
    }
    Err("there is no end of them".to_owned().into())
}

fn loopback_down(_: &Options) -> Attempted {
    let socket = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    let mut request = [0u8; 40];
    request[..3].copy_from_slice(b"lo\0");
    // SAFETY: SIOCSIFFLAGS reads an ifreq, whose 40 bytes live until the call returns. The flags are none: down.
    must_fail(sys::check(unsafe { libc::ioctl(socket, libc::SIOCSIFFLAGS, request.as_ptr()) }))
}

/// rtnetlink(7), `RTM_NEWADDR`: 192.0.2.77/32 on the first interface.
fn add_address(_: &Options) -> Attempted {
    let mut request = vec![0u8; 16 + 8 + 8];
    request[0..4].copy_from_slice(&32u32.to_ne_bytes());
    request[4..6].copy_from_slice(&libc::RTM_NEWADDR.to_ne_bytes());
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE) as u16;
    request[6..8].copy_from_slice(&flags.to_ne_bytes());
    request[16..18].copy_from_slice(&[libc::AF_INET as u8, 32]);
    request[20..24].copy_from_slice(&1u32.to_ne_bytes());
    request[24..26].copy_from_slice(&8u16.to_ne_bytes());
    request[26..28].copy_from_slice(&libc::IFA_LOCAL.to_ne_bytes());
    request[28..32].copy_from_slice(&[192, 0, 2, 77]);
    let socket = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
    sys::write_fd(socket, &request)?;
    let answer = sys::read_fd(socket, 4096)?;
    match answer.get(16..20).map(|n| -i32::from_ne_bytes([n[0], n[1], n[2], n[3]])) {
        Some(0) => Ok(Outcome::Escaped("it was added".to_owned())),
        Some(errno) => Ok(Outcome::Refused(errno)),
        None => Err("an answer without a number".to_owned().into()),
    }
}

fn family(family: usize, kind: i32) -> Attempted {
    match call(libc::SYS_socket, [family, kind as usize, 0]) {
        // A kernel without it: the policy had let the call through, and there was nothing behind it.
        Err(libc::EAFNOSUPPORT) => Ok(Outcome::Refused(libc::EAFNOSUPPORT)),
        other => policy(other),
    }
}

/// Tries all families; two are tried by name above.
fn families(_: &Options) -> Attempted {
    let (mut open, mut reaching) = (Vec::new(), Vec::new());
    for family in 0..64 {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW, libc::SOCK_SEQPACKET] {
            if let Ok(fd) = sys::socket(family, kind, 0) {
                sys::close(fd);
                if !open.contains(&family) {
                    open.push(family);
                }
                if matches!(family, libc::AF_VSOCK | libc::AF_ALG | libc::AF_BLUETOOTH)
                    && !reaching.contains(&family)
                {
                    reaching.push(family);
                }
            }
        }
    }
    let text = |families: &[i32]| families.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    match reaching.is_empty() {
        true => Ok(Outcome::Harmless(format!("numbers {}", text(&open)))),
        false => Ok(Outcome::Escaped(format!("numbers {}", text(&reaching)))),
    }
}
