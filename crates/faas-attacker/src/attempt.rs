//! One attempt: its name, where it must succeed, and the line that says how it ended.

use std::io::Write as _;

use crate::control;
use crate::options::Options;
use crate::sys;

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The kernel refused it.
    Refused(i32),
    /// It was carried out and reached nothing of the outside.
    Harmless(String),
    /// It reached the outside.
    Escaped(String),
    /// It could not be made, and so proves nothing.
    Broken(String),
}

/// An errno that `?` passes on is a refusal.
impl From<i32> for Outcome {
    fn from(errno: i32) -> Self {
        Self::Refused(errno)
    }
}

/// A text that `?` passes on says why the attempt cannot be made.
impl From<String> for Outcome {
    fn from(why: String) -> Self {
        Self::Broken(why)
    }
}

/// What an attempt gives: `?` ends one early.
pub(crate) type Attempted = Result<Outcome, Outcome>;

/// Where an attempt must end with `ESCAPED`, so that its refusal in a sandbox means something.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Control {
    /// On the host as its root, as it is: the attempt changes nothing of it.
    Bare,
    /// The same in mount, UTS and IPC namespaces to be thrown away.
    Host,
    /// The same, with PID and network namespaces to be thrown away too: what it does would be felt on the host.
    Apart,
    /// On the host as its root, with its root directory changed.
    Chroot,
    /// On the host, in a user namespace without a mapping.
    Unmapped,
    /// On the host, started by the tool `starter` as the gateway is.
    Started,
    /// Nowhere, for this reason.
    None(&'static str),
}

impl Control {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Host => "host",
            Self::Apart => "apart",
            Self::Chroot => "chroot",
            Self::Unmapped => "unmapped",
            Self::Started => "started",
            Self::None(_) => "none",
        }
    }
}

/// One way of trying.
pub(crate) struct Attempt {
    pub(crate) name: &'static str,
    pub(crate) control: Control,
    /// What the host's root is told where the kernel has no such thing at all.
    pub(crate) absent: &'static [i32],
    pub(crate) run: fn(&Options) -> Attempted,
}

impl Attempt {
    pub(crate) const fn new(name: &'static str, control: Control, run: fn(&Options) -> Attempted) -> Self {
        Self { name, control, absent: &[], run }
    }

    /// An attempt on something that a kernel may lack.
    pub(crate) const fn optional(
        name: &'static str,
        control: Control,
        absent: &'static [i32],
        run: fn(&Options) -> Attempted,
    ) -> Self {
        Self { name, control, absent, run }
    }
}

/// Prints name and control of each.
pub(crate) fn list(attempts: &[Attempt]) {
    for attempt in attempts {
        match attempt.control {
            Control::None(reason) => println!("{}\tnone\t{reason}", attempt.name),
            control => println!("{}\t{}", attempt.name, control.name()),
        }
    }
}

/// Makes each attempt in a process of its own, so that none can spoil another. `control=NAME` makes those alone that
/// have this control, there; `only=NAME` makes one.
pub(crate) fn make_all(attempts: &[Attempt], options: &Options) {
    let wanted = options.get("control");
    for attempt in attempts {
        if wanted.is_some_and(|wanted| wanted != attempt.control.name())
            || options.get("only").is_some_and(|only| only != attempt.name)
        {
            continue;
        }
        println!("ATTEMPT {}: {}", attempt.name, line(attempt, make(attempt, options), wanted.is_some()));
    }
}

/// An errno that says nothing of a refusal: the attempt was made badly, or the machine had something else to do.
const SAYS_NOTHING: [i32; 8] = [
    libc::EBADF,
    libc::EFAULT,
    libc::EINTR,
    libc::EIO,
    libc::EMFILE,
    libc::ENFILE,
    libc::ENOMEM,
    libc::ENOSPC,
];

fn line(attempt: &Attempt, outcome: Outcome, in_control: bool) -> String {
    match outcome {
        Outcome::Refused(errno) if in_control && attempt.absent.contains(&errno) => {
            format!("absent({})", sys::errno_name(errno))
        }
        Outcome::Refused(errno) if SAYS_NOTHING.contains(&errno) => {
            format!("BROKEN {}", sys::errno_name(errno))
        }
        Outcome::Refused(errno) => format!("refused({})", sys::errno_name(errno)),
        Outcome::Harmless(how) => format!("HARMLESS {how}"),
        Outcome::Escaped(how) => format!("ESCAPED {how}"),
        Outcome::Broken(why) => format!("BROKEN {why}"),
    }
    .replace('\n', " ")
}

/// Seconds after which an attempt that hangs is ended.
const TIME_LIMIT_S: u32 = 60;

fn make(attempt: &Attempt, options: &Options) -> Outcome {
    if let Err(error) = std::io::stdout().flush() {
        return Outcome::Broken(format!("flush: {error}"));
    }
    let in_control = options.get("control").is_some();
    let child = sys::fork_with(|| {
        // SAFETY: plain integer.
        unsafe { libc::alarm(TIME_LIMIT_S) };
        if in_control && let Err(why) = control::enter(attempt.control, options) {
            return encode(Outcome::Broken(format!("control: {why}")));
        }
        encode((attempt.run)(options).unwrap_or_else(|ended| ended))
    });
    match child {
        Ok((text, status)) => decode(&text, status),
        Err(errno) => Outcome::Broken(format!("fork: {}", sys::errno_name(errno))),
    }
}

fn encode(outcome: Outcome) -> String {
    let (kind, text) = match outcome {
        Outcome::Refused(errno) => ('R', errno.to_string()),
        Outcome::Harmless(how) => ('H', how),
        Outcome::Escaped(how) => ('E', how),
        Outcome::Broken(why) => ('B', why),
    };
    // Within what a pipe takes at once.
    format!("{kind}{}", text.chars().take(900).collect::<String>())
}

fn decode(text: &str, status: i32) -> Outcome {
    let (kind, rest) = text.split_at_checked(1).unwrap_or(("", ""));
    match (kind, rest.parse()) {
        ("R", Ok(errno)) => Outcome::Refused(errno),
        ("H", _) => Outcome::Harmless(rest.to_owned()),
        ("E", _) => Outcome::Escaped(rest.to_owned()),
        ("B", _) => Outcome::Broken(rest.to_owned()),
        _ => Outcome::Broken(format!("it ended without a word, wait status {status:#x}")),
    }
}

/// For calls that the policy must refuse before the kernel looks at them: EPERM, or ENOSYS as of a kernel without it.
/// The arguments are such that nothing happens where the call is let through; any other answer says that it was.
pub(crate) fn policy(result: Result<usize, i32>) -> Attempted {
    match result {
        Err(errno @ (libc::EPERM | libc::ENOSYS)) => Ok(Outcome::Refused(errno)),
        Err(errno) => Ok(Outcome::Escaped(format!("the kernel looked at it: {}", sys::errno_name(errno)))),
        Ok(value) => Ok(Outcome::Escaped(format!("it was carried out: {value}"))),
    }
}

/// For calls that must fail, with whatever errno.
pub(crate) fn must_fail(result: Result<usize, i32>) -> Attempted {
    match result {
        Err(errno) => Ok(Outcome::Refused(errno)),
        Ok(value) => Ok(Outcome::Escaped(format!("it was carried out: {value}"))),
    }
}

/// The end of an attempt that looked in many places: what it found, or the last refusal, or that there was nothing.
pub(crate) fn found(found: &[String], refusal: Option<i32>, nothing: &str) -> Attempted {
    match (found.is_empty(), refusal) {
        (false, _) => Ok(Outcome::Escaped(found.join(", "))),
        (true, Some(errno)) => Ok(Outcome::Refused(errno)),
        (true, None) => Ok(Outcome::Harmless(nothing.to_owned())),
    }
}
