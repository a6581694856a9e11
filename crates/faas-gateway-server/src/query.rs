//! A request's query parameters, and lists in pages.

use axum::extract::Query;
#[cfg(any(test, all(target_os = "linux", feature = "native")))]
use axum::http::HeaderValue;
use axum::http::{HeaderName, Uri};
use faas_types::{ErrorCode, FieldError};
use serde::de::DeserializeOwned;

use crate::error::ApiError;

/// The header that has the cursor of the next page.
pub(crate) const NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");

/// How many entries a page has where the request does not say, and at most.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

/// Reads the parameters; `T` denies unknown ones.
///
/// # Errors
/// 422 with what is wrong.
pub(crate) fn parse<T: DeserializeOwned>(uri: &Uri) -> Result<T, ApiError> {
    match Query::try_from_uri(uri) {
        Ok(Query(parameters)) => Ok(parameters),
        Err(error) => {
            let message = error.body_text();
            let message = message.strip_prefix("Failed to deserialize query string: ").unwrap_or(&message);
            let message = format!("in the query, {message}");
            Err(ApiError::invalid(vec![FieldError { pointer: String::new(), message }]))
        }
    }
}

/// The same, where the parameter `name` may come several times: the others, and all values of that one.
///
/// # Errors
/// 422 with what is wrong.
pub(crate) fn parse_with<T: DeserializeOwned>(uri: &Uri, name: &str) -> Result<(T, Vec<String>), ApiError> {
    let query = uri.query().unwrap_or_default();
    let pairs: Vec<(String, String)> = parse(uri)?;
    // A pair for each piece that has something in it (URL living standard, "application/x-www-form-urlencoded").
    let pieces = query.split('&').filter(|piece| !piece.is_empty());
    let (mut values, mut others) = (Vec::new(), Vec::new());
    for ((key, value), piece) in pairs.into_iter().zip(pieces) {
        if key == name { values.push(value) } else { others.push(piece) }
    }
    let others =
        Uri::try_from(format!("/?{}", others.join("&"))).map_err(|error| ApiError::internal(&error))?;
    Ok((parse(&others)?, values))
}

/// Refuses parameters where a route has none.
///
/// # Errors
/// 422.
pub(crate) fn none(uri: &Uri) -> Result<(), ApiError> {
    if uri.query().is_some_and(|query| !query.is_empty()) {
        let message = "this route has no query parameters; everything goes into the body".to_owned();
        return Err(ApiError::invalid(vec![FieldError { pointer: String::new(), message }]));
    }
    Ok(())
}

/// One parameter is not valid.
pub(crate) fn invalid(parameter: &str, message: impl std::fmt::Display) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, format!("the query parameter {parameter} {message}"))
}

/// Checks `limit`.
pub(crate) fn limit(given: Option<usize>) -> Result<usize, ApiError> {
    match given.unwrap_or(PAGE) {
        limit @ 1..=MAX_PAGE => Ok(limit),
        limit => Err(invalid("limit", format_args!("is {limit}, and must be 1 to {MAX_PAGE}"))),
    }
}

/// A page of a list that is sorted by a key, and the header with the cursor of the next one where there is one. A cursor
/// is the key of a page's last entry, so that an entry which comes or goes meanwhile moves nothing.
#[cfg(any(test, all(target_os = "linux", feature = "native")))]
pub(crate) fn page<T, K: Ord>(
    sorted: Vec<T>,
    key: impl Fn(&T) -> K,
    after: Option<&K>,
    limit: usize,
    cursor: impl Fn(&K) -> String,
) -> (Vec<T>, Option<(HeaderName, HeaderValue)>) {
    let mut rest = sorted.into_iter().skip_while(|entry| after.is_some_and(|after| key(entry) <= *after));
    let page: Vec<T> = rest.by_ref().take(limit).collect();
    let next = if rest.next().is_some() { page.last().map(|last| cursor(&key(last))) } else { None };
    // A cursor is made of letters and digits.
    (page, next.and_then(|cursor| Some((NEXT_CURSOR, HeaderValue::try_from(cursor).ok()?))))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::{limit, page, parse, parse_with};

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Parameters {
        limit: Option<usize>,
    }

    #[test]
    fn what_is_wrong_with_a_query_is_said() {
        let parsed = |query: &str| parse::<Parameters>(&query.parse().unwrap());
        assert_eq!(parsed("/x?limit=7").unwrap().limit, Some(7));
        assert_eq!(parsed("/x").unwrap().limit, None);
        for wrong in ["/x?limt=7", "/x?limit=many"] {
            let problem = parsed(wrong).unwrap_err().problem(&faas_types::RequestId("r".to_owned()));
            assert_eq!(problem.status, 422, "{wrong}");
            assert!(problem.detail.contains("lim"), "{}", problem.detail);
        }
        assert!(limit(Some(0)).is_err() && limit(Some(1001)).is_err());
    }

    #[test]
    fn one_parameter_may_come_several_times() {
        let parsed = |query: &str| parse_with::<Parameters>(&query.parse().unwrap(), "l");
        let (others, values) = parsed("/x?l=a%2Cb&limit=7&&l=%6C+1&%6c=&l").unwrap();
        assert_eq!(
            (others.limit, values),
            (Some(7), vec!["a,b".to_owned(), "l 1".into(), "".into(), "".into()])
        );
        assert!(parsed("/x").unwrap().1.is_empty());
        for wrong in ["/x?l=1&limit=many", "/x?l=1&limit=1&limit=2", "/x?l=1&ll=2"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pages_follow_each_other_whatever_comes_and_goes() {
        let get = |list: &[u32], after: Option<u32>| {
            let (page, next) = page(list.to_vec(), |n| *n, after.as_ref(), 2, u32::to_string);
            (page, next.map(|(_, cursor)| cursor.to_str().unwrap().parse::<u32>().unwrap()))
        };
        assert_eq!(get(&[1, 2, 3], None), (vec![1, 2], Some(2)));
        assert_eq!(get(&[1, 3, 4], Some(2)), (vec![3, 4], None));
        assert_eq!(get(&[1, 2], None), (vec![1, 2], None));
        assert_eq!(get(&[], Some(2)), (vec![], None));
    }
}
