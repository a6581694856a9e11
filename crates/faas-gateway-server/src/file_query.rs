//! The query parameters of files. Paths are bytes: what is behind a `%` need not be UTF-8.

use std::collections::BTreeMap;

use axum::http::Uri;
use faas_guest_protocol::files::{FileRange, RawPath};

use crate::error::ApiError;
use crate::{query, validate};

/// The longest path: PATH_MAX of Linux, less its NUL byte.
const MAX_PATH_BYTES: usize = 4095;

/// Parameters that nobody has taken yet.
#[derive(Debug)]
pub(crate) struct FileQuery(BTreeMap<String, Vec<u8>>);

/// Decodes a part of a query (URL standard, "application/x-www-form-urlencoded"). None where a `%` has no two digits
/// after it.
fn decode(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => digit(bytes.next()?)? << 4 | digit(bytes.next()?)?,
            other => other,
        });
    }
    Some(decoded)
}

impl FileQuery {
    /// Reads the parameters.
    ///
    /// # Errors
    /// 422 for one that is given twice, or cannot be decoded.
    pub(crate) fn parse(uri: &Uri) -> Result<Self, ApiError> {
        let mut parameters = BTreeMap::new();
        for part in uri.query().unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let name = decode(name).and_then(|name| String::from_utf8(name).ok());
            let name = name.ok_or_else(|| query::invalid("", "has a name that cannot be decoded"))?;
            let value = decode(value)
                .ok_or_else(|| query::invalid(&name, "has a '%' without two hexadecimal digits after it"))?;
            if parameters.insert(name.clone(), value).is_some() {
                return Err(query::invalid(&name, "is there twice"));
            }
        }
        Ok(Self(parameters))
    }

    /// A path, which has to be there.
    pub(crate) fn path(&mut self, name: &str) -> Result<RawPath, ApiError> {
        let path = self.0.remove(name).ok_or_else(|| query::invalid(name, "is missing"))?;
        if path.is_empty() {
            return Err(query::invalid(name, "is empty"));
        }
        if path.contains(&0) {
            return Err(query::invalid(name, "must not contain a NUL byte"));
        }
        if path.len() > MAX_PATH_BYTES {
            let message = format!("has {} bytes; a path has at most {MAX_PATH_BYTES}", path.len());
            return Err(query::invalid(name, message));
        }
        Ok(RawPath(path))
    }

    /// `true` or `false`; the latter where it is not there.
    pub(crate) fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        match self.0.remove(name).as_deref() {
            None | Some(b"false") => Ok(false),
            Some(b"true") => Ok(true),
            Some(_) => Err(query::invalid(name, "must be true or false")),
        }
    }

    /// Text.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        let text = self.0.remove(name).map(String::from_utf8).transpose();
        text.map_err(|_| query::invalid(name, "is not UTF-8"))
    }

    /// Permission bits, in octal.
    pub(crate) fn mode(&mut self) -> Result<Option<u32>, ApiError> {
        let Some(text) = self.text("mode")? else { return Ok(None) };
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match u32::from_str_radix(&text, 8) {
            Ok(mode @ 0..=0o7777) if digits => Ok(Some(mode)),
            _ => Err(query::invalid("mode", "must be octal, 0 to 7777")),
        }
    }

    /// A user with or without a group.
    pub(crate) fn user(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        let user = self.text(name)?;
        if user.as_deref().is_some_and(|user| !validate::is_user(user)) {
            return Err(query::invalid(name, "must be a name, a uid, or one of them with ':' and a group"));
        }
        Ok(user)
    }

    /// How many entries a page has.
    pub(crate) fn limit(&mut self) -> Result<usize, ApiError> {
        let given = self.text("limit")?.map(|text| text.parse().unwrap_or(0));
        query::limit(given)
    }

    /// The name after which a page begins.
    pub(crate) fn cursor(&mut self) -> Result<Option<RawPath>, ApiError> {
        let Some(text) = self.text("cursor")? else { return Ok(None) };
        from_cursor(&text)
            .map(|name| Some(RawPath(name)))
            .ok_or_else(|| query::invalid("cursor", "is none that this server has given"))
    }

    /// Whether nothing is left: parameters that the request has no use for are refused.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(query::invalid(name, "is not known, or of no use here")),
        }
    }
}

/// A name in digits, as the cursor of the page after it.
pub(crate) fn to_cursor(name: &[u8]) -> String {
    name.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_cursor(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if digits.is_empty() || !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(byte).collect()
}

/// The one range of a header `range`. None where it is none, or several: all of the content is the answer then
/// (RFC 9110, 14.2).
pub(crate) fn range(header: &str) -> Option<FileRange> {
    let (unit, range) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // One that is larger than any file can be.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (first, last) {
        ("", last) => Some(FileRange::Last(number(last)?)),
        (first, "") => Some(FileRange::From { first: number(first)?, last: None }),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(FileRange::From { first, last: Some(last) })
        }
    }
}

#[cfg(test)]
mod tests {
    use faas_guest_protocol::files::{FileRange, RawPath};
    use faas_types::RequestId;

    use super::{FileQuery, from_cursor, range, to_cursor};

    fn parsed(query: &str) -> FileQuery {
        FileQuery::parse(&format!("/x?{query}").parse().unwrap()).unwrap()
    }

    #[test]
    fn a_path_is_bytes() {
        let mut query = parsed("path=/a%FF%0a+b%2B&recursive=true");
        assert_eq!(query.path("path").unwrap(), RawPath(b"/a\xff\n b+".to_vec()));
        assert!(query.flag("recursive").unwrap() && !query.flag("watch").unwrap());
        query.finish().unwrap();
    }

    #[test]
    fn what_is_wrong_is_said_by_name() {
        let long = format!("path={}", "x".repeat(5000));
        for (text, name) in [("", "path"), ("path=", "path"), ("path=a%00b", "path"), (long.as_str(), "path")]
        {
            let problem = parsed(text).path("path").unwrap_err().problem(&RequestId("r".to_owned()));
            assert_eq!(problem.status, 422);
            assert!(problem.detail.contains(name), "{}", problem.detail);
        }
        for wrong in ["path=%", "path=%4", "path=%zz", "a=1&a=1", "%ff=1"] {
            assert!(FileQuery::parse(&format!("/x?{wrong}").parse().unwrap()).is_err(), "{wrong}");
        }
        assert!(parsed("flag=yes").flag("flag").is_err());
        assert!(parsed("mode=8").mode().is_err() && parsed("mode=10000").mode().is_err());
        assert!(parsed("mode=").mode().is_err() && parsed("mode=%2b7").mode().is_err());
        assert_eq!(parsed("mode=4755").mode().unwrap(), Some(0o4755));
        assert!(parsed("user=a%20b").user("user").is_err() && parsed("user=%ff").user("user").is_err());
        assert!(parsed("limit=x").limit().is_err() && parsed("limit=0").limit().is_err());
        assert!(parsed("more=1").finish().is_err());
    }

    #[test]
    fn a_cursor_is_one_that_was_given() {
        assert_eq!(from_cursor(&to_cursor(b"a\xff")).unwrap(), b"a\xff");
        for wrong in ["", "a", "0g", "+1"] {
            assert!(from_cursor(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn one_range_of_bytes_is_taken_and_nothing_else() {
        let from = |first, last| Some(FileRange::From { first, last });
        for (header, expected) in [
            ("bytes=0-0", from(0, Some(0))),
            ("Bytes=5-", from(5, None)),
            ("bytes=-7", Some(FileRange::Last(7))),
            ("bytes=99999999999999999999-", from(u64::MAX, None)),
            ("bytes=2-1", None),
            ("bytes=0-1,3-4", None),
            ("bytes=", None),
            ("bytes=-", None),
            ("bytes=+1-2", None),
            ("lines=1-2", None),
            ("0-1", None),
        ] {
            assert_eq!(range(header), expected, "{header}");
        }
    }
}
