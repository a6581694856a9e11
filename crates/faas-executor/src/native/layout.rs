//! Numbers and names that the server, the launcher and the sandboxes agree on.

use serde::{Deserialize, Serialize};

/// How many slots there can be on one host: as many whole blocks of ranges as fit between [`FIRST_ID`] and 2^31.
pub(crate) const MAX_SLOTS: u32 = 4032;

/// The first id of the first slot's range on the host.
const FIRST_ID: u32 = 0x7000_0000;

/// How many ids a sandbox has at most: 0..65535 inside.
pub(crate) const IDS_PER_SANDBOX: u32 = 0x1_0000;

/// The creator of slot 0's user namespaces. Below every range, so that no sandbox can become it.
const FIRST_CREATOR: u32 = 0x6fff_0000;

/// The first id on the host of what the image store of root has on the disk: 65,536 ids below every creator, that no
/// process of a sandbox ever has. Sandboxes see them through an idmapped mount.
pub(crate) const STORE_IDS: u32 = 0x6ffe_0000;

/// How many there are.
pub(crate) const STORE_IDS_COUNT: u32 = 0x1_0000;

/// Which ids the sandboxes of a server have. Decided by the server, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum IdMode {
    /// The server is root: every slot has a range of its own, and a creator of its own.
    OwnRanges,
    /// The server is an ordinary user. The launcher makes a user namespace in which that user is 0, and every
    /// sandbox's is below it.
    OfUser {
        /// The user, who is 0 to the launcher.
        uid: u32,
        /// Its primary group, likewise.
        gid: u32,
        /// How many further ids the launcher has, as 1 and up: those that `/etc/subuid` and `/etc/subgid` give to the
        /// user and newuidmap(1) maps. With none a sandbox has one id.
        further: u32,
    },
}

/// The ids of one slot, as the launcher sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotIds {
    /// The uid and gid that create the slot's user namespaces, where they are the slot's own.
    pub(crate) creator: Option<u32>,
    /// What id 0 inside is.
    pub(crate) base: u32,
    /// How many ids there are inside.
    pub(crate) count: u32,
}

impl IdMode {
    /// The ids of slot `slot`.
    ///
    /// As root a range for each slot, and not one for all: some kernel limits are counted for each user of the host and
    /// not for each namespace (pipe buffers, epoll watches, descriptors in flight over Unix sockets, keys), and two
    /// sandboxes with one range would use up each other's. Files of a sandbox that outlive it are brought to another's
    /// range by an idmapped mount. What is counted for each namespace (inotify, PTYs, ...) is charged to the namespace's
    /// creator in the namespace above, so that one is the slot's own too. An ordinary user has neither to give: its
    /// sandboxes share its limits.
    pub(crate) const fn of_slot(self, slot: u32) -> SlotIds {
        match self {
            Self::OwnRanges => SlotIds {
                creator: Some(FIRST_CREATOR + slot),
                base: FIRST_ID + slot * IDS_PER_SANDBOX,
                count: IDS_PER_SANDBOX,
            },
            Self::OfUser { further: 0, .. } => SlotIds { creator: None, base: 0, count: 1 },
            Self::OfUser { further, .. } => {
                let count = if further < IDS_PER_SANDBOX { further } else { IDS_PER_SANDBOX };
                SlotIds { creator: None, base: 1, count }
            }
        }
    }
}

impl SlotIds {
    /// Whether any of them lies in `start..start+count`.
    pub(crate) const fn overlaps(&self, start: u64, count: u64) -> bool {
        let (base, end) = (self.base as u64, self.base as u64 + self.count as u64);
        let by_creator = match self.creator {
            Some(creator) => creator as u64 >= start && (creator as u64) < start + count,
            None => false,
        };
        (base < start + count && start < end) || by_creator
    }

    /// The line of uid_map and gid_map (user_namespaces(7)).
    pub(crate) fn map_line(&self) -> String {
        format!("0 {} {}", self.base, self.count)
    }
}

/// The mapping of a mount of the image store, for sandboxes with these ids.
pub(crate) fn store_map_line(ids: SlotIds) -> String {
    format!("{STORE_IDS} {} {STORE_IDS_COUNT}", ids.base)
}

/// A range of ids that the host has given to a user: `/etc/subuid` and `/etc/subgid` (subuid(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SubordinateRange<'a> {
    /// The user by name or number.
    pub(crate) user: &'a str,
    pub(crate) start: u64,
    pub(crate) count: u64,
}

/// The ranges in the text of `/etc/subuid` or `/etc/subgid`.
pub(crate) fn subordinate_ranges(text: &str) -> impl Iterator<Item = SubordinateRange<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let user = fields.next()?;
        Some(SubordinateRange {
            user,
            start: fields.next()?.parse().ok()?,
            count: fields.next()?.parse().ok()?,
        })
    })
}

/// Capabilities that a sandbox's root keeps, as the bits of `CapBnd`: those of a container by default (CHOWN,
/// DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, SYS_CHROOT, MKNOD, AUDIT_WRITE,
/// SETFCAP) but for NET_RAW: what waits in raw sockets is memory that no limit counts, and there is nobody to be reached
/// by them. They count in the sandbox's own user namespace only.
pub(crate) const KEPT_CAPABILITIES: u64 = 0xa804_05fb;

/// The mark on a gateway's host resources.
pub(crate) fn mark(gateway_id: &str) -> String {
    format!("faas-{gateway_id}")
}

#[cfg(test)]
mod tests {
    use super::{IdMode, MAX_SLOTS, STORE_IDS, STORE_IDS_COUNT, SlotIds, subordinate_ranges};

    #[test]
    fn ranges_of_slots_do_not_touch() {
        let of = |slot| IdMode::OwnRanges.of_slot(slot);
        let last = of(MAX_SLOTS - 1);
        assert!(u64::from(last.base) + 65536 <= 1 << 31);
        assert_eq!(of(1).base - of(0).base, 65536);
        assert!(last.creator.unwrap() < of(0).base);
        assert!(STORE_IDS + STORE_IDS_COUNT <= of(0).creator.unwrap());
        assert_eq!(of(1).map_line(), "0 1879113728 65536");
    }

    #[test]
    fn an_ordinary_users_sandboxes_have_what_it_has() {
        let ids = |further| IdMode::OfUser { uid: 1000, gid: 1000, further }.of_slot(3);
        assert_eq!(ids(0), SlotIds { creator: None, base: 0, count: 1 });
        assert_eq!(ids(1000), SlotIds { creator: None, base: 1, count: 1000 });
        assert_eq!(ids(65537).count, 65536);
    }

    #[test]
    fn a_range_given_to_a_user_is_seen() {
        let text = "alice:100000:65536\nbroken\nbob:1879113728:65536\n";
        let ranges: Vec<_> =
            subordinate_ranges(text).map(|range| (range.user, range.start, range.count)).collect();
        assert_eq!(ranges, [("alice", 100_000, 65_536), ("bob", 1_879_113_728, 65_536)]);
        assert!(IdMode::OwnRanges.of_slot(1).overlaps(ranges[1].1, ranges[1].2));
        assert!(!IdMode::OwnRanges.of_slot(3).overlaps(ranges[0].1, ranges[0].2));
    }
}
