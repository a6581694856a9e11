//! The guest agent as an archive, for containers that it is copied into (tar(5), ustar).

use super::create::AGENT_DIR;
use crate::agent_binary::agent_binary;

const BLOCK: usize = 512;

/// An archive for the root directory of a container: `.faas` and in it the agent, for root to change and for all to
/// execute.
pub(super) fn archive() -> Vec<u8> {
    let dir = AGENT_DIR.trim_start_matches('/');
    let agent = agent_binary();
    let mut archive = Vec::with_capacity(agent.len() + 8 * BLOCK);
    archive.extend_from_slice(&header(&format!("{dir}/"), 0o755, 0, b'5'));
    archive.extend_from_slice(&header(&format!("{dir}/agent"), 0o555, agent.len(), b'0'));
    archive.extend_from_slice(agent);
    archive.resize(archive.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    archive
}

/// Names here are short and sizes small, so that every field has room.
fn header(name: &str, mode: u32, size: usize, kind: u8) -> [u8; BLOCK] {
    let mut header = [0u8; BLOCK];
    let mut put = |at: usize, text: &[u8]| {
        header.iter_mut().skip(at).zip(text).for_each(|(to, from)| *to = *from);
    };
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}\0").as_bytes());
    // Owner and group: root.
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    // The sum is made over blanks in its own place.
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    let text = format!("{sum:06o}\0 ");
    header.iter_mut().skip(148).zip(text.as_bytes()).for_each(|(to, from)| *to = *from);
    header
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::archive;

    #[test]
    fn tar_reads_the_archive() {
        let mut tar = Command::new("tar")
            .args(["--list", "--verbose", "--numeric-owner", "--file=-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        tar.stdin.take().unwrap().write_all(&archive()).unwrap();
        let output = tar.wait_with_output().unwrap();
        assert!(output.status.success());
        let listed = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<_> = listed.lines().collect();
        assert!(lines[0].starts_with("drwxr-xr-x 0/0") && lines[0].ends_with(".faas/"), "{listed}");
        assert!(lines[1].starts_with("-r-xr-xr-x 0/0") && lines[1].ends_with(".faas/agent"), "{listed}");
        assert_eq!(lines.len(), 2);
    }
}
