//! The request's id: the one that the client sent, where it is fit to be logged and sent back, else a new one.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use faas_types::RequestId;

/// The header that carries the id both ways.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken from a client.
const MAX_LEN: usize = 128;

/// The id of a request with these headers, as text and as a header.
pub(crate) fn of(headers: &HeaderMap) -> (RequestId, HeaderValue) {
    if let Some(given) = headers.get(&HEADER)
        && (1..=MAX_LEN).contains(&given.len())
        && given.as_bytes().iter().all(u8::is_ascii_graphic)
        && let Ok(text) = given.to_str()
    {
        return (RequestId(text.to_owned()), given.clone());
    }
    let mut buffer = uuid::Uuid::encode_buffer();
    let text: &str = uuid::Uuid::now_v7().simple().encode_lower(&mut buffer);
    let value = HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
    (RequestId(text.to_owned()), value)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue};

    use super::{HEADER, of};

    fn with(value: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_bytes(value).unwrap());
        let (id, header) = of(&headers);
        assert_eq!(header.to_str().unwrap(), id.as_str());
        id.0
    }

    #[test]
    fn a_fit_id_is_kept() {
        assert_eq!(with(b"a-b_c/1"), "a-b_c/1");
        assert_eq!(with(&[b'x'; 128]), "x".repeat(128));
    }

    #[test]
    fn an_unfit_or_missing_id_is_replaced() {
        for bad in [&b""[..], b"a b", b"\xff\xfe", &[b'x'; 129]] {
            assert_eq!(with(bad).len(), 32, "{bad:?}");
        }
        assert_ne!(of(&HeaderMap::new()).0, of(&HeaderMap::new()).0);
    }
}
