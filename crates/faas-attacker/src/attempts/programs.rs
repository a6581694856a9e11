//! What a sandbox sees of the host's programs: what only the host's root may read of it, and changing any of it. The
//! agent's program too, which all sandboxes execute.

use super::files::looked_at;
use crate::attempt::{Attempt, Attempted, Control, Outcome, found, must_fail};
use crate::options::Options;
use crate::sys;

pub(crate) fn all() -> Vec<Attempt> {
    use Control::Bare;
    vec![
        Attempt::new("private_file_below_usr", Bare, private_below_usr),
        Attempt::new("private_file_below_usr_after_chmod", Bare, chmod_below_usr),
        Attempt::new("private_file_below_usr_after_chown", Bare, chown_below_usr),
        Attempt::new("write_to_a_program_of_the_host", Bare, write_below_usr),
        Attempt::new("truncate_a_program_of_the_host", Bare, truncate_below_usr),
        Attempt::new("rename_a_program_of_the_host", Bare, rename_below_usr),
        Attempt::new("remove_a_program_of_the_host", Bare, remove_below_usr),
        Attempt::new("add_a_program_to_the_host", Bare, add_below_usr),
        Attempt::new("set_times_of_a_program_of_the_host", Bare, times_below_usr),
        Attempt::new("set_attributes_of_a_program_of_the_host", Bare, attributes_below_usr),
        Attempt::new("map_a_program_of_the_host_for_writing", Bare, map_below_usr),
        Attempt::new("overwrite_what_visible_processes_execute", Bare, overwrite_executables),
        Attempt::new("replace_the_agents_program", Bare, replace_agent),
    ]
}

fn usr(options: &Options, name: &str) -> Result<String, Outcome> {
    Ok(format!("{}/{name}", options.need("usr_dir")?))
}

fn private_below_usr(options: &Options) -> Attempted {
    match sys::holds(&usr(options, "secret")?, &options.token()?)? {
        true => Ok(Outcome::Escaped("it was read".to_owned())),
        false => Err("it is another file".to_owned().into()),
    }
}

fn chmod_below_usr(options: &Options) -> Attempted {
    let path = sys::c(&usr(options, "secret")?);
    // SAFETY: the path lives until the call returns.
    must_fail(sys::check(unsafe { libc::chmod(path.as_ptr(), 0o600) }))
}

fn chown_below_usr(options: &Options) -> Attempted {
    let path = sys::c(&usr(options, "secret")?);
    // SAFETY: the path lives until the call returns. On the host it is root's already.
    must_fail(sys::check(unsafe { libc::lchown(path.as_ptr(), 0, 0) }))
}

fn write_below_usr(options: &Options) -> Attempted {
    must_fail(sys::open(&usr(options, "readable")?, libc::O_WRONLY).map(|_| 0))
}

fn truncate_below_usr(options: &Options) -> Attempted {
    let path = usr(options, "readable")?;
    let length = sys::stat(&path)?.st_size;
    let path = sys::c(&path);
    // SAFETY: the path lives until the call returns; the length is the file's own.
    must_fail(sys::check(unsafe { libc::truncate(path.as_ptr(), length) }))
}

fn rename_below_usr(options: &Options) -> Attempted {
    let (from, to) = (usr(options, "readable")?, usr(options, "renamed")?);
    match std::fs::rename(&from, &to).and_then(|()| std::fs::rename(&to, &from)) {
        Ok(()) => Ok(Outcome::Escaped("there and back".to_owned())),
        Err(error) => Ok(Outcome::Refused(sys::number(&error))),
    }
}

fn remove_below_usr(options: &Options) -> Attempted {
    match std::fs::remove_file(usr(options, "spare")?) {
        Ok(()) => {
            // The control may be made again.
            sys::make_file(&usr(options, "spare")?, b"spare", 0o644)?;
            Ok(Outcome::Escaped("it was removed".to_owned()))
        }
        Err(error) => Ok(Outcome::Refused(sys::number(&error))),
    }
}

fn add_below_usr(options: &Options) -> Attempted {
    // Those of an image are in the sandbox's own layer: `usr=own`. The test looks at the image.
    let of_the_host: &[&str] = match options.get("usr") {
        Some(_) => &[],
        None => &["/usr/bin", "/usr/local/bin", "/bin", "/lib"],
    };
    for dir in [options.need("usr_dir")?].iter().chain(of_the_host) {
        let path = format!("{dir}/added-{}", sys::pid());
        if sys::make_file(&path, b"", 0o755).is_ok() {
            std::fs::remove_file(&path).map_err(|error| sys::number(&error))?;
            return Ok(Outcome::Escaped((*dir).to_owned()));
        }
    }
    Ok(Outcome::Refused(libc::EROFS))
}

fn times_below_usr(options: &Options) -> Attempted {
    let path = sys::c(&usr(options, "readable")?);
    // SAFETY: the path lives until the call returns; null times mean now.
    must_fail(sys::check(unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), std::ptr::null(), 0) }))
}

fn attributes_below_usr(options: &Options) -> Attempted {
    let path = sys::c(&usr(options, "readable")?);
    // SAFETY: all pointers live until the call returns, and the length is that of the value.
    must_fail(sys::check(unsafe {
        libc::setxattr(path.as_ptr(), c"user.attack".as_ptr(), b"x".as_ptr().cast(), 1, 0)
    }))
}

fn map_below_usr(options: &Options) -> Attempted {
    let readable = usr(options, "readable")?;
    let fd = sys::open(&readable, libc::O_RDWR).or_else(|_| sys::open(&readable, libc::O_RDONLY))?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping where the kernel likes, not written to.
    let mapped = unsafe { libc::mmap(std::ptr::null_mut(), 1, protection, libc::MAP_SHARED, fd, 0) };
    must_fail(if mapped == libc::MAP_FAILED { Err(sys::errno()) } else { Ok(0) })
}

/// `/proc/PID/exe` for writing, of whoever is visible; a program that runs refuses it with ETXTBSY, which is the same
/// file all the same.
fn overwrite_executables(options: &Options) -> Attempted {
    let (mut seen, mut refusal) = (Vec::new(), None);
    let own = sys::link("/proc/self/exe").unwrap_or_default();
    for pid in looked_at(options)? {
        let path = format!("/proc/{pid}/exe");
        let Ok(program) = sys::link(&path) else { continue };
        if program == own && options.get("control").is_none() {
            continue;
        }
        match sys::open(&path, libc::O_WRONLY) {
            Ok(_) => seen.push(format!("{program} of {pid}")),
            Err(libc::ETXTBSY) => seen.push(format!("{program} of {pid}, were it not running")),
            Err(errno) => refusal = Some(errno),
        }
    }
    seen.truncate(3);
    found(&seen, refusal, "no program but its own")
}

/// In the control a file of the host stands for the agent's program.
fn replace_agent(options: &Options) -> Attempted {
    let agent = match options.get("control") {
        Some(_) => usr(options, "spare")?,
        None => "/.faas/agent".to_owned(),
    };
    let aside = format!("{agent}.aside");
    let mut seen = Vec::new();
    let mut refusal = None;
    let mut note = |what: &str, result: Result<(), i32>| match result {
        Ok(()) => seen.push(what.to_owned()),
        Err(errno) => refusal = Some(errno),
    };
    note("write", sys::open(&agent, libc::O_WRONLY).map(drop));
    note(
        "rename",
        std::fs::rename(&agent, &aside)
            .and_then(|()| std::fs::rename(&aside, &agent))
            .map_err(|e| sys::number(&e)),
    );
    note(
        "add",
        sys::make_file(&aside, b"", 0o755)
            .and_then(|()| std::fs::remove_file(&aside).map_err(|e| sys::number(&e))),
    );
    found(&seen, refusal, "nothing was tried")
}
