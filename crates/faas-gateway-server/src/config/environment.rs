//! `FAAS_*`: each variable is the option of that name.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::{CommandFactory as _, Parser as _};

use super::{ConfigError, Options, one_line};

const PREFIX: &str = "FAAS_";

/// Variables with our prefix that are for the clients, the start script, the build and the tests. They are often set
/// where the server is started, and mean nothing to it.
pub(super) const FOREIGN: [&str; 15] = [
    "FAAS_AB_REQUESTS",
    "FAAS_ALLOWED_SKIPS",
    "FAAS_BASE_URL",
    "FAAS_CACHE_DIR",
    "FAAS_CONFORMANCE_EXECUTIONS",
    "FAAS_FAIL_ON_SKIP",
    "FAAS_FUZZ_SECONDS",
    "FAAS_GATEWAY_BIN",
    "FAAS_GUEST_AGENT",
    "FAAS_SERVER",
    "FAAS_SKIP_LOG",
    "FAAS_SOAK_SECONDS",
    "FAAS_TEST_DOCKER_HOST",
    "FAAS_TEST_POSTGRES_URL",
    "FAAS_UPDATE",
];

/// The options in the environment. A variable that is set to nothing counts as not set.
pub(super) fn read(environment: &BTreeMap<OsString, OsString>) -> Result<Options, ConfigError> {
    let mut options = Options::default();
    for (name, value) in environment {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        if FOREIGN.contains(&name) || value.is_empty() {
            continue;
        }
        let bad = |reason| ConfigError::Environment { name: name.to_owned(), reason };
        let known = names();
        let Some(option) = known.iter().find(|option| variable(option) == name) else {
            let hint = super::file::nearest(name, known.iter().map(|option| variable(option)));
            return Err(bad(format!("no such option{hint} (--help lists the options)")));
        };
        let value = value.to_str().ok_or_else(|| bad("its value is not UTF-8".to_owned()))?;
        let parsed = Options::try_parse_from(["faas-gateway-server", &format!("--{option}={value}")])
            .map_err(|error| bad(one_line(&error)))?;
        options = options.or(parsed);
    }
    Ok(options)
}

/// The options by their long names.
pub(super) fn names() -> Vec<String> {
    let command = Options::command();
    command.get_arguments().filter_map(|argument| argument.get_long().map(str::to_owned)).collect()
}

/// The variable of an option.
pub(super) fn variable(option: &str) -> String {
    format!("{PREFIX}{}", option.replace('-', "_").to_uppercase())
}
