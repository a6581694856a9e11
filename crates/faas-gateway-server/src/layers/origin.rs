//! Without authentication, no web page but the server's own is served. A page of another origin can make a browser send a
//! `POST` of a form or open a WebSocket to localhost, addressed as it should be; but the browser then says whose page it is
//! (the Fetch standard, "Origin header"), and no page can change that.

use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::{Authority, Scheme};
use axum::http::{HeaderValue, Uri, request};
use faas_types::ErrorCode;

use crate::error::ApiError;

/// Passes a request without an `Origin` header, as programs that are no browsers send it, and one whose origin is the host
/// that it was sent to.
///
/// # Errors
/// `forbidden` for any other origin, `null` among them.
pub(crate) fn check(head: &request::Parts) -> Result<(), ApiError> {
    let host = head.headers.get(HOST).and_then(host);
    match head.headers.get_all(ORIGIN).iter().find(|given| host.is_none() || origin(given) != host) {
        None => Ok(()),
        Some(foreign) => Err(ApiError::new(
            ErrorCode::Forbidden,
            format!(
                "the request comes from a web page of {:?}; without authentication this server answers only pages of \
                 its own, whose origin is the host that the request is for, and programs that send no header origin",
                String::from_utf8_lossy(foreign.as_bytes()),
            ),
        )
        .closing()),
    }
}

/// Host and port of an origin; none where it has none.
fn origin(given: &HeaderValue) -> Option<(String, u16)> {
    let given: Uri = given.to_str().ok()?.parse().ok()?;
    let scheme = given.scheme()?;
    let usual = match scheme {
        scheme if *scheme == Scheme::HTTP => 80,
        scheme if *scheme == Scheme::HTTPS => 443,
        _ => return None,
    };
    Some(place(given.authority()?, usual))
}

/// Host and port of a `Host` header.
fn host(given: &HeaderValue) -> Option<(String, u16)> {
    let given: Authority = given.to_str().ok()?.parse().ok()?;
    Some(place(&given, 80))
}

fn place(authority: &Authority, usual: u16) -> (String, u16) {
    (authority.host().to_ascii_lowercase(), authority.port_u16().unwrap_or(usual))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::check;

    fn passes(host: Option<&str>, origins: &[&str]) -> bool {
        let request = Request::builder().uri("/");
        let request = host.into_iter().fold(request, |request, host| request.header("host", host));
        let request = origins.iter().fold(request, |request, origin| request.header("origin", *origin));
        check(&request.body(()).unwrap().into_parts().0).is_ok()
    }

    #[test]
    fn programs_and_pages_of_the_server_itself_pass() {
        assert!(passes(Some("localhost:8080"), &[]));
        assert!(passes(None, &[]), "HTTP/1.0");
        for (host, origin) in [
            ("localhost:8080", "http://localhost:8080"),
            ("LocalHost:8080", "http://localhost:8080"),
            ("127.0.0.1", "http://127.0.0.1"),
            ("127.0.0.1:80", "http://127.0.0.1"),
            ("[::1]:8080", "http://[::1]:8080"),
            ("localhost:8443", "https://localhost:8443"),
        ] {
            assert!(passes(Some(host), &[origin]), "{host} {origin}");
        }
    }

    #[test]
    fn pages_of_others_do_not() {
        for origin in [
            "null",
            "",
            "http://example.org",
            "http://example.org:8080",
            "http://localhost",
            "http://localhost:8081",
            "http://127.0.0.1:8080",
            "http://localhost.example.org:8080",
            "https://localhost",
            "file://",
            "file://localhost:8080",
            "chrome-extension://localhost:8080",
            "localhost:8080",
            "//localhost:8080",
        ] {
            assert!(!passes(Some("localhost:8080"), &[origin]), "{origin}");
        }
        assert!(!passes(Some("localhost"), &["https://localhost"]), "another port");
        assert!(!passes(None, &["http://localhost"]), "no host to be of");
        let both = ["http://localhost:8080", "http://example.org"];
        assert!(!passes(Some("localhost:8080"), &both), "one of several");
    }
}
