//! Without authentication, only requests that were addressed to loopback are served: a web page in somebody's browser
//! reaches localhost too, and a name of its own can be made to resolve there (DNS rebinding), but not to say `localhost`.

use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{Uri, Version, request};
use faas_types::ErrorCode;

use crate::error::ApiError;

/// Passes a request whose `Host` header, and target where that is absolute, name loopback.
///
/// # Errors
/// `forbidden` for another host; `invalid_request` where HTTP/1.1 came without one or with several (RFC 9112, 3.2).
pub(crate) fn check(head: &request::Parts) -> Result<(), ApiError> {
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => {
            let host = host.to_str().unwrap_or_default();
            if !is_loopback(host) {
                return Err(foreign(host));
            }
        }
        // HTTP/1.0 has no such header. A browser does not speak it.
        (None, _) if head.version < Version::HTTP_11 => {}
        (None, _) => return Err(ApiError::malformed("the header host is missing").closing()),
        (Some(_), Some(_)) => return Err(ApiError::malformed("there is more than one header host").closing()),
    }
    match target(&head.uri) {
        Some(target) if !is_loopback(target) => Err(foreign(target)),
        _ => Ok(()),
    }
}

fn target(uri: &Uri) -> Option<&str> {
    uri.authority().map(Authority::as_str)
}

fn foreign(host: &str) -> ApiError {
    ApiError::new(
        ErrorCode::Forbidden,
        format!(
            "the request is for host {host:?}; without authentication this server answers only requests for \
             localhost, 127.0.0.1 or [::1]"
        ),
    )
}

/// Whether a `Host` names this machine's loopback, with whatever port.
fn is_loopback(host: &str) -> bool {
    // What nearly every request says.
    if host.starts_with("127.0.0.1:") && host[10..].bytes().all(|b| b.is_ascii_digit()) {
        return true;
    }
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((ip, port)) => (ip, port.strip_prefix(':').or(port.is_empty().then_some(""))),
            None => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, Some("")),
        },
    };
    let port_is_good = port.is_some_and(|port| port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()));
    let name_is_good = if host.starts_with('[') {
        name.parse::<std::net::Ipv6Addr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
    } else {
        name.eq_ignore_ascii_case("localhost")
            || name.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
    };
    port_is_good && name_is_good
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn loopback_in_all_its_spellings() {
        for good in
            ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8080", "127.1.2.3:80", "[::1]", "[::1]:8080"]
        {
            assert!(is_loopback(good), "{good}");
        }
    }

    #[test]
    fn everything_else_is_foreign() {
        for bad in [
            "",
            "example.org",
            "example.org:8080",
            "localhost.example.org",
            "127.0.0.1.example.org",
            "127.0.0.1:8080@example.org",
            "localhost:80:80",
            "localhost:x",
            "10.0.0.1",
            "[::2]",
            "[::1",
            "[::1]x",
            "::1",
            "[127.0.0.1]",
        ] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }
}
