//! Whose the store's files are.

use super::error::ImageError;
use super::unpack::job::Ids;
use crate::native::layout::{STORE_IDS, STORE_IDS_COUNT, subordinate_ranges};
use crate::native::subordinate::Subordinate;

/// Whose the store's files are on the disk. It has to go with the ids that sandboxes have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnpackMode {
    /// The server is root: id N of an image is 0x6ffe0000+N, of a range of 65,536 ids that nobody else on the host
    /// has. Sandboxes see the files through an idmapped mount.
    Rootful,
    /// All files belong to the server's own user, whatever a layer says.
    SingleId,
    /// The server is an ordinary user to whom the host gave ranges of ids (subuid(5)), mapped by newuidmap(1): id N of
    /// an image is the Nth of these, as it is for the native runtime's sandboxes of such a user.
    Subordinate {
        /// The first uid.
        first_uid: u32,
        /// The first gid.
        first_gid: u32,
        /// How many of each.
        count: u32,
    },
}

impl UnpackMode {
    /// What this process can do. Reads files of `/proc` and `/etc`.
    #[must_use]
    pub fn detect() -> Self {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        if uid == 0 {
            let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
            let (uids, gids) = (read("/proc/self/uid_map"), read("/proc/self/gid_map"));
            return if has_store_ids(&uids) && has_store_ids(&gids) { Self::Rootful } else { Self::SingleId };
        }
        let Ok(range) = Subordinate::find(uid, gid) else { return Self::SingleId };
        match (u32::try_from(range.first_uid), u32::try_from(range.first_gid)) {
            (Ok(first_uid), Ok(first_gid)) => Self::Subordinate { first_uid, first_gid, count: range.count },
            _ => Self::SingleId,
        }
    }

    /// The ids of unpack processes, or why there can be none.
    pub(super) fn ids(&self) -> Result<Ids, ImageError> {
        match *self {
            Self::SingleId => Ok(Ids::Single),
            Self::Subordinate { first_uid, first_gid, count } => {
                Ok(Ids::Subordinate { first_uid, first_gid, count })
            }
            Self::Rootful => {
                let (first, end) = (u64::from(STORE_IDS), u64::from(STORE_IDS) + u64::from(STORE_IDS_COUNT));
                for path in ["/etc/subuid", "/etc/subgid"] {
                    let text = std::fs::read_to_string(path).unwrap_or_default();
                    let taken = subordinate_ranges(&text)
                        .any(|range| range.start < end && first < range.start.saturating_add(range.count));
                    if taken {
                        let reason = format!(
                            "{path} gives ids from {first} to {} to a user, which the store's files have; give that \
                             user others",
                            end - 1
                        );
                        return Err(ImageError::Store { reason });
                    }
                }
                Ok(Ids::Range { base: STORE_IDS })
            }
        }
    }
}

/// Whether an id map of user_namespaces(7) has the store's ids.
fn has_store_ids(map: &str) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(start)), Some(Ok(_)), Some(Ok(len))) => {
                let (first, count) = (u64::from(STORE_IDS), u64::from(STORE_IDS_COUNT));
                start <= first && first + count <= start.saturating_add(len)
            }
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::has_store_ids;

    #[test]
    fn a_namespace_without_the_stores_ids_is_seen() {
        assert!(has_store_ids("         0          0 4294967295\n"));
        assert!(has_store_ids("0 1000 1\n1 100000 4294867294\n"));
        assert!(!has_store_ids("0 100000 65536\n"));
        assert!(!has_store_ids("0 0 1878982655\n"));
        assert!(!has_store_ids(""));
    }
}
