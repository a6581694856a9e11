//! Names of images: parsed, checked, and brought to one form.
//!
//! The grammar is that of the distribution project's references: `[HOST_IMAGE[:PORT]/]PATH[:TAG][@DIGEST]`. A name without a
//! host is one of Docker Hub's: `alpine` is `docker.io/library/alpine:latest`.

use std::fmt;
use std::str::FromStr;

use super::digest::Digest;
use super::error::ImageError;
use crate::registry_auth::DOCKER_HUB;
use crate::sandbox::HOST_IMAGE;

/// The longest host and path together (distribution reference grammar, `NameTotalLengthMax`).
const MAX_NAME_BYTES: usize = 255;

/// The longest text that is looked at.
const MAX_TEXT_BYTES: usize = 512;

/// A name in its one form. A digest, where there is one, says which image it is; a tag beside it is dropped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageName {
    registry: String,
    repository: String,
    version: Version,
}

/// Which image of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Version {
    /// What the registry calls so now.
    Tag(String),
    /// The manifest with this digest.
    Digest(Digest),
}

/// What a caller may ask the store for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// An image by a name.
    Name(ImageName),
    /// An image by its id, `sha256:` and 64 digits: the digest of its configuration.
    Id(Digest),
}

/// Checks that a text can name an image: `host`, a name, or an id.
///
/// # Errors
/// [`ImageError::InvalidName`] with what is wrong.
pub fn check_reference(text: &str) -> Result<(), ImageError> {
    if text == HOST_IMAGE { Ok(()) } else { Wanted::parse(text).map(drop) }
}

impl Wanted {
    pub(crate) fn parse(text: &str) -> Result<Self, ImageError> {
        match text.parse::<Digest>() {
            Ok(id) => Ok(Self::Id(id)),
            Err(_) => text.parse().map(Self::Name),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Id(id) => id.fmt(f),
        }
    }
}

impl ImageName {
    /// The host of the registry, with a port where one is given: `docker.io`, `localhost:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path of the repository: `library/alpine`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, where it is no name by digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        match &self.version {
            Version::Tag(tag) => Some(tag),
            Version::Digest(_) => None,
        }
    }

    pub(crate) fn version(&self) -> &Version {
        &self.version
    }

    /// The name of the manifest `digest` of the same repository.
    pub(crate) fn with_digest(&self, digest: Digest) -> Self {
        Self { version: Version::Digest(digest), ..self.clone() }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        match &self.version {
            Version::Tag(tag) => write!(f, ":{tag}"),
            Version::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

impl FromStr for ImageName {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let refused = |reason: &str| ImageError::InvalidName {
            name: text.chars().take(80).collect::<String>().escape_debug().to_string(),
            reason: reason.to_owned(),
        };
        if text.is_empty() || text.len() > MAX_TEXT_BYTES {
            return Err(refused("it has no characters or more than 512"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refused("it has characters other than visible ASCII ones"));
        }
        let (text, digest) = match text.split_once('@') {
            Some((text, digest)) => {
                let digest =
                    digest.parse().map_err(|_| refused("its digest is not sha256: and 64 digits"))?;
                (text, Some(digest))
            }
            None => (text, None),
        };
        // A colon after the last slash begins a tag; before it, a port.
        let (name, tag) = match text.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (text, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(refused("its tag is not one to 128 letters, digits, `_`, `.` and `-`"));
        }
        if name == HOST_IMAGE {
            return Err(refused("`host` is the machine's own image and is in no store and no registry"));
        }
        let (host, path) = match name.split_once('/') {
            Some((first, rest)) if is_host_like(first) => (first, rest),
            _ => (DOCKER_HUB, name),
        };
        if !is_host(host) {
            return Err(refused("its registry is no host name with an optional port"));
        }
        let registry = match host.to_ascii_lowercase() {
            hub if hub == "index.docker.io" => DOCKER_HUB.to_owned(),
            other => other,
        };
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(refused("a repository has no upper-case letters"));
        }
        if !path.split('/').all(is_path_component) {
            return Err(refused(
                "each part of a repository is letters and digits with single `.`, `_`, `__` or dashes between",
            ));
        }
        let repository = match path.contains('/') {
            false if registry == DOCKER_HUB => format!("library/{path}"),
            _ => path.to_owned(),
        };
        if Digest::from_hex(path).is_some() {
            return Err(refused("64 hexadecimal digits are an id; write sha256: before them"));
        }
        if registry.len() + 1 + repository.len() > MAX_NAME_BYTES {
            return Err(refused("registry and repository have more than 255 characters"));
        }
        let version = match digest {
            Some(digest) => Version::Digest(digest),
            None => Version::Tag(tag.unwrap_or("latest").to_owned()),
        };
        Ok(Self { registry, repository, version })
    }
}

/// Whether the first part of a name is a host rather than a part of a path. Elsewhere an upper-case letter makes it one
/// too; here a name has one form, in which that host would be a path of Docker Hub's.
fn is_host_like(part: &str) -> bool {
    part == "localhost" || part.contains(['.', ':'])
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            match rest.strip_prefix(':') {
                Some(port) => return is_port(port),
                None => return rest.is_empty(),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|n| n > 0)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(part: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    if !bytes.first().is_some_and(|byte| is_inner(*byte)) || !bytes.last().is_some_and(|b| is_inner(*b)) {
        return false;
    }
    let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    separators
        .filter(|separator| !separator.is_empty())
        .all(|separator| matches!(separator, "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-'))
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = text.as_bytes();
    (1..=128).contains(&bytes.len())
        && is_word(bytes[0])
        && bytes.iter().all(|byte| is_word(*byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{ImageName, Wanted};

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_brought_to_one_form() {
        for (text, form) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("user/x", "docker.io/user/x:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("index.docker.io/library/alpine", "docker.io/library/alpine:latest"),
            ("docker.io/library/host", "docker.io/library/host:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("127.0.0.1:5000/a/b-c_d__e.f:T_1", "127.0.0.1:5000/a/b-c_d__e.f:T_1"),
            ("REGISTRY.example:5000/x", "registry.example:5000/x:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            ("a/b/c", "docker.io/a/b/c:latest"),
        ] {
            assert_eq!(text.parse::<ImageName>().unwrap().to_string(), form, "{text}");
        }
        let pinned = format!("host.example:1/x:tag@{DIGEST}");
        assert_eq!(pinned.parse::<ImageName>().unwrap().to_string(), format!("host.example:1/x@{DIGEST}"));
        assert!(matches!(Wanted::parse(DIGEST), Ok(Wanted::Id(_))));
    }

    #[test]
    fn tricks_are_refused() {
        let long = "a".repeat(300);
        let hex = &DIGEST[7..];
        for text in [
            "",
            "host",
            "host:latest",
            "..",
            "../x",
            "a/../b",
            "a//b",
            "/a",
            "a/",
            "a:",
            "a:b:c",
            "a@",
            "Alpine",
            "A/a",
            "LOCALHOST_IMAGE/a",
            "docker.io/Alpine",
            "a b",
            "a\n",
            "a\0",
            "ä",
            "a:..",
            "a:-x",
            "x.y:0/a",
            "x.y:65536/a",
            "x.y:/a",
            "-x.y/a",
            "x..y/a",
            "a___b",
            "a..b",
            "a.-b",
            ".a",
            "a.",
            "_a",
            "a@sha256:12",
            "a@sha512:12",
            "a?b",
            "a#b",
            "user@x.y/a",
            "http://x.y/a",
            "[::1/a",
            "[x]/a",
            "x.y:80@b/c",
            "%2e%2e/a",
            "a\\b",
            &long,
            hex,
        ] {
            assert!(text.parse::<ImageName>().is_err(), "{text}");
        }
        assert!(format!("a:{}", "t".repeat(129)).parse::<ImageName>().is_err());
    }

    proptest! {
        #[test]
        fn the_one_form_is_its_own_and_safe_in_a_path_of_a_url(text in "[ -~]{0,40}") {
            if let Ok(name) = text.parse::<ImageName>() {
                let form = name.to_string();
                prop_assert_eq!(form.parse::<ImageName>().unwrap(), name.clone());
                let is_safe = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"/._-".contains(&b);
                prop_assert!(name.repository().bytes().all(is_safe));
                prop_assert!(!name.repository().split('/').any(|part| part.is_empty() || part == ".."));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            drop(Wanted::parse(&text));
        }
    }
}
