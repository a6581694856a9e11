//! The guest agent's program, built by this crate's build script and carried in this one.

#[cfg(all(target_os = "linux", feature = "native"))]
pub(crate) use install::install;
#[cfg(feature = "docker")]
pub(crate) use install::install_beside;

/// The static program that runs inside every sandbox.
#[must_use]
pub const fn agent_binary() -> &'static [u8] {
    include_bytes!(env!("FAAS_GUEST_AGENT_PATH"))
}

/// The SHA-256 of [`agent_binary`] in hexadecimal digits.
#[must_use]
pub const fn agent_digest() -> &'static str {
    env!("FAAS_GUEST_AGENT_DIGEST")
}

#[cfg(any(feature = "docker", all(target_os = "linux", feature = "native")))]
mod install {
    use std::collections::BTreeSet;
    use std::io;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::{Path, PathBuf};

    use super::{agent_binary, agent_digest};
    use crate::error::StartError;

    fn at(path: &Path) -> impl FnOnce(io::Error) -> StartError + '_ {
        move |source| StartError::Io { path: path.to_owned(), source }
    }

    /// Puts the guest agent's program where sandboxes find it: a directory named for its digest, with an empty directory
    /// `run` beside it. Programs of earlier servers are removed: no sandbox of theirs is left.
    #[cfg(all(target_os = "linux", feature = "native"))]
    pub(crate) fn install(parent: &Path) -> Result<PathBuf, StartError> {
        install_beside(parent, &BTreeSet::new())
    }

    /// The same, but the programs with the digests `others` stay: lasting sandboxes were made with them, and are begun
    /// anew with them.
    pub(crate) fn install_beside(parent: &Path, others: &BTreeSet<String>) -> Result<PathBuf, StartError> {
        let agents = parent.join("agent");
        let dir = agents.join(agent_digest());
        std::fs::create_dir_all(&agents).map_err(at(&agents))?;
        for entry in std::fs::read_dir(&agents).map_err(at(&agents))? {
            let entry = entry.map_err(at(&agents))?;
            let path = entry.path();
            let is_others = entry.file_name().to_str().is_some_and(|name| others.contains(name));
            if path != dir && !is_others {
                std::fs::remove_dir_all(&path).map_err(at(&path))?;
            }
        }
        let (program, run) = (dir.join("agent"), dir.join("run"));
        std::fs::create_dir_all(&run).map_err(at(&run))?;
        for open in [&dir, &run] {
            // Whatever the umask is: to sandboxes they are somebody else's, and they must come in.
            std::fs::set_permissions(open, std::fs::Permissions::from_mode(0o755)).map_err(at(open))?;
        }
        let installed = match std::fs::read(&program) {
            Ok(bytes) => bytes == agent_binary(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(at(&program)(error)),
        };
        if !installed {
            let new = dir.join("agent.new");
            std::fs::write(&new, agent_binary()).map_err(at(&new))?;
            std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o555)).map_err(at(&new))?;
            std::fs::rename(&new, &program).map_err(at(&program))?;
        }
        Ok(dir)
    }
}

#[cfg(test)]
mod tests {
    use super::{agent_binary, agent_digest};

    #[cfg(feature = "docker")]
    #[test]
    fn programs_of_earlier_servers_go_but_those_that_somebody_needs() {
        let parent = tempfile::tempdir().unwrap();
        let agents = parent.path().join("agent");
        for digest in ["needed", "not-needed"] {
            std::fs::create_dir_all(agents.join(digest).join("run")).unwrap();
        }
        let own = super::install_beside(parent.path(), &["needed".to_owned()].into()).unwrap();
        assert_eq!(std::fs::read(own.join("agent")).unwrap(), agent_binary());
        let mut left: Vec<_> =
            std::fs::read_dir(agents).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        let mut expected = vec![agent_digest().into(), std::ffi::OsString::from("needed")];
        expected.sort();
        assert_eq!(left, expected);
    }

    /// The types of all program headers of a 64-bit little-endian ELF file (elf(5)).
    fn program_header_types(elf: &[u8]) -> Vec<u32> {
        assert_eq!(&elf[..6], b"\x7fELF\x02\x01", "a 64-bit little-endian ELF file");
        let u16_at = |at: usize| usize::from(u16::from_le_bytes([elf[at], elf[at + 1]]));
        let start = usize::try_from(u64::from_le_bytes(elf[32..40].try_into().unwrap())).unwrap();
        let (size, count) = (u16_at(54), u16_at(56));
        (0..count)
            .map(|i| start + i * size)
            .map(|at| u32::from_le_bytes(elf[at..at + 4].try_into().unwrap()))
            .collect()
    }

    #[test]
    fn the_agent_is_static() {
        const PT_LOAD: u32 = 1;
        const PT_INTERP: u32 = 3;
        let types = program_header_types(agent_binary());
        assert!(types.contains(&PT_LOAD));
        assert!(!types.contains(&PT_INTERP), "it asks for a dynamic loader, which an image need not have");
    }

    #[test]
    fn the_digest_is_one_of_sha256() {
        assert_eq!(agent_digest().len(), 64);
        assert!(agent_digest().bytes().all(|b| b.is_ascii_hexdigit()));
    }
}
