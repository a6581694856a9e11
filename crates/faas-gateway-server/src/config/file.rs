//! The TOML file.

use std::path::Path;

use super::environment::names;
use super::{ConfigError, Options};

/// Far more than all options take.
const MAX_BYTES: u64 = 1 << 20;

/// Reads the options of a file.
pub(super) fn read(path: &Path) -> Result<Options, ConfigError> {
    let bad = |reason: String| ConfigError::File { path: path.to_owned(), reason };
    let length = std::fs::metadata(path).map_err(|error| bad(error.to_string()))?.len();
    if length > MAX_BYTES {
        return Err(bad(format!("it has {length} bytes; a configuration has at most {MAX_BYTES}")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    parse(&text).map_err(bad)
}

/// Parses the file's text.
pub(super) fn parse(text: &str) -> Result<Options, String> {
    let in_line = |error: toml::de::Error| {
        let message = error.message().replace('\n', " ");
        match error.span() {
            Some(span) => {
                let before = text.get(..span.start).unwrap_or_default();
                format!("line {}: {message}", 1 + before.matches('\n').count())
            }
            None => message,
        }
    };
    let table: toml::Table = toml::from_str(text).map_err(in_line)?;
    let known: Vec<String> =
        names().into_iter().filter(|name| name != "config").map(|name| name.replace('-', "_")).collect();
    for key in table.keys() {
        if !known.contains(key) {
            return Err(format!("{key:?} is no option{}", nearest(key, known.iter().cloned())));
        }
    }
    toml::from_str(text).map_err(in_line)
}

/// `; did you mean ...` where one of `known` is near to `name`, or nothing.
pub(super) fn nearest(name: &str, known: impl Iterator<Item = String>) -> String {
    known
        .map(|known| (strsim::jaro_winkler(name, &known), known))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| format!("; did you mean {known}?"))
        .unwrap_or_default()
}
