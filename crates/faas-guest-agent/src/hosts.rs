//! `localhost` by name, in a container whose engine leaves `/etc/hosts` empty: one without a network of the engine's.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// What engines write there otherwise (hosts(5)).
const LOOPBACK: &[u8] = b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// Writes the file where it is there and empty. Where that cannot be, programs do without.
pub(crate) fn fill() {
    match fill_at(Path::new("/etc/hosts")) {
        Ok(()) | Err(_) => {}
    }
}

fn fill_at(path: &Path) -> std::io::Result<()> {
    // Whatever else an image may have in its place is left alone.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let mut file = std::fs::OpenOptions::new().write(true).custom_flags(flags).open(path)?;
    let is = file.metadata()?;
    if is.is_file() && is.len() == 0 {
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        file.write_all(LOOPBACK)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{LOOPBACK, fill_at};

    #[test]
    fn an_empty_file_is_filled_and_no_other() {
        let path = std::env::temp_dir().join(format!("hosts-{}", std::process::id()));
        assert!(fill_at(&path).is_err() && !path.exists());
        std::fs::write(&path, "").unwrap();
        fill_at(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), LOOPBACK);
        std::fs::write(&path, "10.0.0.1 own\n").unwrap();
        fill_at(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"10.0.0.1 own\n");
        std::fs::remove_file(path).unwrap();
    }
}
