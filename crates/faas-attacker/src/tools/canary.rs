//! A process of the outside that everybody must leave alone.

use std::io::{Read as _, Write as _};

use super::held;
use crate::options::Options;
use crate::sys;

pub(super) fn run(options: &Options) -> Result<(), String> {
    let address = held::keep_token(&options.token()?);
    for file in options.all("file") {
        let dir = file.rsplit_once('/').map_or("/", |(dir, _)| dir);
        let flags = libc::O_RDONLY;
        let fd = sys::open(file, flags).map_err(|errno| format!("{file}: {}", sys::errno_name(errno)))?;
        sys::open(dir, flags | libc::O_DIRECTORY)
            .map_err(|errno| format!("{dir}: {}", sys::errno_name(errno)))?;
        // SAFETY: a lock on a descriptor of this process; a new mapping where the kernel likes.
        unsafe {
            sys::check(libc::flock(fd, libc::LOCK_SH)).map_err(sys::errno_name)?;
            libc::mmap(std::ptr::null_mut(), 1, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0);
        }
    }
    println!("{}:{address}", sys::pid());
    std::io::stdout().flush().map_err(|error| error.to_string())?;
    // Until the test lets go.
    std::io::stdin().read_to_end(&mut Vec::new()).map_err(|error| error.to_string())?;
    Ok(())
}
