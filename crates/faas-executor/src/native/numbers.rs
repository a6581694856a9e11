//! Which slot numbers are taken, and by whom. No I/O.
//!
//! A number stands for cgroups and ids, so it must not be given out again before both sides are done with it: the
//! server, which may still hold the slot, and its launcher, which may still be clearing up after it.

use std::collections::BTreeMap;

/// Who has a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holders {
    /// Whether the server holds the slot, or is making it.
    server: bool,
    /// The launcher, by count, that has not said that the slot is gone.
    launcher: Option<u64>,
}

/// All numbers of one executor.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    taken: BTreeMap<u32, Holders>,
    /// Numbers whose ids the host has given to somebody else, or whose cgroups are of no use.
    reserved: Vec<u32>,
}

impl Numbers {
    pub(super) fn new(reserved: Vec<u32>) -> Self {
        Self { taken: BTreeMap::new(), reserved }
    }

    /// Nobody is to have this number.
    pub(super) fn reserve(&mut self, number: u32) {
        self.reserved.push(number);
    }

    /// Takes the first free number of these for the server.
    pub(super) fn take(&mut self, from: impl IntoIterator<Item = u32>) -> Option<u32> {
        let free = |number: &u32| !self.taken.contains_key(number) && !self.reserved.contains(number);
        let number = from.into_iter().find(free)?;
        self.taken.insert(number, Holders { server: true, launcher: None });
        Some(number)
    }

    /// Whether it is taken by anybody.
    pub(super) fn is_taken(&self, number: u32) -> bool {
        self.taken.contains_key(&number)
    }

    /// Launcher `count` was told to make the slot.
    pub(super) fn given_to_launcher(&mut self, number: u32, count: u64) {
        if let Some(holders) = self.taken.get_mut(&number) {
            holders.launcher = Some(count);
        }
    }

    /// The server has let go of the slot.
    pub(super) fn left_by_server(&mut self, number: u32) {
        self.update(number, |holders| holders.server = false);
    }

    /// Launcher `count` has cleared up after the slot, or somebody has in its stead.
    pub(super) fn left_by_launcher(&mut self, number: u32, count: u64) {
        self.update(number, |holders| {
            if holders.launcher == Some(count) {
                holders.launcher = None;
            }
        });
    }

    /// The numbers that launcher `count` had when it ended and that the server holds no more.
    pub(super) fn orphans_of(&self, count: u64) -> Vec<u32> {
        let orphaned = |holders: &Holders| !holders.server && holders.launcher == Some(count);
        self.taken.iter().filter(|(_, holders)| orphaned(holders)).map(|(number, _)| *number).collect()
    }

    fn update(&mut self, number: u32, change: impl FnOnce(&mut Holders)) {
        if let Some(holders) = self.taken.get_mut(&number) {
            change(holders);
            if !holders.server && holders.launcher.is_none() {
                self.taken.remove(&number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Numbers;

    #[test]
    fn a_number_is_free_when_both_sides_are_done_with_it_in_whatever_order() {
        for server_first in [true, false] {
            let mut numbers = Numbers::new(vec![0]);
            assert_eq!(numbers.take(0..3), Some(1));
            numbers.given_to_launcher(1, 7);
            if server_first {
                numbers.left_by_server(1);
            } else {
                numbers.left_by_launcher(1, 7);
            }
            assert_eq!(numbers.take(0..2), None, "half of it is still held");
            numbers.left_by_server(1);
            numbers.left_by_launcher(1, 7);
            assert_eq!(numbers.take(0..2), Some(1));
        }
    }

    #[test]
    fn what_another_launcher_says_does_not_free_it() {
        let mut numbers = Numbers::new(vec![]);
        assert_eq!(numbers.take(0..1), Some(0));
        numbers.given_to_launcher(0, 1);
        numbers.left_by_server(0);
        numbers.left_by_launcher(0, 2);
        assert_eq!(numbers.take(0..1), None);
        assert_eq!(numbers.orphans_of(1), [0]);
        numbers.left_by_launcher(0, 1);
        assert_eq!(numbers.take(0..1), Some(0));
    }

    #[test]
    fn a_number_that_is_reserved_is_nobodys() {
        let mut numbers = Numbers::new(vec![0]);
        numbers.reserve(1);
        assert_eq!(numbers.take(0..3), Some(2));
        assert_eq!(numbers.take(0..3), None);
    }

    #[test]
    fn a_slot_that_no_launcher_heard_of_is_the_servers_alone() {
        let mut numbers = Numbers::new(vec![]);
        assert_eq!(numbers.take(0..1), Some(0));
        numbers.left_by_server(0);
        assert_eq!(numbers.take(0..1), Some(0));
    }
}
