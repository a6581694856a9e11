//! Using up what there is, without holding back.

use std::io::Write as _;

use crate::options::Options;
use crate::sys;

pub(super) fn run(options: &Options) -> Result<(), String> {
    match options.need("what")? {
        "forks" => forks(),
        "zombies" => zombies(),
        "memory" => memory(),
        "disk" => disk(options.need("dir")?),
        "kill-all" => kill_all(),
        other => Err(format!("no harm {other:?}")),
    }
}

/// Every process makes more of them, for ever.
fn forks() -> ! {
    loop {
        // SAFETY: the program has one thread.
        if unsafe { libc::fork() } < 0 {
            std::hint::spin_loop();
        }
    }
}

/// As many children as can be had, none of them waited for.
fn zombies() -> Result<(), String> {
    let mut made = 0;
    loop {
        // SAFETY: the program has one thread.
        match unsafe { libc::fork() } {
            -1 => break,
            // SAFETY: ends the child.
            0 => unsafe { libc::_exit(0) },
            _ => made += 1,
        }
    }
    println!("{made} zombies");
    Ok(())
}

fn memory() -> Result<(), String> {
    let mut held = Vec::new();
    loop {
        held.push(vec![1u8; 1 << 20]);
        std::hint::black_box(&held);
    }
}

/// Prints how many bytes went in and what ended it.
fn disk(dir: &str) -> Result<(), String> {
    let path = format!("{dir}/filler");
    let mut file = std::fs::File::create(&path).map_err(|error| format!("{path}: {error}"))?;
    let block = vec![7u8; 1 << 20];
    let mut written = 0u64;
    loop {
        match file.write(&block) {
            Ok(bytes) => written += bytes as u64,
            Err(error) => {
                println!("{written} bytes, {}", sys::errno_name(sys::number(&error)));
                return Ok(());
            }
        }
    }
}

/// kill(2) of everybody who may be killed.
fn kill_all() -> Result<(), String> {
    // SAFETY: plain integers.
    sys::check(unsafe { libc::kill(-1, libc::SIGKILL) }).map(drop).map_err(sys::errno_name)
}
