//! Names and words: image, working directory, user, labels.

use std::collections::BTreeMap;

use super::Findings;
use crate::extract::escape;

/// The longest reference to an image: a registry's name (255), a repository (255), a digest, and what joins them.
const MAX_IMAGE_BYTES: usize = 640;
/// The longest path: PATH_MAX of Linux, less its NUL byte.
const MAX_PATH_BYTES: usize = 4095;
/// The longest name of a user: LOGIN_NAME_MAX of Linux, less its NUL byte.
const MAX_USER_BYTES: usize = 255;
const MAX_LABELS: usize = 64;
const MAX_LABEL_BYTES: usize = 256;

pub(super) fn image(image: &str, findings: &mut Findings) {
    const POINTER: &str = "/image";
    if image.is_empty() {
        findings.add(POINTER, "must not be empty; leave it out for the default image");
    } else if image.len() > MAX_IMAGE_BYTES {
        findings.add(POINTER, format!("has {} bytes; at most {MAX_IMAGE_BYTES} are taken", image.len()));
    } else if image.chars().any(|c| c.is_control() || c.is_whitespace()) {
        findings.add(POINTER, "must not contain white space or control characters");
    } else if let Err(reason) = image_grammar(image) {
        findings.add(POINTER, reason);
    }
}

#[cfg(all(target_os = "linux", feature = "native"))]
fn image_grammar(image: &str) -> Result<(), String> {
    faas_executor::images::check_reference(image).map_err(|error| error.to_string())
}

/// The engine knows what it takes for a name.
#[cfg(not(all(target_os = "linux", feature = "native")))]
fn image_grammar(_image: &str) -> Result<(), String> {
    Ok(())
}

/// The longest name of an instance.
const MAX_INSTANCE_BYTES: usize = 64;

/// A caller's name for an instance.
pub(super) fn instance(name: &str, findings: &mut Findings) {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !begins_well || name.len() > MAX_INSTANCE_BYTES || !name.bytes().all(plain) {
        findings.add(
            "/name",
            format!(
                "must have 1 to {MAX_INSTANCE_BYTES} letters, digits, '-', '_' and '.', and begin with a letter or digit"
            ),
        );
    }
}

pub(super) fn working_dir(path: &str, findings: &mut Findings) {
    const POINTER: &str = "/working_dir";
    findings.no_nul(POINTER, path);
    if !path.starts_with('/') {
        findings.add(POINTER, "must be an absolute path");
    } else if path.len() > MAX_PATH_BYTES {
        findings.add(POINTER, format!("has {} bytes; a path has at most {MAX_PATH_BYTES}", path.len()));
    }
}

/// `name`, `uid`, `name:group` or `uid:gid`. Whether they exist is known in the sandbox.
pub(super) fn user(user: &str, findings: &mut Findings) {
    if !is_user(user) {
        findings.add(
            "/user",
            "must be a name, a uid, or one of them with ':' and a group; names have letters, digits, '_', '.' and '-'",
        );
    }
}

/// Whether that is what it can be.
pub(crate) fn is_user(user: &str) -> bool {
    let (name, group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    is_account(name) && group.is_none_or(is_account)
}

fn is_account(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let is_number = !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
    if is_number {
        // The last of 32 bits means "no change" to the kernel (setresuid(2)).
        return name.parse::<u32>().is_ok_and(|id| id != u32::MAX);
    }
    (1..=MAX_USER_BYTES).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('-')
}

pub(super) fn labels(labels: &BTreeMap<String, String>, findings: &mut Findings) {
    if labels.len() > MAX_LABELS {
        findings.add("/labels", format!("has {} entries; at most {MAX_LABELS} are taken", labels.len()));
        return;
    }
    for (name, value) in labels {
        let pointer = || format!("/labels/{}", escape(name));
        if name.is_empty() {
            findings.add(pointer(), "a label needs a name");
        }
        if name.len() > MAX_LABEL_BYTES || value.len() > MAX_LABEL_BYTES {
            findings.add(pointer(), format!("name and value have at most {MAX_LABEL_BYTES} bytes each"));
        }
        if name.chars().chain(value.chars()).any(char::is_control) {
            findings.add(pointer(), "must not contain control characters");
        }
    }
}
