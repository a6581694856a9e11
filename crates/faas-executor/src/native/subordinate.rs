//! Further ids for an ordinary user: what `/etc/subuid` and `/etc/subgid` give to it, and the programs that map them.
//!
//! newuidmap(1) and newgidmap(1) are set-user-ID and belong to the host (package uidmap); without them, or without a
//! range, sandboxes have one id.

use std::io;
use std::path::{Path, PathBuf};

use super::layout::{self, SubordinateRange};

/// Where the programs are looked for.
const DIRS: [&str; 3] = ["/usr/bin", "/bin", "/usr/local/bin"];

/// A range of uids and one of gids, as long as each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subordinate {
    newuidmap: PathBuf,
    newgidmap: PathBuf,
    uid: u32,
    gid: u32,
    pub(crate) first_uid: u64,
    pub(crate) first_gid: u64,
    pub(crate) count: u32,
}

impl Subordinate {
    /// What `uid` has, or why it has nothing.
    pub(crate) fn find(uid: u32, gid: u32) -> Result<Self, String> {
        let program = |name: &str| {
            let found = DIRS.into_iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists());
            found.ok_or_else(|| format!("{name} is not installed (package uidmap)"))
        };
        let (newuidmap, newgidmap) = (program("newuidmap")?, program("newgidmap")?);
        let text = |path: &str| std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let name = user_name(uid, &text("/etc/passwd").unwrap_or_default());
        let range = |path: &str| {
            let text = text(path)?;
            let own = layout::subordinate_ranges(&text).filter(|range| is_of(range, uid, name.as_deref()));
            let longest = own.max_by_key(|range| range.count).filter(|range| range.count > 0);
            longest
                .map(|range| (range.start, range.count))
                .ok_or_else(|| format!("{path} gives no ids to this user"))
        };
        let ((first_uid, uids), (first_gid, gids)) = (range("/etc/subuid")?, range("/etc/subgid")?);
        let count = u32::try_from(uids.min(gids)).unwrap_or(u32::MAX).min(layout::IDS_PER_SANDBOX);
        Ok(Self { newuidmap, newgidmap, uid, gid, first_uid, first_gid, count })
    }

    /// Maps the user itself to 0 and the range to 1 and up, in the user namespace that process `pid` has made. Blocks.
    pub(super) fn map(&self, pid: u32) -> io::Result<()> {
        for (program, own, first) in
            [(&self.newuidmap, self.uid, self.first_uid), (&self.newgidmap, self.gid, self.first_gid)]
        {
            let numbers = [u64::from(pid), 0, own.into(), 1, 1, first, self.count.into()];
            let output = std::process::Command::new(program)
                .args(numbers.map(|number| number.to_string()))
                .env_clear()
                .stdin(std::process::Stdio::null())
                .output()
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", program.display())))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(io::Error::other(format!("{}: {said}", program.display())));
            }
        }
        Ok(())
    }
}

/// The name of `uid` in the text of `/etc/passwd` (passwd(5)).
fn user_name(uid: u32, passwd: &str) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

fn is_of(range: &SubordinateRange<'_>, uid: u32, name: Option<&str>) -> bool {
    range.user.parse() == Ok(uid) || name == Some(range.user)
}

#[cfg(test)]
mod tests {
    use super::{is_of, user_name};
    use crate::native::layout::subordinate_ranges;

    #[test]
    fn a_range_is_found_by_the_users_name_and_by_its_number() {
        let name = user_name(1000, "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n");
        assert_eq!(name.as_deref(), Some("ann"));
        let of_ann: Vec<_> = subordinate_ranges("bob:1:2\nann:100000:65536\n1000:300000:10\n")
            .filter(|range| is_of(range, 1000, name.as_deref()))
            .map(|range| range.start)
            .collect();
        assert_eq!(of_ann, [100_000, 300_000]);
    }
}
