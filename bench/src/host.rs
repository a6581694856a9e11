//! Facts about the machine, kept with every result: a figure without them says little.

use std::collections::BTreeMap;

use crate::peer::first_line;

/// Names and values.
pub(crate) fn facts() -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    let mut add = |name: &str, value: Result<String, String>| {
        facts.insert(name.to_owned(), value.unwrap_or_else(|reason| format!("not here: {reason}")));
    };
    add("kernel", first_line("uname", &["-sr"]));
    add("architecture", first_line("uname", &["-m"]));
    add("cpu", line_of("/proc/cpuinfo", "model name"));
    add("memory", line_of("/proc/meminfo", "MemTotal"));
    add("cores", std::thread::available_parallelism().map(|n| n.to_string()).map_err(|e| e.to_string()));
    add("load_before", file("/proc/loadavg"));
    add("commit", first_line("git", &["describe", "--always", "--dirty", "--abbrev=12"]));
    add("bwrap", first_line("bwrap", &["--version"]));
    add("runc", first_line("runc", &["--version"]));
    add("docker", first_line("docker", &["version", "--format", "{{.Server.Version}}"]));
    add("skopeo", first_line("skopeo", &["--version"]));
    add("umoci", first_line("umoci", &["--version"]));
    add("python3", first_line("/usr/bin/python3", &["--version"]));
    facts
}

fn file(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .map_err(|error| format!("{path}: {error}"))
}

fn line_of(path: &str, name: &str) -> Result<String, String> {
    let text = file(path)?;
    let line = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
    line.map(|(_, value)| value.trim().to_owned()).ok_or_else(|| format!("{path} has no {name}"))
}
