//! What a layer says beside its files: what it hides of the layers below, and which directories it only implies.
//!
//! Overlay file systems keep this in device nodes and extended attributes; here it is a list beside the layer, the same
//! for root and for an ordinary user. As bytes it is a sequence of records, each a letter, a path and a NUL:
//!
//! | letter | what |
//! |---|---|
//! | `w` | the path is hidden in the layers below (OCI layer specification, "Whiteouts") |
//! | `o` | all entries of this directory in the layers below are hidden ("Opaque Whiteout") |
//! | `i` | the directory is there for something in it; the layer says nothing of its owner, mode and time |
//!
//! A path has no slash at its beginning or end; the layer's root is the empty path.

use std::collections::{HashMap, HashSet};

/// The most bytes of one layer's marks.
pub(crate) const MAX_BYTES: usize = 32 << 20;

/// The marks of one layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Hidden names by their directories.
    whiteouts: HashMap<Vec<u8>, HashSet<Vec<u8>>>,
    opaque: HashSet<Vec<u8>>,
    implied: HashSet<Vec<u8>>,
    bytes: usize,
}

/// A layer has more marks than [`MAX_BYTES`], or they are no marks.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum MarksError {
    #[error("whiteouts and implied directories take more than {MAX_BYTES} bytes")]
    TooMany,
    #[error("a layer's marks are malformed")]
    Malformed,
}

/// The directory and the name of a path.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

impl Marks {
    fn count(&mut self, path: &[u8]) -> Result<(), MarksError> {
        self.bytes += path.len() + 2;
        if self.bytes > MAX_BYTES { Err(MarksError::TooMany) } else { Ok(()) }
    }

    /// Hides `path` in the layers below.
    pub(crate) fn add_whiteout(&mut self, path: &[u8]) -> Result<(), MarksError> {
        let (dir, name) = split(path);
        if self.whiteouts.entry(dir.to_vec()).or_default().insert(name.to_vec()) {
            self.count(path)?;
        }
        Ok(())
    }

    /// Hides everything in `dir` in the layers below.
    pub(crate) fn add_opaque(&mut self, dir: &[u8]) -> Result<(), MarksError> {
        if self.opaque.insert(dir.to_vec()) { self.count(dir) } else { Ok(()) }
    }

    /// Notes that `dir` is only implied.
    pub(crate) fn add_implied(&mut self, dir: &[u8]) -> Result<(), MarksError> {
        if self.implied.insert(dir.to_vec()) { self.count(dir) } else { Ok(()) }
    }

    /// The layer does say something of `dir`.
    pub(crate) fn remove_implied(&mut self, dir: &[u8]) {
        if self.implied.remove(dir) {
            self.bytes -= dir.len() + 2;
        }
    }

    /// The names that are hidden in `dir` of the layers below.
    pub(crate) fn whiteouts_in(&self, dir: &[u8]) -> Option<&HashSet<Vec<u8>>> {
        self.whiteouts.get(dir)
    }

    pub(crate) fn is_opaque(&self, dir: &[u8]) -> bool {
        self.opaque.contains(dir)
    }

    pub(crate) fn is_implied(&self, dir: &[u8]) -> bool {
        self.implied.contains(dir)
    }

    /// The records, in order.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let whiteouts = self.whiteouts.iter().flat_map(|(dir, names)| {
            names.iter().map(move |name| (b'w', if dir.is_empty() { name.clone() } else { join(dir, name) }))
        });
        let others = self.opaque.iter().map(|dir| (b'o', dir.clone()));
        let mut records: Vec<_> =
            whiteouts.chain(others).chain(self.implied.iter().map(|dir| (b'i', dir.clone()))).collect();
        records.sort_unstable();
        let mut bytes = Vec::with_capacity(self.bytes);
        for (letter, path) in records {
            bytes.push(letter);
            bytes.extend_from_slice(&path);
            bytes.push(0);
        }
        bytes
    }

    /// Reads the records.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, MarksError> {
        let mut marks = Self::default();
        let Some(records) = bytes.strip_suffix(b"\0") else {
            return if bytes.is_empty() { Ok(marks) } else { Err(MarksError::Malformed) };
        };
        for record in records.split(|byte| *byte == 0) {
            match record.split_first() {
                Some((b'w', path)) => marks.add_whiteout(path)?,
                Some((b'o', dir)) => marks.add_opaque(dir)?,
                Some((b'i', dir)) => marks.add_implied(dir)?,
                _ => return Err(MarksError::Malformed),
            }
        }
        Ok(marks)
    }
}

/// The path of `name` in `dir`.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

#[cfg(test)]
mod tests {
    use super::Marks;

    #[test]
    fn marks_survive_being_written() {
        let mut marks = Marks::default();
        marks.add_whiteout(b"a/b\xff").unwrap();
        marks.add_whiteout(b"c").unwrap();
        marks.add_opaque(b"").unwrap();
        marks.add_implied(b"a").unwrap();
        marks.add_implied(b"x").unwrap();
        marks.remove_implied(b"x");
        let bytes = marks.to_bytes();
        assert_eq!(bytes.len(), marks.bytes);
        let read = Marks::from_bytes(&bytes).unwrap();
        assert_eq!(read, marks);
        assert!(read.whiteouts_in(b"a").unwrap().contains(b"b\xff".as_slice()));
        assert!(read.is_opaque(b"") && read.is_implied(b"a") && !read.is_implied(b"x"));
        assert_eq!(Marks::from_bytes(b"").unwrap(), Marks::default());
        for wrong in [b"w".as_slice(), b"q\0", b"\0", b"wa\0\0"] {
            assert!(Marks::from_bytes(wrong).is_err());
        }
    }
}
