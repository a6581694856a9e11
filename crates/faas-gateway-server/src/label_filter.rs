//! The query parameter `label` of lists: `KEY=VALUE,KEY=VALUE`. A comma or an equals sign that is part of a label has `\`
//! before it, and so has a `\` before one of the three; any other `\` is itself.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::error::ApiError;
use crate::query;

/// The most labels that are asked for at once.
const MAX_LABELS: usize = 64;

/// The labels that are asked for by all values of the parameter; each must be there.
///
/// # Errors
/// 422 where one is no label, or where two values are asked for of one key.
pub(crate) fn parse(given: &[String]) -> Result<BTreeMap<String, String>, ApiError> {
    let mut labels = BTreeMap::new();
    for given in given {
        let mut rest = given.as_str();
        loop {
            let (key, after, divider) = word(rest, &[',', '=']);
            if divider != Some('=') {
                let message =
                    format_args!("has {key:?}, and wants KEY=VALUE, with `\\` before a `,` of a value");
                return Err(query::invalid("label", message));
            }
            let (value, after, divider) = word(after, &[',']);
            if labels.len() >= MAX_LABELS {
                return Err(query::invalid("label", format_args!("has more than {MAX_LABELS} labels")));
            }
            match labels.entry(key) {
                Entry::Vacant(place) => drop(place.insert(value)),
                Entry::Occupied(other) if *other.get() == value => {}
                Entry::Occupied(other) => {
                    let message = format_args!("asks for two values of {:?}, which nothing has", other.key());
                    return Err(query::invalid("label", message));
                }
            }
            if divider.is_none() {
                break;
            }
            rest = after;
        }
    }
    Ok(labels)
}

/// The text up to the first of the dividers, what comes after that, and which it is.
fn word<'a>(text: &'a str, dividers: &[char]) -> (String, &'a str, Option<char>) {
    let mut word = String::new();
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if dividers.contains(&character) {
            return (word, rest.as_str(), Some(character));
        }
        let follows = rest.as_str().chars().next().filter(|next| matches!(next, ',' | '=' | '\\'));
        match follows {
            Some(next) if character == '\\' => {
                word.push(next);
                rest.next();
            }
            _ => word.push(character),
        }
    }
    (word, "", None)
}

#[cfg(test)]
mod tests {
    use super::parse;

    fn labels(given: &[&str]) -> Option<Vec<(String, String)>> {
        let given: Vec<String> = given.iter().map(|&given| given.to_owned()).collect();
        parse(&given).ok().map(|labels| labels.into_iter().collect())
    }

    #[test]
    fn several_are_divided_by_commas_or_parameters() {
        let expected = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "x=y".to_owned())];
        for given in [&["a=1,b=x=y"][..], &["a=1", "b=x=y"], &["b=x=y,a=1", "a=1"]] {
            assert_eq!(labels(given).unwrap(), expected, "{given:?}");
        }
        assert_eq!(labels(&[]).unwrap(), []);
    }

    #[test]
    fn what_divides_is_part_of_a_label_behind_a_backslash() {
        for (given, key, value) in [
            (r"b=x\,y", "b", "x,y"),
            (r"b\=c=d", "b=c", "d"),
            (r"b\,c=\,", "b,c", ","),
            (r"b=x\\", "b", r"x\"),
            (r"b=x\\\,y", "b", r"x\,y"),
            (r"path=C:\dir\", "path", r"C:\dir\"),
            (r"b=\=", "b", "="),
            ("b=", "b", ""),
        ] {
            assert_eq!(labels(&[given]).unwrap(), [(key.to_owned(), value.to_owned())], "{given}");
        }
        assert_eq!(labels(&[r"b=x\\,c=d"]).unwrap().len(), 2, "the backslash has one of its own");
    }

    #[test]
    fn what_is_no_label_is_refused() {
        for given in ["", "a", "a=1,", "a=1,b", "b=x,y", r"a\=1"] {
            assert!(labels(&[given]).is_none(), "{given:?}");
        }
        assert!(labels(&["a=1", "a=2"]).is_none());
        assert!(labels(&["a=1,a=2"]).is_none());
    }
}
