//! Writes headers (POSIX.1-2017, `pax`): ustar, with a PAX header before it where a name, a number or an attribute does
//! not fit.

use super::BLOCK;
use super::reader::{Entry, Kind};

/// The largest numbers of the fields for a mode or owner, and for a size or time.
const MAX_SHORT: u64 = 0o777_7777;
const MAX_LONG: u64 = 0o777_7777_7777;

/// The longest name and target of a link that ustar has room for. Its prefix is not used.
const MAX_NAME_BYTES: usize = 100;

/// The end of an archive.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// How many zero bytes go behind data of this length.
pub fn padding(len: u64) -> usize {
    (len.next_multiple_of(BLOCK as u64) - len) as usize
}

/// A number of a PAX record or field that has to be positive.
fn positive(number: i64) -> Option<u64> {
    u64::try_from(number).ok()
}

/// The header of an entry. For a file its data comes next, filled up by [`padding`]; nothing has holes.
pub fn header(entry: &Entry) -> Vec<u8> {
    let mut records = Vec::new();
    if entry.path.len() > MAX_NAME_BYTES {
        record(&mut records, b"path", &entry.path);
    }
    if entry.link.len() > MAX_NAME_BYTES {
        record(&mut records, b"linkpath", &entry.link);
    }
    if entry.size > MAX_LONG {
        record(&mut records, b"size", entry.size.to_string().as_bytes());
    }
    for (key, id) in [(b"uid", entry.uid), (b"gid", entry.gid)] {
        if id > MAX_SHORT {
            record(&mut records, key, id.to_string().as_bytes());
        }
    }
    let (seconds, nanoseconds) = entry.mtime;
    if nanoseconds != 0 || positive(seconds).is_none_or(|seconds| seconds > MAX_LONG) {
        record(&mut records, b"mtime", time(seconds, nanoseconds).as_bytes());
    }
    for (name, value) in &entry.xattrs {
        record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    let mut out = Vec::with_capacity(BLOCK);
    if !records.is_empty() {
        out.extend_from_slice(&block(b"pax", b"", b'x', [0o644, 0, 0], records.len() as u64, 0));
        out.extend_from_slice(&records);
        out.resize(out.len() + padding(records.len() as u64), 0);
    }
    let kind = match entry.kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::Device => b'3',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    };
    let mtime = positive(seconds).unwrap_or(0);
    let numbers = [u64::from(entry.mode), entry.uid, entry.gid];
    out.extend_from_slice(&block(&entry.path, &entry.link, kind, numbers, entry.size, mtime));
    out
}

/// `LENGTH KEY=VALUE\n`; the length is that of the whole record, its own digits included.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    records.extend_from_slice(len.to_string().as_bytes());
    for part in [b" ", key, b"=", value, b"\n"] {
        records.extend_from_slice(part);
    }
}

/// A time as a decimal number: before 1970 the fraction counts backwards as the seconds do.
fn time(seconds: i64, nanoseconds: u32) -> String {
    if seconds >= 0 || nanoseconds == 0 {
        return format!("{seconds}.{nanoseconds:09}");
    }
    let (whole, fraction) = (-(i128::from(seconds) + 1), 1_000_000_000 - nanoseconds);
    format!("-{whole}.{fraction:09}")
}

fn block(path: &[u8], link: &[u8], kind: u8, numbers: [u64; 3], size: u64, mtime: u64) -> [u8; BLOCK] {
    let mut block = [0u8; BLOCK];
    let mut put = |at: usize, text: &[u8]| {
        block.iter_mut().skip(at).zip(text).for_each(|(to, from)| *to = *from);
    };
    // What does not fit is in a record, which goes before.
    put(0, &path[..path.len().min(MAX_NAME_BYTES)]);
    for (at, number) in [100, 108, 116].into_iter().zip(numbers) {
        put(at, format!("{:07o}\0", number.min(MAX_SHORT)).as_bytes());
    }
    put(124, format!("{:011o}\0", size.min(MAX_LONG)).as_bytes());
    put(136, format!("{:011o}\0", mtime.min(MAX_LONG)).as_bytes());
    // The sum is made over blanks in its own place.
    put(148, b"        ");
    put(156, &[kind]);
    put(157, &link[..link.len().min(MAX_NAME_BYTES)]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    let text = format!("{sum:06o}\0 ");
    block.iter_mut().skip(148).zip(text.as_bytes()).for_each(|(to, from)| *to = *from);
    block
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{END, header, padding};
    use crate::{Entry, Kind, TarReader};

    proptest! {
        #[test]
        fn what_is_written_is_read(
            name in "[a-z/]{1,300}[a-z]", link in "[a-z/]{0,300}",
            mode in 0u32..0o10000, uid: u32, gid: u32, seconds in -5_000_000_000i64..50_000_000_000, nanoseconds in 0u32..1_000_000_000,
            value: Vec<u8>, is_link: bool,
        ) {
            let data = b"data";
            let entry = Entry {
                kind: if is_link { Kind::Symlink } else { Kind::File },
                path: name.into_bytes(),
                link: if is_link { link.into_bytes() } else { Vec::new() },
                mode,
                uid: uid.into(),
                gid: gid.into(),
                mtime: (seconds, nanoseconds),
                size: if is_link { 0 } else { data.len() as u64 },
                segments: None,
                xattrs: vec![(b"user.key".to_vec(), value)],
            };
            let mut archive = header(&entry);
            if !is_link {
                archive.extend_from_slice(data);
                archive.resize(archive.len() + padding(data.len() as u64), 0);
            }
            archive.extend_from_slice(&END);
            let mut reader = TarReader::new(archive.as_slice());
            let read = reader.next_entry().unwrap().unwrap();
            prop_assert_eq!((read.kind, &read.path, &read.link), (entry.kind, &entry.path, &entry.link));
            prop_assert_eq!((read.mode, read.uid, read.gid), (entry.mode, entry.uid, entry.gid));
            prop_assert_eq!((read.mtime, read.size), (entry.mtime, entry.size));
            prop_assert_eq!(&read.xattrs, &entry.xattrs);
            prop_assert!(reader.next_entry().unwrap().is_none());
        }
    }
}
