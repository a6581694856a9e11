//! The header, and what makes two requests the same.

use axum::http::{HeaderMap, HeaderName, Uri};
use faas_types::FieldError;
use sha2::{Digest as _, Sha256};

use crate::error::ApiError;

/// The header.
pub(super) const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest key in bytes.
const MAX_BYTES: usize = 255;

/// The key of a request, where it has one.
pub(super) fn of(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut given = headers.get_all(HEADER).iter();
    let Some(value) = given.next() else { return Ok(None) };
    let bytes = value.as_bytes();
    let visible = bytes.iter().all(u8::is_ascii_graphic);
    match (given.next(), value.to_str()) {
        (None, Ok(key)) if visible && (1..=MAX_BYTES).contains(&bytes.len()) => Ok(Some(key.to_owned())),
        _ => {
            let message = format!(
                "the header idempotency-key must be one value of 1 to {MAX_BYTES} visible ASCII characters"
            );
            Err(ApiError::invalid(vec![FieldError { pointer: String::new(), message }]))
        }
    }
}

/// The digest of a request's path, query and body as it came.
pub(super) fn fingerprint(uri: &Uri, body: &[u8]) -> Vec<u8> {
    let mut digest = Sha256::new();
    digest.update(uri.path_and_query().map_or("", |given| given.as_str()));
    // In no path.
    digest.update([0]);
    digest.update(body);
    digest.finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, Uri};

    use super::{HEADER, fingerprint, of};

    fn key(values: &[&[u8]]) -> Result<Option<String>, u16> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
        }
        let answered = of(&headers);
        answered.map_err(|error| error.problem(&faas_types::RequestId("r".to_owned())).status)
    }

    #[test]
    fn a_key_is_up_to_255_visible_characters() {
        assert_eq!(key(&[]), Ok(None));
        assert_eq!(key(&[b"8e03978e-40d5"]), Ok(Some("8e03978e-40d5".to_owned())));
        assert_eq!(key(&[&[b'~'; 255]]), Ok(Some("~".repeat(255))));
        for wrong in [&b""[..], b"a b", b"a\tb", b"\xc3\xa4", &[b'k'; 256]] {
            assert_eq!(key(&[wrong]), Err(422), "{wrong:?}");
        }
        assert_eq!(key(&[b"a", b"a"]), Err(422));
    }

    #[test]
    fn requests_are_the_same_by_path_query_and_body() {
        let of = |uri: &'static str, body: &[u8]| fingerprint(&Uri::from_static(uri), body);
        assert_eq!(of("/a?b", b"c"), of("/a?b", b"c"));
        for (uri, body) in [("/a?bc", &b""[..]), ("/a", b"c"), ("/a?b", b"d"), ("/a?b", b"c ")] {
            assert_ne!(of("/a?b", b"c"), of(uri, body));
        }
    }
}
