//! One block as a header.

use super::BLOCK;
use super::number;
use super::reader::TarError;

/// A header block whose checksum is right.
pub(super) struct Header<'a>(&'a [u8; BLOCK]);

/// The bytes of a field up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

impl<'a> Header<'a> {
    /// Checks the checksum: the sum of all bytes, those of the checksum itself taken as spaces. Old writers summed
    /// signed bytes.
    pub(super) fn parse(block: &'a [u8; BLOCK]) -> Result<Self, TarError> {
        let stated = number::field(&block[148..156]);
        let (mut unsigned, mut signed) = (0i64, 0i64);
        for (at, byte) in block.iter().enumerate() {
            let byte = if (148..156).contains(&at) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if stated == Some(unsigned) || stated == Some(signed) {
            Ok(Self(block))
        } else {
            Err(TarError::Malformed("a header's checksum"))
        }
    }

    fn number(&self, range: std::ops::Range<usize>, what: &'static str) -> Result<i64, TarError> {
        number::field(&self.0[range]).ok_or(TarError::Malformed(what))
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    /// The name, with ustar's prefix before it.
    pub(super) fn path(&self) -> Vec<u8> {
        let (name, prefix) = (text(&self.0[..100]), text(&self.0[345..500]));
        if &self.0[257..263] != b"ustar\0" || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> Result<u32, TarError> {
        let mode = self.number(100..108, "a mode")?;
        u32::try_from(mode & 0o7777).map_err(|_| TarError::Malformed("a mode"))
    }

    /// The owner; a number that no id can be becomes [`u64::MAX`].
    pub(super) fn uid(&self) -> Result<u64, TarError> {
        Ok(u64::try_from(self.number(108..116, "an owner")?).unwrap_or(u64::MAX))
    }

    pub(super) fn gid(&self) -> Result<u64, TarError> {
        Ok(u64::try_from(self.number(116..124, "a group")?).unwrap_or(u64::MAX))
    }

    pub(super) fn size(&self) -> Result<u64, TarError> {
        let size = self.number(124..136, "a size")?;
        u64::try_from(size).map_err(|_| TarError::Malformed("a size"))
    }

    pub(super) fn mtime(&self) -> Result<i64, TarError> {
        self.number(136..148, "a time")
    }

    /// The four pieces of an old GNU sparse file that fit the header.
    pub(super) fn sparse_pieces(&self) -> &[u8] {
        &self.0[386..482]
    }

    /// Whether blocks with more pieces follow.
    pub(super) fn sparse_goes_on(&self) -> bool {
        self.0[482] != 0
    }

    /// The size of an old GNU sparse file with its holes.
    pub(super) fn sparse_size(&self) -> Result<u64, TarError> {
        let size = self.number(483..495, "a sparse file's size")?;
        u64::try_from(size).map_err(|_| TarError::Malformed("a sparse file's size"))
    }
}
