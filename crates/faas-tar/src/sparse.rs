//! Files with holes: the old GNU format and the three that PAX headers carry (GNU tar manual, "Sparse Formats").

use super::number;
use super::pax::Extensions;
use super::reader::TarError;

/// The most pieces that one file may have.
const MAX_SEGMENTS: usize = 65_536;

/// A piece of a file that the archive has bytes for; between pieces are holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins in the file.
    pub offset: u64,
    /// How long it is.
    pub len: u64,
}

/// Where the map of a sparse file is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Map {
    /// The file has no holes.
    Dense,
    /// It has been read already.
    Known { segments: Vec<Segment>, size: u64 },
    /// It is at the beginning of the file's data, as decimal lines.
    InData { size: u64 },
}

/// Collects pieces and checks them: in order, apart from each other, within the file.
#[derive(Debug, Default)]
pub(super) struct Segments(Vec<Segment>);

impl Segments {
    pub(super) fn push(&mut self, offset: u64, len: u64) -> Result<(), TarError> {
        let end = self.0.last().map_or(0, |last| last.offset + last.len);
        if self.0.len() >= MAX_SEGMENTS || offset < end || offset.checked_add(len).is_none() {
            return Err(TarError::Malformed("a sparse file's map"));
        }
        if len > 0 {
            self.0.push(Segment { offset, len });
        }
        Ok(())
    }

    /// The pieces of a file of `size` bytes of which the archive has `stored`.
    pub(super) fn finish(self, size: u64, stored: u64) -> Result<Vec<Segment>, TarError> {
        let end = self.0.last().map_or(0, |last| last.offset + last.len);
        let sum = self.0.iter().try_fold(0u64, |sum, segment| sum.checked_add(segment.len));
        if end > size || sum != Some(stored) {
            return Err(TarError::Malformed("a sparse file's map"));
        }
        Ok(self.0)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The pieces of the old format: 24 bytes each, offset and length in octal or base 256.
pub(super) fn old_gnu(bytes: &[u8], segments: &mut Segments) -> Result<(), TarError> {
    for piece in bytes.chunks_exact(24) {
        if piece[0] == 0 {
            break;
        }
        let number = |bytes| number::field(bytes).and_then(|value| u64::try_from(value).ok());
        match (number(&piece[..12]), number(&piece[12..])) {
            (Some(offset), Some(len)) => segments.push(offset, len)?,
            _ => return Err(TarError::Malformed("a sparse file's map")),
        }
    }
    Ok(())
}

/// What a file's PAX records say of its holes. `stored` is the length of its data in the archive.
pub(super) fn of_pax(extensions: &Extensions, stored: u64) -> Result<Map, TarError> {
    const MALFORMED: TarError = TarError::Malformed("a sparse file's records");
    let text = |key: &[u8]| extensions.get(key);
    let size = match text(b"GNU.sparse.realsize").or_else(|| text(b"GNU.sparse.size")) {
        Some(value) => number::decimal(value).ok_or(MALFORMED)?,
        None => return Ok(Map::Dense),
    };
    if text(b"GNU.sparse.major") == Some(b"1") {
        return Ok(Map::InData { size });
    }
    let mut segments = Segments::default();
    if let Some(map) = text(b"GNU.sparse.map") {
        let mut numbers = map.split(|byte| *byte == b',');
        while let Some(offset) = numbers.next() {
            let pair = number::decimal(offset).zip(numbers.next().and_then(number::decimal));
            let (offset, len) = pair.ok_or(MALFORMED)?;
            segments.push(offset, len)?;
        }
    } else {
        let offsets = extensions.all(b"GNU.sparse.offset");
        let lens = extensions.all(b"GNU.sparse.numbytes");
        if offsets.len() != lens.len() {
            return Err(MALFORMED);
        }
        for (offset, len) in offsets.into_iter().zip(lens) {
            let pair = number::decimal(offset).zip(number::decimal(len));
            let (offset, len) = pair.ok_or(MALFORMED)?;
            segments.push(offset, len)?;
        }
    }
    Ok(Map::Known { segments: segments.finish(size, stored)?, size })
}

#[cfg(test)]
mod tests {
    use super::{Segment, Segments};

    #[test]
    fn pieces_out_of_order_or_outside_of_the_file_are_refused() {
        let mut segments = Segments::default();
        segments.push(0, 10).unwrap();
        assert!(segments.push(9, 1).is_err());
        segments.push(20, 5).unwrap();
        assert!(segments.push(u64::MAX, 1).is_err());
        assert!(Segments::default().finish(0, 0).unwrap().is_empty());
        let pieces = segments.finish(25, 15).unwrap();
        assert_eq!(pieces, [Segment { offset: 0, len: 10 }, Segment { offset: 20, len: 5 }]);
        let mut outside = Segments::default();
        outside.push(5, 10).unwrap();
        assert!(outside.finish(14, 10).is_err());
    }
}
