//! The content of a regular file.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use faas_guest_protocol::files::{FileContent, FileFailure, FileRange};
use rustix::io::Errno;

use super::{Answer, At as _, Failed};

/// How much is read of a file whose length the kernel does not tell (those of `/proc`) to find out how long it is.
const UNTOLD_BYTES: usize = 256 << 10;

/// A regular file, opened for reading. Nothing else is opened: that may wait for ever, or do something.
pub(super) fn open_regular(path: &Path, flags: i32) -> Result<(File, Metadata), Failed> {
    let check = |metadata: Metadata| match metadata.file_type() {
        kind if kind.is_dir() => {
            Err(Failed::new(Errno::ISDIR, format!("{}: it is a directory", path.display())))
        }
        kind if !kind.is_file() => {
            Err(Failed::new(Errno::INVAL, format!("{}: it is no regular file", path.display())))
        }
        _ => Ok(metadata),
    };
    let metadata =
        if flags & libc::O_NOFOLLOW == 0 { std::fs::metadata(path) } else { path.symlink_metadata() };
    check(metadata.at(path)?)?;
    let flags = flags | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags).open(path).at(path)?;
    let metadata = check(file.metadata().at(path)?)?;
    Ok((file, metadata))
}

/// Where the bytes begin, and how many there are.
fn part(size: u64, range: Option<FileRange>) -> Option<(u64, u64)> {
    match range {
        None => Some((0, size)),
        Some(FileRange::From { first, last }) => {
            let end = last.map_or(size, |last| last.saturating_add(1).min(size));
            (first < end).then(|| (first, end - first))
        }
        Some(FileRange::Last(bytes)) => {
            let length = bytes.min(size);
            (length > 0).then(|| (size - length, length))
        }
    }
}

fn no_such_part(path: &Path, size: u64) -> Failed {
    Failed::Told(FileFailure {
        errno: libc::ERANGE,
        message: format!("{}: it has {size} bytes, and none of those that were asked for", path.display()),
        size: Some(size),
    })
}

pub(super) fn read(
    path: &Path,
    range: Option<FileRange>,
    head: bool,
    answer: &mut Answer,
) -> Result<(), Failed> {
    let (mut file, metadata) = open_regular(path, 0)?;
    let modified_s = metadata.mtime();
    let size = metadata.len();
    if size == 0 {
        let mut begun = Vec::new();
        let most = u64::try_from(UNTOLD_BYTES).unwrap_or(u64::MAX);
        file.by_ref().take(most + 1).read_to_end(&mut begun).at(path)?;
        if begun.len() > UNTOLD_BYTES {
            // Where it ends is known at its end.
            answer.begin(FileContent { size: None, start: 0, length: None, modified_s })?;
            if head {
                return Ok(());
            }
            answer.bytes(&begun)?;
            return copy(&mut file, u64::MAX, answer).map(drop);
        }
        let size = u64::try_from(begun.len()).unwrap_or(u64::MAX);
        let (start, length) = part(size, range).ok_or_else(|| no_such_part(path, size))?;
        answer.begin(FileContent { size: Some(size), start, length: Some(length), modified_s })?;
        let bytes = begun.iter().copied().skip(usize::try_from(start).unwrap_or(usize::MAX));
        let bytes: Vec<u8> = bytes.take(usize::try_from(length).unwrap_or(usize::MAX)).collect();
        return if head { Ok(()) } else { answer.bytes(&bytes) };
    }
    let (start, length) = part(size, range).ok_or_else(|| no_such_part(path, size))?;
    file.seek(SeekFrom::Start(start)).at(path)?;
    answer.begin(FileContent { size: Some(size), start, length: Some(length), modified_s })?;
    if head || copy(&mut file, length, answer)? == length {
        return Ok(());
    }
    // It has become shorter.
    Err(Failed::Broken)
}

/// Passes on up to `most` bytes. How many there were.
pub(super) fn copy(file: &mut File, most: u64, answer: &mut Answer) -> Result<u64, Failed> {
    io::copy(&mut file.take(most), answer.raw()?).map_err(|_| Failed::Broken)
}

#[cfg(test)]
mod tests {
    use faas_guest_protocol::files::FileRange;

    use super::part;

    #[test]
    fn a_range_is_cut_to_the_file_and_is_nothing_outside_of_it() {
        let from = |first, last| Some(FileRange::From { first, last });
        for (size, range, expected) in [
            (10, None, Some((0, 10))),
            (0, None, Some((0, 0))),
            (10, from(0, Some(0)), Some((0, 1))),
            (10, from(3, None), Some((3, 7))),
            (10, from(3, Some(u64::MAX)), Some((3, 7))),
            (10, from(10, None), None),
            (10, from(5, Some(4)), None),
            (0, from(0, None), None),
            (10, Some(FileRange::Last(3)), Some((7, 3))),
            (10, Some(FileRange::Last(30)), Some((0, 10))),
            (10, Some(FileRange::Last(0)), None),
            (0, Some(FileRange::Last(3)), None),
        ] {
            assert_eq!(part(size, range), expected, "{size} {range:?}");
        }
    }
}
