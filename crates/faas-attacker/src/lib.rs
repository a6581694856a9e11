//! The attacker as bytes, for tests to put into a sandbox. The program itself is `main.rs`.
#![forbid(unsafe_code)]

/// The groups of attempts, as `faas-attacker try GROUP` takes them.
pub const GROUPS: [&str; 11] = [
    "devices",
    "files",
    "identity",
    "inherited",
    "kernel",
    "mounts",
    "namespaces",
    "neighbour",
    "network",
    "proc",
    "processes",
];

/// What `faas-attacker hold` and `faas-attacker use` can take up.
pub const RESOURCES: [&str; 13] = [
    "aio",
    "epoll",
    "inflight",
    "inotify-instances",
    "inotify-watches",
    "message-queues",
    "netlink",
    "pipes",
    "ptys",
    "shm",
    "signals",
    "tcp",
    "udp",
];

/// The static program.
#[must_use]
pub fn program() -> &'static [u8] {
    include_bytes!(env!("FAAS_ATTACKER_PROGRAM"))
}
