//! A directory, by name, in pages.

use std::collections::BinaryHeap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use faas_guest_protocol::files::{FileListing, RawPath};

use super::{Answer, At as _, Failed, info};

/// The first names after `after`, one more than `limit` where there are so many. No more than these are kept at once.
fn names(path: &Path, after: Option<&RawPath>, limit: usize) -> Result<Vec<Vec<u8>>, Failed> {
    let mut first = BinaryHeap::new();
    for entry in std::fs::read_dir(path).at(path)? {
        let name = entry.at(path)?.file_name().as_bytes().to_vec();
        if after.is_some_and(|after| name <= after.0) {
            continue;
        }
        first.push(name);
        if first.len() > limit.saturating_add(1) {
            first.pop();
        }
    }
    Ok(first.into_sorted_vec())
}

pub(super) fn list(
    path: &Path,
    after: Option<&RawPath>,
    limit: usize,
    answer: &mut Answer,
) -> Result<(), Failed> {
    let mut found = names(path, after, limit)?;
    let more = found.len() > limit;
    found.truncate(limit);
    let (above, users) = (info::absolute(path), info::Names::default());
    let entries: Vec<_> = found
        .iter()
        .filter_map(|name| {
            let path = above.join(OsStr::from_bytes(name));
            // One that has just gone is not there.
            let metadata = path.symlink_metadata().ok()?;
            Some(info::of(&path, &metadata, &users))
        })
        .collect();
    answer.begin(FileListing { entries: entries.len(), more })?;
    entries.iter().try_for_each(|entry| answer.line(entry))
}

#[cfg(test)]
mod tests {
    use faas_guest_protocol::files::RawPath;

    #[test]
    fn pages_are_in_order_and_know_whether_there_is_more() {
        let dir = std::env::temp_dir().join(format!("list-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        for name in ["c", "a", "e", "b", "d"] {
            std::fs::write(dir.join(name), "").unwrap();
        }
        let names = |after: Option<&str>, limit| {
            let after = after.map(|after| RawPath(after.as_bytes().to_vec()));
            super::names(&dir, after.as_ref(), limit).unwrap().concat()
        };
        assert_eq!(names(None, 2), b"abc");
        assert_eq!(names(Some("b"), 2), b"cde");
        assert_eq!(names(Some("c"), 2), b"de");
        assert_eq!(names(Some("e"), 2), b"");
        assert_eq!(names(None, usize::MAX), b"abcde");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
