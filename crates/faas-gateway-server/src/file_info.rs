//! Files as clients are told of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use faas_guest_protocol::files::{self, ChangeKind, FileKind, FileStat, RawPath};
use faas_types::{FileChange, FileEvent, FileInfo, FileType};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

const fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::File,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::Fifo,
        FileKind::Socket => FileType::Socket,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::CharDevice => FileType::CharDevice,
    }
}

/// A path as text, and in base64 where that is not all of it.
fn shown(path: &RawPath) -> (String, Option<String>) {
    let text = String::from_utf8_lossy(&path.0);
    let is_all = matches!(text, std::borrow::Cow::Borrowed(_));
    (text.into_owned(), (!is_all).then(|| STANDARD.encode(&path.0)))
}

/// A time that the sandbox tells; one beyond the year 9999 has no such form and becomes the beginning of all time.
fn at(seconds: i64, nanoseconds: u32) -> OffsetDateTime {
    let nanoseconds = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds)
        .ok()
        .filter(|at| (0..=9999).contains(&at.year()))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// A time as HTTP has it in headers (RFC 9110, 5.6.7).
pub(crate) fn http_date(seconds: i64) -> Option<String> {
    let form = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    at(seconds, 0).format(form).ok()
}

/// An entry as it is shown.
pub(crate) fn info(stat: &FileStat) -> FileInfo {
    let (path, path_base64) = shown(&stat.path);
    FileInfo {
        path,
        path_base64,
        name: shown(&stat.name).0,
        kind: file_type(stat.kind),
        size_bytes: stat.size,
        mode: format!("{:04o}", stat.mode & 0o7777),
        uid: stat.uid,
        gid: stat.gid,
        owner: stat.owner.clone(),
        group: stat.group.clone(),
        modified_at: at(stat.modified_s, stat.modified_ns).format(&Rfc3339).unwrap_or_default(),
        target: stat.target.as_ref().map(|target| shown(target).0),
    }
}

/// A change as it is told, by its name.
pub(crate) fn event(change: &files::FileChange) -> (&'static str, FileEvent) {
    let (path, path_base64) = shown(&change.path);
    let (from, from_base64) = match &change.from {
        Some(from) => {
            let (from, base64) = shown(from);
            (Some(from), base64)
        }
        None => (None, None),
    };
    let told = FileChange { path, path_base64, from, from_base64, kind: change.kind.map(file_type) };
    match change.change {
        ChangeKind::Created => ("created", FileEvent::Created(told)),
        ChangeKind::Modified => ("modified", FileEvent::Modified(told)),
        ChangeKind::Deleted => ("deleted", FileEvent::Deleted(told)),
        ChangeKind::Moved => ("moved", FileEvent::Moved(told)),
        ChangeKind::Overflow => ("overflow", FileEvent::Overflow {}),
    }
}

#[cfg(test)]
mod tests {
    use faas_guest_protocol::files::RawPath;

    use super::{at, http_date, shown};

    #[test]
    fn a_path_that_is_no_text_is_there_exactly_too() {
        assert_eq!(shown(&RawPath(b"/a\n".to_vec())), ("/a\n".to_owned(), None));
        assert_eq!(shown(&RawPath(b"/\xff".to_vec())), ("/\u{fffd}".to_owned(), Some("L/8=".to_owned())));
    }

    #[test]
    fn times_have_the_forms_of_http_and_of_json() {
        assert_eq!(http_date(784_111_777).as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        for absurd in [i64::MIN, i64::MAX, 999_999_999_999] {
            assert_eq!(at(absurd, 0).unix_timestamp(), 0, "{absurd}");
        }
    }
}
