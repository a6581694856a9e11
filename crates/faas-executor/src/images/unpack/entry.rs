//! Names in a layer: what they may be, and which of them stand for something else.

/// The longest name of one entry in a directory (NAME_MAX of every Linux file system).
const MAX_NAME_BYTES: usize = 255;

/// The longest path, and how deep it may lead. The first is what the kernel takes in one call; the second is far
/// beyond what anybody has and keeps the number of open directories small.
const MAX_PATH_BYTES: usize = 4095;
const MAX_DEPTH: usize = 256;

/// The beginning of a whiteout's name, and the two names beginning so that mean more (OCI layer specification).
const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What is wrong with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameError {
    #[error("leads out of the layer")]
    DotDot,
    #[error("has a NUL in it")]
    Nul,
    #[error("has a part of more than {MAX_NAME_BYTES} bytes")]
    LongName,
    #[error("has more than {MAX_PATH_BYTES} bytes")]
    LongPath,
    #[error("is more than {MAX_DEPTH} directories deep")]
    Deep,
    #[error("is kept for whiteouts")]
    Reserved,
}

/// What a name in a layer stands for. Paths have no slash at either end and no `.`, `..` or empty part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The layer's root.
    Root,
    /// An entry.
    Path(Vec<u8>),
    /// The path is hidden in the layers below.
    Whiteout(Vec<u8>),
    /// The directory hides what the layers below have in it.
    Opaque(Vec<u8>),
    /// Bookkeeping of an old union file system.
    Ignored,
}

/// Brings a name to one form: relative, whatever it begins with, and never out of the layer.
pub(super) fn clean(name: &[u8]) -> Result<Vec<u8>, NameError> {
    if name.contains(&0) {
        return Err(NameError::Nul);
    }
    let mut path = Vec::with_capacity(name.len().min(MAX_PATH_BYTES));
    let mut depth = 0;
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return Err(NameError::DotDot),
            part if part.len() > MAX_NAME_BYTES => return Err(NameError::LongName),
            _ => {}
        }
        depth += 1;
        if depth > MAX_DEPTH {
            return Err(NameError::Deep);
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(part);
        if path.len() > MAX_PATH_BYTES {
            return Err(NameError::LongPath);
        }
    }
    Ok(path)
}

/// The directory and the last part of a path.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Finds out what a name stands for.
pub(super) fn place(name: &[u8]) -> Result<Place, NameError> {
    let path = clean(name)?;
    if path.is_empty() {
        return Ok(Place::Root);
    }
    let (dir, last) = split(&path);
    if last == OPAQUE && !dir.split(|byte| *byte == b'/').any(|part| part.starts_with(WHITEOUT)) {
        return Ok(Place::Opaque(dir.to_vec()));
    }
    if path.split(|byte| *byte == b'/').any(|part| part.starts_with(WHITEOUT_META)) {
        return Ok(Place::Ignored);
    }
    if dir.split(|byte| *byte == b'/').any(|part| part.starts_with(WHITEOUT)) {
        return Err(NameError::Reserved);
    }
    match last.strip_prefix(WHITEOUT) {
        None => Ok(Place::Path(path)),
        Some(b"" | b"." | b"..") => Err(NameError::Reserved),
        Some(hidden) => Ok(Place::Whiteout(crate::images::marks::join(dir, hidden))),
    }
}

/// A name for people: cut, and without what a terminal might take for a command.
pub(super) fn show(name: &[u8]) -> String {
    let shown: String = String::from_utf8_lossy(&name[..name.len().min(200)]).escape_debug().collect();
    if name.len() > 200 { format!("`{shown}...`") } else { format!("`{shown}`") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{NameError, Place, clean, place};

    #[test]
    fn names_are_relative_and_stay_inside() {
        for (name, path) in [
            (b"a/b".as_slice(), b"a/b".as_slice()),
            (b"./a//b/", b"a/b"),
            (b"/etc/passwd", b"etc/passwd"),
            (b"///", b""),
            (b"\xff\xfe", b"\xff\xfe"),
            (b"...", b"..."),
        ] {
            assert_eq!(clean(name).unwrap(), path);
        }
        assert_eq!(clean(b"a/../b"), Err(NameError::DotDot));
        assert_eq!(clean(b".."), Err(NameError::DotDot));
        assert_eq!(clean(b"a\0b"), Err(NameError::Nul));
        assert_eq!(clean(&[b'a'; 256]), Err(NameError::LongName));
        assert_eq!(clean(&b"a/".repeat(257)), Err(NameError::Deep));
        assert_eq!(clean(&[b"/".as_slice(), &[b'a'; 250]].concat().repeat(17)), Err(NameError::LongPath));
    }

    #[test]
    fn whiteouts_are_no_files() {
        assert_eq!(place(b"./"), Ok(Place::Root));
        assert_eq!(place(b"d/.wh.x"), Ok(Place::Whiteout(b"d/x".to_vec())));
        assert_eq!(place(b".wh.x"), Ok(Place::Whiteout(b"x".to_vec())));
        assert_eq!(place(b".wh..hidden"), Ok(Place::Whiteout(b".hidden".to_vec())));
        assert_eq!(place(b"d/.wh..wh..opq"), Ok(Place::Opaque(b"d".to_vec())));
        assert_eq!(place(b".wh..wh..opq"), Ok(Place::Opaque(Vec::new())));
        assert_eq!(place(b".wh..wh.plnk/1.2"), Ok(Place::Ignored));
        assert_eq!(place(b".wh..wh.aufs"), Ok(Place::Ignored));
        for reserved in [b".wh.".as_slice(), b".wh..", b"d/.wh...", b".wh.x/y"] {
            assert_eq!(place(reserved), Err(NameError::Reserved), "{reserved:?}");
        }
    }

    proptest! {
        #[test]
        fn a_cleaned_name_has_only_plain_parts(
            name in prop::collection::vec(prop::sample::select(b"a./\xc3w".to_vec()), 0..60)
        ) {
            if let Ok(path) = clean(&name) {
                let is_plain = |part: &[u8]| !part.is_empty() && part != b"." && part != b"..";
                prop_assert!(path.is_empty() || path.split(|b| *b == b'/').all(is_plain));
                prop_assert_eq!(clean(&path), Ok(path));
            }
        }

        #[test]
        fn a_whiteout_never_names_more_than_one_entry(name in "[a./wh]{0,20}") {
            if let Ok(Place::Whiteout(path)) = place(name.as_bytes()) {
                prop_assert_eq!(clean(&path), Ok(path.clone()));
                prop_assert!(!path.is_empty());
            }
        }
    }
}
