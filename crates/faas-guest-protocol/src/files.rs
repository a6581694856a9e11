//! What the agent's program does with files when it is started as `agent file JSON`, the JSON being a [`FileRequest`].
//!
//! It is an ordinary program of the sandbox, run as whoever it is for, so that the kernel decides what it may. To its
//! standard output it writes one line, a [`FileReply`], and then what the request says. Exit code 0: that was all of it.
//! Where a request takes content, that comes to its standard input in chunks: a length (32 bits, little-endian), then so
//! many bytes; the length 0 is the end. Standard input that ends without it was cut off.

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// The argument that makes the agent's program one for files.
pub const FILE_VERB: &str = "file";

/// The exit code of an older agent's program, which does not know the argument (`EX_USAGE` of sysexits(3)).
pub const NOT_KNOWN: i32 = 64;

/// The most bytes of one chunk of content.
pub const MAX_CHUNK_BYTES: usize = 64 << 10;

/// A path or a name as the kernel has it: any bytes. In JSON it is a string, or an array of bytes where it is not UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RawPath(pub Vec<u8>);

impl Serialize for RawPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_seq(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for RawPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PathVisitor;
        impl<'de> Visitor<'de> for PathVisitor {
            type Value = RawPath;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or bytes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RawPath, E> {
                Ok(RawPath(text.as_bytes().to_vec()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RawPath, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(RawPath(bytes))
            }
        }
        deserializer.deserialize_any(PathVisitor)
    }
}

/// Which bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileRange {
    /// From the first on, up to and with the last where there is one.
    From {
        /// The first byte.
        first: u64,
        /// The last byte.
        last: Option<u64>,
    },
    /// So many at its end.
    Last(u64),
}

/// What is to be done. Paths are absolute, or relative to the program's working directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileRequest {
    /// What is there: a [`FileStat`], of a symbolic link itself.
    Stat {
        /// Where.
        path: RawPath,
    },
    /// The content of a regular file: a [`FileContent`], then its bytes.
    Read {
        /// Where.
        path: RawPath,
        /// All of it where there is none.
        range: Option<FileRange>,
        /// Whether the bytes are left out.
        head: bool,
    },
    /// A page of a directory, by name: a [`FileListing`], then that many lines of [`FileStat`].
    List {
        /// Where.
        path: RawPath,
        /// The last name of the page before.
        after: Option<RawPath>,
        /// The most entries.
        limit: usize,
    },
    /// A directory or a file as a tar archive: null, then the archive.
    Pack {
        /// Where.
        path: RawPath,
    },
    /// What happens to a file or in a directory: null, then lines of [`FileChange`] without end.
    Watch {
        /// Where.
        path: RawPath,
        /// Whether in the directories below too.
        recursive: bool,
    },
    /// A regular file from content, whole or not at all: a [`FilePut`].
    Write {
        /// Where.
        path: RawPath,
        /// Its permission bits; where there are none those it has, or 0644.
        mode: Option<u32>,
        /// `user`, `user:group` or numbers of them; where there is none that it has, or the program's.
        owner: Option<String>,
    },
    /// A directory filled from a tar archive: an [`Unpacked`].
    Unpack {
        /// Where.
        path: RawPath,
    },
    /// A directory with those above it: a [`FilePut`].
    MakeDir {
        /// Where.
        path: RawPath,
        /// Its permission bits where it is made, or 0755.
        mode: Option<u32>,
    },
    /// Another name: a [`FileStat`].
    Move {
        /// From where.
        path: RawPath,
        /// To where.
        to: RawPath,
    },
    /// Nothing: null.
    Remove {
        /// Where.
        path: RawPath,
        /// Whether with all that is in it.
        recursive: bool,
    },
}

impl FileRequest {
    /// The path that it is about.
    #[must_use]
    pub const fn path(&self) -> &RawPath {
        match self {
            Self::Stat { path }
            | Self::Read { path, .. }
            | Self::List { path, .. }
            | Self::Pack { path }
            | Self::Watch { path, .. }
            | Self::Write { path, .. }
            | Self::Unpack { path }
            | Self::MakeDir { path, .. }
            | Self::Move { path, .. }
            | Self::Remove { path, .. } => path,
        }
    }

    /// Whether it takes content.
    #[must_use]
    pub const fn takes_content(&self) -> bool {
        matches!(self, Self::Write { .. } | Self::Unpack { .. })
    }
}

/// The first line of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileReply<T> {
    /// It is done, or begins to be.
    Ok(T),
    /// It is not.
    Error(FileFailure),
}

/// Why something was not done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFailure {
    /// What the kernel said; `EINVAL` and the like where it was not asked.
    pub errno: i32,
    /// The same for a person, with the path.
    pub message: String,
    /// With `ERANGE`: the size of the file, in which the range is not.
    #[serde(default)]
    pub size: Option<u64>,
}

/// What an entry of a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A block device.
    BlockDevice,
    /// A character device.
    CharDevice,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    /// Absolute.
    pub path: RawPath,
    /// The last part of it.
    pub name: RawPath,
    /// What it is.
    pub kind: FileKind,
    /// Its length in bytes.
    pub size: u64,
    /// Its permission bits, set-id and sticky ones among them.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its owner's name in `/etc/passwd`.
    pub owner: Option<String>,
    /// Its group's name in `/etc/group`.
    pub group: Option<String>,
    /// When its content last changed: seconds since 1970.
    pub modified_s: i64,
    /// Nanoseconds above them.
    pub modified_ns: u32,
    /// What a symbolic link says.
    pub target: Option<RawPath>,
}

/// The content of a file, which follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileContent {
    /// How long the file is; none where the kernel does not know that before its end.
    pub size: Option<u64>,
    /// Where in it the bytes begin that follow.
    pub start: u64,
    /// How many follow; none: up to its end.
    pub length: Option<u64>,
    /// When it last changed: seconds since 1970.
    pub modified_s: i64,
}

/// A page of a directory, which follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileListing {
    /// How many entries follow.
    pub entries: usize,
    /// Whether there are more after them.
    pub more: bool,
}

/// A file or directory that is there now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePut {
    /// It.
    pub stat: FileStat,
    /// Whether it was not there before.
    pub created: bool,
}

/// What came out of an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpacked {
    /// How many entries.
    pub files: u64,
    /// How many bytes of content.
    pub bytes: u64,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is there now.
    Created,
    /// Its content or what is known of it is another.
    Modified,
    /// It is not there any more.
    Deleted,
    /// It has another name.
    Moved,
    /// More has happened than could be told.
    Overflow,
}

/// Something that has happened to a watched file or in a watched directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    /// What.
    pub change: ChangeKind,
    /// Where, absolute; empty for [`ChangeKind::Overflow`].
    pub path: RawPath,
    /// With [`ChangeKind::Moved`]: where it was.
    pub from: Option<RawPath>,
    /// What it is, where that is known.
    pub kind: Option<FileKind>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{FileReply, FileRequest, RawPath, Unpacked};

    #[test]
    fn a_path_is_text_where_it_can_be() {
        let json = |bytes: &[u8]| serde_json::to_string(&RawPath(bytes.to_vec())).unwrap();
        assert_eq!(json("/ä\n".as_bytes()), "\"/ä\\n\"");
        assert_eq!(json(b"a\xff"), "[97,255]");
    }

    #[test]
    fn an_answer_is_one_of_two() {
        let ok: FileReply<Unpacked> = serde_json::from_str(r#"{"ok":{"files":1,"bytes":2}}"#).unwrap();
        assert_eq!(ok, FileReply::Ok(Unpacked { files: 1, bytes: 2 }));
        let failed: FileReply<()> = serde_json::from_str(r#"{"error":{"errno":2,"message":"x"}}"#).unwrap();
        assert!(matches!(failed, FileReply::Error(failure) if failure.errno == 2));
        assert_eq!(serde_json::to_string(&FileReply::Ok(())).unwrap(), r#"{"ok":null}"#);
    }

    proptest! {
        #[test]
        fn every_path_comes_back(bytes: Vec<u8>) {
            let request = FileRequest::Stat { path: RawPath(bytes) };
            let json = serde_json::to_string(&request).unwrap();
            prop_assert!(!json.contains('\n'));
            prop_assert_eq!(serde_json::from_str::<FileRequest>(&json).unwrap(), request);
        }
    }
}
