//! Ways out of a changed root directory.

use super::files::UP;
use crate::attempt::{Attempt, Attempted, Control, Outcome};
use crate::options::Options;
use crate::sys;

pub(crate) fn all() -> Vec<Attempt> {
    use Control::{Bare, Chroot};
    vec![
        Attempt::new("chroot_and_back_by_a_kept_descriptor", Chroot, chroot_and_back),
        Attempt::new("walk_out_of_a_directory_that_was_moved", Bare, moved_directory),
        Attempt::new("swap_a_directory_while_it_is_walked", Bare, swapped_directory),
    ]
}

/// What a process that has left its root sees at the path of a file of the host, from its working directory upwards.
fn look_from_here(options: &Options) -> Attempted {
    let token = options.token()?;
    let mut refusal = libc::ENOENT;
    for file in options.all("file") {
        for prefix in [format!(".{UP}"), String::new()] {
            match sys::holds(&format!("{prefix}{file}"), &token) {
                Ok(true) => return Ok(Outcome::Escaped(format!("{prefix}{file}"))),
                Ok(false) => {}
                Err(errno) => refusal = errno,
            }
        }
    }
    Ok(Outcome::Harmless(format!("its root is the sandbox's ({})", sys::errno_name(refusal))))
}

fn chroot(path: &str) -> Result<(), i32> {
    std::os::unix::fs::chroot(path).map_err(|error| sys::number(&error))
}

fn chdir(path: &str) -> Result<(), i32> {
    std::env::set_current_dir(path).map_err(|error| sys::number(&error))
}

fn mkdir(path: &str) -> Result<(), i32> {
    std::fs::create_dir(path).map_err(|error| sys::number(&error))
}

/// The oldest way out: a root directory deeper than a descriptor that is kept.
fn chroot_and_back(options: &Options) -> Attempted {
    // In the control the root is a bare directory.
    let base = if options.get("control").is_some() { String::new() } else { options.need("dir")?.to_owned() };
    let inner = format!("{base}/inner-{}", sys::pid());
    mkdir(&inner)?;
    let kept = sys::open("/", libc::O_RDONLY | libc::O_DIRECTORY)?;
    chroot(&inner)?;
    // SAFETY: a descriptor of this function's own.
    sys::check(unsafe { libc::fchdir(kept) })?;
    for _ in 0..64 {
        chdir("..")?;
    }
    chroot(".")?;
    look_from_here(options)
}

/// A directory tree of its own: `jail/x/y/` and `outside/` in a new directory.
fn make_jail(options: &Options) -> Result<String, Outcome> {
    let top = format!("{}/walk-{}", options.need("dir")?, sys::pid());
    mkdir(&top)?;
    let deep: String = (0..40).map(|n| format!("d{n}/")).collect();
    for dir in ["outside", "jail/x/y", &format!("jail/x/y/{deep}"), &format!("outside/z/{deep}")] {
        std::fs::create_dir_all(format!("{top}/{dir}")).map_err(|error| sys::number(&error))?;
    }
    Ok(top)
}

/// A process whose root is `jail` stands in a directory that somebody outside of the jail moves out of it.
fn moved_directory(options: &Options) -> Attempted {
    let top = make_jail(options)?;
    let (mut go, mut done) = ([0; 2], [0; 2]);
    for ends in [&mut go, &mut done] {
        // SAFETY: an array of two descriptors.
        sys::check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    }
    // SAFETY: the process has one thread.
    let mover = unsafe { libc::fork() };
    if mover == 0 {
        let moved = sys::read_fd(go[0], 1).and_then(|_| {
            std::fs::rename(format!("{top}/jail/x/y"), format!("{top}/outside/y"))
                .map_err(|e| sys::number(&e))
        });
        let said = sys::write_fd(done[1], if moved.is_ok() { b"y" } else { b"n" });
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(said.is_err())) };
    }
    sys::check(mover)?;
    chroot(&format!("{top}/jail"))?;
    chdir("/x/y")?;
    sys::write_fd(go[1], b"g")?;
    if sys::read_fd(done[0], 1)? != b"y" {
        return Err("the directory could not be moved".to_owned().into());
    }
    sys::wait(mover)?;
    look_from_here(options)
}

/// The same without standing in it: one process exchanges a directory inside of the jail with one outside, over and
/// over, while another walks through it and upwards.
fn swapped_directory(options: &Options) -> Attempted {
    let top = make_jail(options)?;
    let token = options.token()?;
    // SAFETY: the process has one thread.
    let swapper = unsafe { libc::fork() };
    if swapper == 0 {
        let (inside, outside) = (sys::c(&format!("{top}/jail/x/y")), sys::c(&format!("{top}/outside/z")));
        // SAFETY: plain integers; both paths live as long as the child.
        unsafe {
            libc::alarm(20);
            loop {
                let fds = (libc::AT_FDCWD, libc::AT_FDCWD);
                libc::renameat2(fds.0, inside.as_ptr(), fds.1, outside.as_ptr(), libc::RENAME_EXCHANGE);
            }
        }
    }
    sys::check(swapper)?;
    let end = |outcome| {
        // SAFETY: a child of this function, not waited for yet.
        unsafe { libc::kill(swapper, libc::SIGKILL) };
        sys::wait(swapper)?;
        Ok(outcome)
    };
    chroot(&format!("{top}/jail"))?;
    let deep: String = (0..40).map(|n| format!("d{n}/")).collect();
    let up: String = "../".repeat(60);
    let paths: Vec<_> = options.all("file").map(|file| format!("/x/y/{deep}{up}{}", &file[1..])).collect();
    // In the control until it happens; inside for a fixed number of walks.
    let rounds = if options.get("control").is_some() { 5_000_000 } else { 100_000 };
    for round in 0..rounds {
        for path in &paths {
            if sys::holds(path, &token) == Ok(true) {
                return end(Outcome::Escaped(format!("in round {round}")));
            }
        }
    }
    end(Outcome::Harmless(format!("{rounds} walks led nowhere")))
}
