//! `/api/v1/instances/{id}/files`: what is told of files.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Problem;

/// What an entry of a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileType {
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileInfo {
    /// Its path, absolute. Bytes that are not UTF-8 are replaced.
    pub path: String,
    /// The same in base64, exactly, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// The last part of the path.
    pub name: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: FileType,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// Its permission bits in octal, four digits at least: `0644`.
    pub mode: String,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its owner's name in the `/etc/passwd` of the instance, or null.
    pub owner: Option<String>,
    /// Its group's name in the `/etc/group` of the instance, or null.
    pub group: Option<String>,
    /// When its content last changed (RFC 3339).
    pub modified_at: String,
    /// What a symbolic link says, or null.
    pub target: Option<String>,
}

/// What came out of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unpacked {
    /// How many entries, directories and links among them.
    pub files: u64,
    /// How many bytes of content.
    pub bytes: u64,
}

/// The answer to a look at files: an entry, or a page of entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum FileLook {
    /// With `stat`.
    Entry(FileInfo),
    /// With `list`, by name.
    Entries(Vec<FileInfo>),
}

/// The answer to what was put: the file, or what came out of the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum FilePlaced {
    /// The file.
    File(FileInfo),
    /// With `tar`.
    Archive(Unpacked),
}

/// What has happened to a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileChange {
    /// Its path, absolute. Bytes that are not UTF-8 are replaced.
    pub path: String,
    /// The same in base64, exactly, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// With `moved`: the path that it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The same in base64, exactly, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_base64: Option<String>,
    /// What it is, or null where nobody can say any more.
    #[serde(rename = "type")]
    pub kind: Option<FileType>,
}

/// One event of a watch.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum FileEvent {
    /// What happens from here on is told. The first event.
    Ready {},
    /// It is there now.
    Created(FileChange),
    /// Its content, or what is known of it, is another.
    Modified(FileChange),
    /// It is not there any more.
    Deleted(FileChange),
    /// It has another name.
    Moved(FileChange),
    /// More has happened than could be told: look again.
    Overflow {},
    /// The last event.
    Error(Problem),
}
