//! Who the sandbox's processes are: ids, capabilities, what programs gain when they are executed.

use std::ffi::CString;

use crate::attempt::{Attempt, Attempted, Control, Outcome, found, must_fail};
use crate::options::Options;
use crate::sys::{self, address, call};

pub(crate) fn all() -> Vec<Attempt> {
    use Control::Bare;
    vec![
        Attempt::new("credentials_of_all_processes", Bare, credentials),
        Attempt::new("ids_that_are_the_hosts", Bare, id_maps),
        Attempt::new("supplementary_groups", Control::Started, groups),
        Attempt::new("set_user_id_program_of_its_own", Bare, set_user_id),
        Attempt::new("set_user_id_program_of_the_host", Bare, set_user_id_of_host),
        Attempt::new("file_capabilities", Bare, file_capabilities),
        Attempt::new("ambient_capabilities", Bare, ambient),
        Attempt::new("take_an_id_outside_of_the_map", Bare, foreign_id),
    ]
}

/// What every process of a sandbox has, as /proc/PID/status spells it: a container's usual capabilities at most, none
/// that an exec could add, and one filter.
const BOUNDING: u64 = 0xa804_05fb;

fn credentials(_: &Options) -> Attempted {
    let mut odd = Vec::new();
    for pid in sys::visible_pids() {
        let of = |name| sys::status_of(&pid.to_string(), name);
        let Ok(bounding) = of("CapBnd") else { continue };
        let set = |text: &str| u64::from_str_radix(text, 16).unwrap_or(u64::MAX);
        let mut note = |what: String| odd.push(format!("{what} of {pid}"));
        if set(&bounding) != BOUNDING {
            note(format!("CapBnd {bounding}"));
        }
        for name in ["CapPrm", "CapEff"] {
            let value = of(name)?;
            if set(&value) & !BOUNDING != 0 {
                note(format!("{name} {value}"));
            }
        }
        for (name, expected) in [
            ("CapInh", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
            ("Seccomp_filters", "1"),
        ] {
            let value = of(name)?;
            if value != expected {
                note(format!("{name} {value}"));
            }
        }
    }
    odd.truncate(8);
    found(&odd, None, "all as they should be")
}

/// The map of ids: one range, far above those that a host gives to its users. Under an ordinary user it is `ids=BASE:COUNT`
/// of the user namespace above, whose 0 is that user.
fn id_maps(options: &Options) -> Attempted {
    let of_user = options.get("ids").and_then(|ids| {
        let (base, count) = ids.split_once(':')?;
        Some([0, base.parse().ok()?, count.parse().ok()?])
    });
    let mut odd = Vec::new();
    for map in ["uid_map", "gid_map"] {
        let text = sys::read_text(&format!("/proc/self/{map}"))?;
        for line in text.lines() {
            let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let is_right = match of_user.filter(|_| options.get("control").is_none()) {
                Some(ids) => numbers == ids,
                None => matches!(numbers[..], [0, 0x7000_0000..=0x7fff_ffff, 65536]),
            };
            if !is_right || text.lines().count() != 1 {
                odd.push(format!("{map} {}", line.split_whitespace().collect::<Vec<_>>().join(" ")));
            }
        }
    }
    found(&odd, None, "one range of its own")
}

fn groups(_: &Options) -> Attempted {
    let mut odd = Vec::new();
    for pid in sys::visible_pids() {
        let groups = sys::status_of(&pid.to_string(), "Groups").unwrap_or_default();
        if !groups.is_empty() {
            odd.push(format!("{groups} of {pid}"));
        }
    }
    odd.truncate(4);
    found(&odd, None, "nobody has any")
}

/// An unprivileged user, inside and outside.
const SOMEBODY: u32 = 12345;

/// How its child ends where there is no such user, and where there is no such program.
const NOBODY: i32 = 103;
const NO_PROGRAM: i32 = 104;

/// Executes `program`, this one, as somebody without privileges; gives what it says of itself.
fn run_as_somebody(program: &str) -> Result<String, Outcome> {
    let path = CString::new(program).map_err(|error| error.to_string())?;
    let (said, status) = sys::fork_with(|| {
        let mut ends = [0; 2];
        // SAFETY: an array of two descriptors; afterwards plain integers, and strings that live until the calls return.
        unsafe {
            if libc::pipe(ends.as_mut_ptr()) != 0 {
                return format!("pipe {}", sys::errno());
            }
            match libc::fork() {
                -1 => return format!("fork {}", sys::errno()),
                0 => {
                    libc::setgroups(0, std::ptr::null());
                    // Somebody without privileges already stays who that is.
                    if libc::geteuid() == 0
                        && (libc::setresgid(SOMEBODY, SOMEBODY, SOMEBODY) != 0
                            || libc::setresuid(SOMEBODY, SOMEBODY, SOMEBODY) != 0)
                    {
                        libc::_exit(if sys::errno() == libc::EINVAL { NOBODY } else { 101 });
                    }
                    libc::dup2(ends[1], 1);
                    let argv = [path.as_ptr(), c"whoami".as_ptr(), std::ptr::null()];
                    libc::execv(path.as_ptr(), argv.as_ptr());
                    libc::_exit(if sys::errno() == libc::ENOENT { NO_PROGRAM } else { 102 })
                }
                child => {
                    libc::close(ends[1]);
                    let status = sys::wait(child).unwrap_or(-1);
                    if status != 0 {
                        return match libc::WEXITSTATUS(status) {
                            NOBODY => "nobody".to_owned(),
                            NO_PROGRAM => "no program".to_owned(),
                            _ => format!("wait status {status:#x}"),
                        };
                    }
                }
            }
        }
        String::from_utf8_lossy(&sys::read_fd(ends[0], 4096).unwrap_or_default()).trim().to_owned()
    })?;
    match (said.strip_prefix("uid "), status) {
        (Some(_), 0) => Ok(said),
        // EINVAL of setresuid(2): the user namespace has no such id.
        _ if said == "nobody" => Err(Outcome::Harmless("there is nobody else to become".to_owned())),
        _ if said == "no program" => Err(Outcome::Refused(libc::ENOENT)),
        _ => Err(format!("{program} as somebody else: {said}").into()),
    }
}

/// Whether the program says that it has root's id or any capability.
fn gained(said: &str) -> Attempted {
    let words: Vec<&str> = said.split_whitespace().collect();
    match words[..] {
        ["uid", uid, "gid", gid, "capabilities", capabilities] => {
            let harmless = uid != "0" && gid != "0" && capabilities.bytes().all(|byte| byte == b'0');
            if harmless {
                Ok(Outcome::Harmless(said.to_owned()))
            } else {
                Ok(Outcome::Escaped(said.to_owned()))
            }
        }
        _ => Err(format!("it said {said:?}").into()),
    }
}

fn copy_of_itself(options: &Options, name: &str, mode: u32) -> Result<String, Outcome> {
    let path = format!("{}/{name}-{}", options.need("dir")?, sys::pid());
    let own = std::fs::read("/proc/self/exe").map_err(|error| sys::number(&error))?;
    sys::make_file(&path, &own, mode)?;
    Ok(path)
}

fn set_user_id(options: &Options) -> Attempted {
    let path = copy_of_itself(options, "set-user-id", 0o6755)?;
    // Without privileges the copy is one's own, and there is nobody to become.
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } != 0 {
        return Ok(Outcome::Harmless("it cannot be given to root".to_owned()));
    }
    gained(&run_as_somebody(&path)?)
}

fn set_user_id_of_host(options: &Options) -> Attempted {
    gained(&run_as_somebody(&format!("{}/set-user-id", options.need("usr_dir")?))?)
}

/// capabilities(7): `VFS_CAP_REVISION_2` with the effective flag, and two capabilities that the sandbox's root has.
fn file_capabilities(options: &Options) -> Attempted {
    const CAP_KILL: u32 = 5;
    let path = copy_of_itself(options, "capable", 0o755)?;
    let value: [u32; 5] = [0x0200_0001, 1 << CAP_KILL | 1, 0, 0, 0];
    let at = sys::c(&path);
    // SAFETY: all pointers live until the call returns, and the length is that of the value.
    sys::check(unsafe {
        libc::setxattr(
            at.as_ptr(),
            c"security.capability".as_ptr(),
            value.as_ptr().cast(),
            size_of_val(&value),
            0,
        )
    })?;
    gained(&run_as_somebody(&path)?)
}

/// prctl(2): a capability is made inheritable, then ambient, so that programs keep it whoever they run as.
fn ambient(_: &Options) -> Attempted {
    const SYS_ADMIN: u32 = 21;
    let header = [0x2008_0522u32, 0];
    let mut data = [0u32; 6];
    call(libc::SYS_capget, [address(header.as_ptr()), address(data.as_mut_ptr())])?;
    data[2] |= 1 << SYS_ADMIN;
    call(libc::SYS_capset, [address(header.as_ptr()), address(data.as_ptr())])?;
    let raise = libc::PR_CAP_AMBIENT_RAISE as usize;
    must_fail(call(libc::SYS_prctl, [libc::PR_CAP_AMBIENT as usize, raise, SYS_ADMIN as usize, 0, 0]))
}

/// The first id behind the sandbox's 65,536.
fn foreign_id(_: &Options) -> Attempted {
    must_fail(call(libc::SYS_setresuid, [65536, 65536, 65536]))
}
