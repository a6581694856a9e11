//! The guest agent's program, built by this crate's build script and carried in this one.

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

#[cfg(test)]
mod tests {
    use super::{agent_binary, agent_digest};

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
