//! What the files of a cgroup say of its processes, as numbers. No I/O.

/// The number that a file holds alone; `max` is none.
pub(crate) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The number in the line `key N` of a flat keyed file (Documentation/admin-guide/cgroup-v2.rst, "Format").
pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The file that says how much CPU time a cgroup of v2 has had; it has it without a controller too.
pub(crate) const CPU: &str = "cpu.stat";

/// The CPU time that [`CPU`] tells, in microseconds.
pub(crate) fn cpu_us(text: &str) -> Option<u64> {
    keyed(text, "usage_usec")
}

#[cfg(test)]
mod tests {
    use super::{cpu_us, keyed, number};

    #[test]
    fn oom_kills_are_read_in_both_forms() {
        assert_eq!(keyed("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"), Some(3));
        let v2 = "low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\noom_group_kill 0\n";
        assert_eq!(keyed(v2, "oom_kill"), Some(1));
        assert_eq!(keyed("oom_kill_disable 0\n", "oom_kill"), None);
    }

    #[test]
    fn cpu_time_and_plain_numbers_are_read() {
        assert_eq!(cpu_us("usage_usec 1234\nuser_usec 1000\nsystem_usec 234\n"), Some(1234));
        assert_eq!(number("4096\n"), Some(4096));
        assert_eq!(number("max\n"), None);
    }
}
