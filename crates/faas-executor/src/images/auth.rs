//! How a registry says which credentials it wants (RFC 9110, section 11.6.1; the distribution project's "Token
//! Authentication").

/// What a registry asks for in `WWW-Authenticate` (RFC 9110, section 11.6.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A user's name and password.
    Basic,
    /// A token from somewhere else.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// The longest header that is looked at.
const MAX_CHALLENGE_BYTES: usize = 4096;

/// Reads one header. Of several challenges in it the first that is known counts.
pub(super) fn challenge(header: &str) -> Option<Challenge> {
    if header.len() > MAX_CHALLENGE_BYTES {
        return None;
    }
    let (scheme, parameters) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (None, None, None);
    let mut rest = parameters.trim_start();
    while !rest.is_empty() {
        let (name, value) = rest.split_once('=')?;
        let value = value.trim_start();
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = value.find(',').unwrap_or(value.len());
                (value[..end].trim_end().to_owned(), &value[end..])
            }
        };
        match name.trim().to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value),
            "service" => service = Some(value),
            "scope" => scope = Some(value),
            _ => {}
        }
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    Some(Challenge::Bearer { realm: realm?, service, scope })
}

/// The text up to the closing quote, and what is behind it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            char => value.push(char),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Challenge, challenge};

    #[test]
    fn challenges_are_read() {
        assert_eq!(challenge("Basic realm=\"x\""), Some(Challenge::Basic));
        let bearer = challenge(
            r#"Bearer realm="https://a.example/token",service="s, \"t\"",scope="repository:a/b:pull,push" , x=y"#,
        );
        assert_eq!(
            bearer,
            Some(Challenge::Bearer {
                realm: "https://a.example/token".to_owned(),
                service: Some("s, \"t\"".to_owned()),
                scope: Some("repository:a/b:pull,push".to_owned()),
            })
        );
        for wrong in ["", "Bearer", "Bearer service=\"x\"", "Bearer realm=\"x", "Digest realm=\"x\""] {
            assert_eq!(challenge(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(text in "(Bearer )?[ -~é]{0,80}") {
            drop(challenge(&text));
        }
    }
}
