//! Files and secrets that are put into the sandbox before the command runs.

use std::collections::BTreeMap;

use faas_executor::InputFile;
use faas_executor::sandbox::Limits;

use super::Findings;
use crate::extract::escape;

/// The most files in one request.
const MAX_FILES: usize = 1000;
/// The longest path: PATH_MAX of Linux, less its NUL byte.
const MAX_PATH_BYTES: usize = 4095;
/// The longest name of one file or directory: NAME_MAX.
const MAX_NAME_BYTES: usize = 255;
/// Permission bits of a file that names none.
const DEFAULT_MODE: u32 = 0o644;
/// Permission bits of a secret.
const SECRET_MODE: u32 = 0o400;

pub(super) fn files(files: Vec<faas_types::InputFile>, findings: &mut Findings) -> Vec<InputFile> {
    if files.len() > MAX_FILES {
        findings.add("/files", format!("has {} entries; at most {MAX_FILES} are taken", files.len()));
        return Vec::new();
    }
    let paths: usize = files.iter().map(|file| file.path.len()).sum();
    if paths > MAX_PATHS_BYTES {
        findings.add(
            "/files",
            format!("the paths have {paths} bytes together; at most {MAX_PATHS_BYTES} are taken"),
        );
        return Vec::new();
    }
    let mut good = Vec::with_capacity(files.len());
    for (index, file) in files.into_iter().enumerate() {
        let at = format!("/files/{index}");
        path(&format!("{at}/path"), &file.path, findings);
        let mode = mode(&format!("{at}/mode"), file.mode.as_deref(), findings);
        let content = match (file.content, file.content_base64) {
            (Some(text), None) => Some(text.into_bytes()),
            (None, Some(text)) => findings.base64(&format!("{at}/content_base64"), &text),
            (Some(_), Some(_)) => {
                findings.add(&at, "has both content and content_base64; exactly one is wanted");
                None
            }
            (None, None) => {
                findings.add(&at, "has neither content nor content_base64; exactly one is wanted");
                None
            }
        };
        if let (Some(mode), Some(content)) = (mode, content) {
            good.push(InputFile { path: file.path, mode, content, secret: false });
        }
    }
    good
}

pub(super) fn path(pointer: &str, path: &str, findings: &mut Findings) {
    if !findings.no_nul(pointer, path) {
        return;
    }
    let last = path.rsplit('/').next().unwrap_or_default();
    if path.is_empty() {
        findings.add(pointer, "must not be empty");
    } else if path.len() > MAX_PATH_BYTES {
        findings.add(pointer, format!("has {} bytes; a path has at most {MAX_PATH_BYTES}", path.len()));
    } else if path.split('/').any(|name| name.len() > MAX_NAME_BYTES) {
        findings.add(pointer, format!("has a name of more than {MAX_NAME_BYTES} bytes"));
    } else if matches!(last, "" | "." | "..") {
        findings.add(pointer, "must end in the name of a file");
    }
}

fn mode(pointer: &str, mode: Option<&str>, findings: &mut Findings) -> Option<u32> {
    let Some(text) = mode else { return Some(DEFAULT_MODE) };
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if digits && mode <= 0o7777 => Some(mode),
        _ => {
            findings.add(
                pointer,
                "must be permission bits in octal, from \"0\" to \"7777\", for example \"0755\"",
            );
            None
        }
    }
}

pub(super) fn secrets(secrets: BTreeMap<String, String>, findings: &mut Findings) -> Vec<InputFile> {
    if secrets.len() > MAX_FILES {
        findings.add("/secrets", format!("has {} entries; at most {MAX_FILES} are taken", secrets.len()));
        return Vec::new();
    }
    let mut good = Vec::with_capacity(secrets.len());
    for (name, value) in secrets {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let fit = (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(plain);
        if !fit || name == "." || name == ".." {
            findings.add(
                format!("/secrets/{}", escape(&name)),
                "the name must be 1 to 255 letters, digits, '_', '.' or '-', and neither \".\" nor \"..\"",
            );
            continue;
        }
        good.push(InputFile { path: name, mode: SECRET_MODE, content: value.into_bytes(), secret: true });
    }
    good
}

/// The most bytes of paths in one request.
const MAX_PATHS_BYTES: usize = 1 << 20;

/// What is put in place must have room where it goes: on the sandbox's disk, or in its memory.
pub(super) fn fit(files: &[InputFile], limits: &Limits, findings: &mut Findings) {
    let total: u64 = files.iter().map(|file| u64::try_from(file.content.len()).unwrap_or(u64::MAX)).sum();
    let (room, name) = match limits.disk_bytes {
        Some(disk) => (disk, "disk_mb"),
        None => (limits.memory_bytes, "memory_mb"),
    };
    if total > room {
        findings.add(
            "/files",
            format!("files and secrets have {total} bytes together; {name} gives room for {room}"),
        );
    }
}
