//! `docs/configuration.md`, made from the options' doc comments.

use std::fmt::Write as _;

use clap::CommandFactory as _;

use super::Options;
use super::environment::{FOREIGN, variable};

/// The page's text.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(HEAD);
    let command = Options::command();
    for argument in command.get_arguments() {
        let Some(name) = argument.get_long().filter(|name| !matches!(*name, "help" | "version")) else {
            continue;
        };
        let value =
            argument.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
        let help =
            argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default();
        let values: Vec<_> = argument.get_possible_values();
        let values: Vec<_> = values.iter().map(|value| format!("`{}`", value.get_name())).collect();
        let variable = variable(name);
        // Writing to a string cannot fail.
        let _ = write!(page, "\n## {name}\n\n`--{name} {value}` | `{variable}`");
        if name != "config" {
            let _ = write!(page, " | `{}` in the file", name.replace('-', "_"));
        }
        let _ = write!(page, "\n\n{}\n", help.trim());
        if !values.is_empty() {
            let _ = write!(page, "\nOne of {}.\n", values.join(", "));
        }
    }
    page.push_str(TAIL);
    for name in FOREIGN {
        let _ = writeln!(page, "- `{name}`");
    }
    page
}

const HEAD: &str = "# Configuration

Every option can be given as an argument, as an environment variable or in a TOML file (`--config FILE`). An argument
wins over the environment, the environment over the file, the file over the default. What is unknown, in any of the
three, is an error, and so is a value that cannot be: the server says so in one line and ends with exit code 64 before
it opens a port. A variable that is set to nothing counts as not set.

```toml
listen = \"127.0.0.1:9000\"
max_concurrent = 32
default_memory_mb = 256
log_format = \"json\"
```

Exit codes:

| code | when |
|---|---|
| 0 | stopped by SIGTERM or SIGINT, requests answered or the drain timeout over; `--help`, `--version` |
| 64 | bad configuration, or the data directory or the database is another gateway's |
| 1 | it cannot start for another reason, for example because the port is taken or the database cannot be reached |
| 130, 143 | ended at once by a second SIGINT or SIGTERM |

The log goes to standard error. `RUST_LOG` filters it (`info` when not set; for example `warn` or
`info,faas_executor=debug`).

This page is made from the options' doc comments; a test compares.
";

const TAIL: &str = "
## Other variables

These begin with `FAAS_` too, are for the clients, the start script, the build and the tests, and are not read by the
server:

";
