//! How often the kernel has killed for want of memory, as far as it can be seen from inside: in a container, whose own
//! cgroup an engine mounts. The gateway asks for it where it cannot see that cgroup from outside.

use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;

/// Where an engine mounts the container's own memory cgroup, with v2 and with v1.
const FILES: [&str; 2] = ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"];

/// Longer than either file can be.
const MAX_BYTES: u64 = 4096;

/// How many processes have been killed since the sandbox was made. None where that cannot be seen.
pub(crate) fn kills() -> Option<u64> {
    FILES.iter().find_map(|path| {
        // Not blocking: there may be something else in an image without these.
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
        let mut text = String::new();
        file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
        parse(&text)
    })
}

/// The number in the line `oom_kill N`, which both files have.
fn parse(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn both_files_are_read() {
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), Some(3));
        assert_eq!(parse("low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\noom_group_kill 0\n"), Some(1));
        assert_eq!(parse("oom_kill_disable 0\n"), None);
    }
}
