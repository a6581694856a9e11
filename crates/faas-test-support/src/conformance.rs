//! One suite for every backend: each case of a list becomes a test of its own, once for each backend and image.
//!
//! The cases themselves, and what starts a backend, are the caller's: this crate knows no backend.

/// Makes the tests. For each backend its `run` function, which takes the image's name and the case's, and which lists
/// of cases run on which images of it:
///
/// ```
/// mod suite {
///     // A list of cases: a macro that hands their names on.
///     macro_rules! small {
///         ($($then:tt)*) => { faas_test_support::conformance_cases! { $($then)* [one two] } };
///     }
///     fn run(image: &str, case: &str) {
///         assert!(!image.is_empty() && !case.is_empty());
///     }
///     faas_test_support::conformance_suite! {
///         native => super::super::run { small: host, alpine; }
///     }
/// }
/// ```
///
/// The first of these tests is `native::small::host::one`. Attributes before a backend, `#[cfg(..)]` for example, are
/// its module's.
#[macro_export]
macro_rules! conformance_suite {
    ($($(#[$attribute:meta])* $backend:ident => $run:path { $($list:ident: $($image:ident),+;)+ })+) => {
        $($(#[$attribute])* mod $backend { $crate::conformance_suite! { @lists $run { $($list: $($image),+;)+ } } })+
    };
    (@lists $run:path { $($list:ident: $($image:ident),+;)+ }) => {
        $(mod $list { $crate::conformance_suite! { @images $run, $list: $($image),+ } })+
    };
    (@images $run:path, $list:ident: $($image:ident),+) => {
        $(mod $image { $list! { @tests $run, $image; } })+
    };
}

/// What [`conformance_suite!`] and a table of cases make of a list's names. Called by the lists.
#[macro_export]
macro_rules! conformance_cases {
    (@tests $run:path, $image:ident; [$($case:ident)+]) => {
        $(
            #[test]
            fn $case() {
                $run(stringify!($image), stringify!($case));
            }
        )+
    };
    (@table $cases:ident; [$($case:ident)+]) => {
        &[$((stringify!($case), |subject| Box::pin($cases::$case(subject)))),+]
    };
}
