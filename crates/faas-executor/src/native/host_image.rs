//! The image `host`: the host's own programs, read-only, around an `/etc` and a home of the image's own.
//!
//! What it takes from the host is what every user of the host may read: `/usr` and its companions as they are (the
//! kernel checks each access against the sandbox's ids, which own nothing there), and copies of a few world-readable
//! files of `/etc` without which programs do not run. Nothing else of the host is in it.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::launcher::{Failure, Step as _};

/// The PATH of the image.
pub(crate) const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Where programs and libraries are, on one host or another.
const PROGRAM_DIRS: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// What is copied from the host's `/etc`. A name that ends in `*` stands for every entry that begins so.
const ETC: [&str; 13] = [
    "alternatives",
    "ld.so.cache",
    "ld.so.conf*",
    "nsswitch.conf",
    "localtime",
    "services",
    "protocols",
    "mime.types",
    "terminfo",
    "ssl/certs",
    "ssl/openssl.cnf",
    "python3*",
    "perl",
];

/// Files of the image's own.
const OWN: [(&str, &str); 6] = [
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\n\
         daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    ("etc/group", "root:x:0:\ndaemon:x:1:\ntty:x:5:\nnogroup:x:65534:\n"),
    ("etc/shells", "/bin/sh\n/bin/bash\n"),
    ("etc/host.conf", "multi on\n"),
    ("etc/resolv.conf", ""),
    ("etc/profile", "export PATH=\"${PATH:-/usr/local/bin:/usr/bin:/bin}\"\n"),
];

/// Directories of the image's own, with their modes.
const DIRS: [(&str, u32); 17] = [
    (".faas", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/tmp", 0o1777),
];

/// The largest file that is copied from `/etc`.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// The most entries that are copied from `/etc`.
const MAX_ENTRIES: u32 = 20_000;

/// The host's program directories that are directories, and not links to one another.
pub(crate) fn program_dirs() -> io::Result<Vec<PathBuf>> {
    let mut dirs = Vec::new();
    for name in PROGRAM_DIRS {
        let path = Path::new("/").join(name);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => dirs.push(path),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(dirs)
}

/// Makes everything of the image beside the host's program directories, in the empty directory `root`.
pub(crate) fn build_skeleton(root: &Path) -> Result<(), Failure> {
    for (dir, mode) in DIRS {
        let path = root.join(dir);
        fs::create_dir(&path).step(format!("make {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .step(format!("mode of {}", path.display()))?;
    }
    for name in PROGRAM_DIRS {
        let (host, here) = (Path::new("/").join(name), root.join(name));
        match fs::symlink_metadata(&host) {
            Ok(meta) if meta.is_symlink() => {
                let target = fs::read_link(&host).step(format!("read {}", host.display()))?;
                std::os::unix::fs::symlink(target, &here).step(format!("make {}", here.display()))?;
            }
            Ok(meta) if meta.is_dir() => fs::create_dir(&here).step(format!("make {}", here.display()))?,
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Failure::at(format!("look at {}", host.display()), &error));
            }
            _ => {}
        }
    }
    std::os::unix::fs::symlink("/run", root.join("var/run")).step("make var/run")?;
    std::os::unix::fs::symlink("/proc/self/mounts", root.join("etc/mtab")).step("make etc/mtab")?;
    for (path, text) in OWN {
        fs::write(root.join(path), text).step(format!("write {path}"))?;
    }
    let mut left = MAX_ENTRIES;
    for entry in ETC {
        for (from, below) in matching(Path::new("/etc"), entry).step(format!("look for /etc/{entry}"))? {
            let to = root.join("etc").join(below);
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent).step(format!("make {}", parent.display()))?;
            }
            copy_readable(&from, &to, &mut left).step(format!("copy {}", from.display()))?;
        }
    }
    Ok(())
}

/// The entries that `pattern` names below `dir`: their paths, and the same without `dir`.
fn matching(dir: &Path, pattern: &str) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let Some(prefix) = pattern.strip_suffix('*') else {
        return Ok(vec![(dir.join(pattern), pattern.into())]);
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(prefix)) {
            found.push((dir.join(&name), PathBuf::from(name)));
        }
    }
    Ok(found)
}

/// Copies what everybody may read: links as links, files and directories with their modes, anything else not at all.
fn copy_readable(from: &Path, to: &Path, left: &mut u32) -> io::Result<()> {
    let meta = match fs::symlink_metadata(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let Some(rest) = left.checked_sub(1) else {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too many entries"));
    };
    *left = rest;
    let kind = meta.file_type();
    if kind.is_symlink() {
        return std::os::unix::fs::symlink(fs::read_link(from)?, to);
    }
    if kind.is_block_device() || kind.is_char_device() || kind.is_fifo() || kind.is_socket() {
        return Ok(());
    }
    if kind.is_dir() {
        if meta.mode() & 0o005 != 0o005 {
            return Ok(());
        }
        fs::create_dir(to)?;
        fs::set_permissions(to, fs::Permissions::from_mode(meta.mode() & 0o755))?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy_readable(&from.join(&name), &to.join(&name), left)?;
        }
        return Ok(());
    }
    if meta.mode() & 0o004 == 0 || meta.len() > MAX_FILE_BYTES {
        return Ok(());
    }
    fs::copy(from, to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(meta.mode() & 0o755))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::{copy_readable, matching};

    fn temp_dir() -> PathBuf {
        let dir = std::env::temp_dir().join(format!("host-image-{}", uuid::Uuid::now_v7().simple()));
        fs::create_dir(&dir).unwrap();
        dir
    }

    #[test]
    fn only_what_everybody_may_read_is_copied() {
        let dir = temp_dir();
        let from = dir.join("from");
        fs::create_dir_all(from.join("private")).unwrap();
        fs::write(from.join("open"), "x").unwrap();
        fs::write(from.join("secret"), "x").unwrap();
        fs::write(from.join("private/inside"), "x").unwrap();
        fs::set_permissions(from.join("open"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::set_permissions(from.join("secret"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::set_permissions(from.join("private"), fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink("/etc/shadow", from.join("link")).unwrap();
        copy_readable(&from, &dir.join("to"), &mut 100).unwrap();
        let mode = fs::metadata(dir.join("to/open")).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o755, "set-user-id is not kept");
        assert!(!dir.join("to/secret").exists());
        assert!(!dir.join("to/private").exists());
        assert!(fs::symlink_metadata(dir.join("to/link")).unwrap().is_symlink(), "a link is not followed");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_directory_without_end_is_refused() {
        let dir = temp_dir();
        fs::create_dir(dir.join("from")).unwrap();
        for n in 0..10 {
            fs::write(dir.join(format!("from/{n}")), "").unwrap();
        }
        assert!(copy_readable(&dir.join("from"), &dir.join("to"), &mut 5).is_err());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_star_stands_for_every_entry_that_begins_so() {
        let dir = temp_dir();
        for name in ["python3", "python3.11", "perl"] {
            fs::write(dir.join(name), "").unwrap();
        }
        let mut found: Vec<_> =
            matching(&dir, "python3*").unwrap().into_iter().map(|(_, below)| below).collect();
        found.sort();
        assert_eq!(found, [PathBuf::from("python3"), PathBuf::from("python3.11")]);
        fs::remove_dir_all(dir).unwrap();
    }
}
