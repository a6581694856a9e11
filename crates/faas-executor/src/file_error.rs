//! What the kernel of a sandbox says of its files, as codes of the public contract.

use faas_guest_protocol::files::FileFailure;
use faas_types::ErrorCode;

/// The longest message of a failure that is passed on.
const MAX_MESSAGE_CHARS: usize = 1024;

/// Errors of Linux, which every sandbox runs on, whatever the gateway does (errno(3)).
mod errno {
    pub(super) const EPERM: i32 = 1;
    pub(super) const ENOENT: i32 = 2;
    pub(super) const EACCES: i32 = 13;
    pub(super) const EBUSY: i32 = 16;
    pub(super) const EEXIST: i32 = 17;
    pub(super) const ETXTBSY: i32 = 26;
    pub(super) const ENOSPC: i32 = 28;
    pub(super) const EROFS: i32 = 30;
    pub(super) const ERANGE: i32 = 34;
    pub(super) const ENOTEMPTY: i32 = 39;
    pub(super) const EDQUOT: i32 = 122;
}

/// What the sandbox's kernel would not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FileError {
    errno: i32,
    message: String,
    size: Option<u64>,
}

impl FileError {
    pub(crate) fn new(failure: FileFailure) -> Self {
        let FileFailure { errno, message, size } = failure;
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let message = message.chars().take(MAX_MESSAGE_CHARS).map(plain).collect();
        Self { errno, message, size: size.filter(|_| errno == errno::ERANGE) }
    }

    /// With a range outside of a file: how long that is.
    #[must_use]
    pub const fn size(&self) -> Option<u64> {
        self.size
    }

    /// The code of the public contract.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self.errno {
            errno::ENOENT => ErrorCode::NotFound,
            errno::EACCES | errno::EPERM | errno::EROFS => ErrorCode::Forbidden,
            errno::EEXIST | errno::ENOTEMPTY | errno::ETXTBSY | errno::EBUSY => ErrorCode::Conflict,
            errno::ENOSPC | errno::EDQUOT => ErrorCode::InsufficientStorage,
            errno::ERANGE if self.size.is_some() => ErrorCode::RangeNotSatisfiable,
            _ => ErrorCode::InvalidRequest,
        }
    }
}

#[cfg(test)]
mod tests {
    use faas_guest_protocol::files::FileFailure;
    use faas_types::ErrorCode;

    use super::FileError;

    #[test]
    fn what_the_kernel_says_has_a_code() {
        let code = |errno, size| FileError::new(FileFailure { errno, message: String::new(), size }).code();
        for (errno, expected) in [
            (2, ErrorCode::NotFound),
            (1, ErrorCode::Forbidden),
            (13, ErrorCode::Forbidden),
            (30, ErrorCode::Forbidden),
            (16, ErrorCode::Conflict),
            (17, ErrorCode::Conflict),
            (26, ErrorCode::Conflict),
            (39, ErrorCode::Conflict),
            (28, ErrorCode::InsufficientStorage),
            (122, ErrorCode::InsufficientStorage),
            (20, ErrorCode::InvalidRequest),
            (21, ErrorCode::InvalidRequest),
            (34, ErrorCode::InvalidRequest),
            (-1, ErrorCode::InvalidRequest),
        ] {
            assert_eq!(code(errno, None), expected, "{errno}");
        }
        assert_eq!(code(34, Some(7)), ErrorCode::RangeNotSatisfiable);
        assert_eq!(code(2, Some(7)), ErrorCode::NotFound);
    }

    #[test]
    fn a_message_is_one_short_line() {
        let message = "x\n\u{1b}[31m".to_owned() + &"y".repeat(5000);
        let error = FileError::new(FileFailure { errno: 2, message, size: Some(1) });
        let said = error.to_string();
        assert!(said.len() <= super::MAX_MESSAGE_CHARS && !said.contains(char::is_control), "{said}");
        assert_eq!(error.size(), None);
    }
}
