//! Numbers and names that the server, the launcher and the sandboxes agree on.

/// How many slots there can be: as many as ranges of ids fit between [`FIRST_ID`] and 2^31.
pub(crate) const MAX_SLOTS: u32 = 4095;

/// The first id of the first slot's range on the host.
const FIRST_ID: u32 = 0x7000_0000;

/// How many ids a sandbox has: 0..65535 inside.
pub(crate) const IDS_PER_SANDBOX: u32 = 0x1_0000;

/// The creator of slot 0's user namespaces. Below every range, so that no sandbox can become it.
const FIRST_CREATOR: u32 = 0x6fff_0000;

/// The ids of one slot on the host.
///
/// A range for each slot, and not one for all: some kernel limits are counted for each user of the host and not for
/// each namespace (pipe buffers, epoll watches, descriptors in flight over Unix sockets, keys), and two sandboxes with
/// one range would use up each other's. Files of a sandbox that outlive it are brought to another's range by an
/// idmapped mount. What is counted for each namespace (inotify, PTYs, ...) is charged to the namespace's creator in the
/// namespace above, so that one is the slot's own too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotIds {
    /// The uid and gid that create the slot's user namespaces.
    pub(crate) creator: u32,
    /// The uid and gid on the host of id 0 inside.
    pub(crate) base: u32,
}

impl SlotIds {
    /// The ids of slot `slot`.
    pub(crate) const fn of(slot: u32) -> Self {
        Self { creator: FIRST_CREATOR + slot, base: FIRST_ID + slot * IDS_PER_SANDBOX }
    }

    /// Whether any of them lies in `start..start+count`.
    pub(crate) const fn overlaps(&self, start: u64, count: u64) -> bool {
        let (base, end) = (self.base as u64, self.base as u64 + IDS_PER_SANDBOX as u64);
        let creator = self.creator as u64;
        (base < start + count && start < end) || (creator >= start && creator < start + count)
    }
}

/// Ranges that the host has given to its users, from the text of `/etc/subuid` or `/etc/subgid` (subuid(5)).
pub(crate) fn subordinate_ranges(text: &str) -> Vec<(u64, u64)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':').skip(1);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        })
        .collect()
}

/// Capabilities that a sandbox's root keeps, as the bits of `CapBnd`: those of a container by default (CHOWN,
/// DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD,
/// AUDIT_WRITE, SETFCAP). They count in the sandbox's own user namespace only.
pub(crate) const KEPT_CAPABILITIES: u64 = 0xa804_25fb;

/// The mark on a gateway's host resources.
pub(crate) fn mark(gateway_id: &str) -> String {
    format!("faas-{gateway_id}")
}

#[cfg(test)]
mod tests {
    use super::{MAX_SLOTS, SlotIds, subordinate_ranges};

    #[test]
    fn ranges_of_slots_do_not_touch() {
        let last = SlotIds::of(MAX_SLOTS - 1);
        assert!(u64::from(last.base) + 65536 <= 1 << 31);
        assert_eq!(SlotIds::of(1).base - SlotIds::of(0).base, 65536);
        assert!(last.creator < SlotIds::of(0).base);
    }

    #[test]
    fn a_range_given_to_a_user_is_seen() {
        let text = "alice:100000:65536\nbroken\nbob:1879113728:65536\n";
        let ranges = subordinate_ranges(text);
        assert_eq!(ranges, [(100_000, 65_536), (1_879_113_728, 65_536)]);
        assert!(SlotIds::of(1).overlaps(ranges[1].0, ranges[1].1));
        assert!(!SlotIds::of(3).overlaps(ranges[0].0, ranges[0].1));
    }
}
