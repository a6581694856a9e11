use std::path::Path;

use faas_guest_protocol::OutputStream::{Stderr, Stdout};
use proptest::prelude::*;

use super::segment::Record;
use super::{OutputBudget, OutputLogs, OutputReader, OutputWriter, Read, segment};

const BUDGET: OutputBudget = OutputBudget { each_bytes: 1 << 20, all_bytes: 8 << 20 };

fn logs(dir: &Path, budget: OutputBudget) -> OutputLogs {
    OutputLogs::open(dir, budget, |_, _| true).unwrap()
}

fn append(writer: &mut OutputWriter, said: &[u8]) {
    writer.append(writer.next(), 1, Stdout, said).unwrap();
}

/// All that comes: what was said, and each gap as (from, to).
fn all(reader: &mut OutputReader, next: u64) -> (Vec<u8>, Vec<(u64, u64)>) {
    let (mut said, mut gaps) = (Vec::new(), Vec::new());
    loop {
        let from = reader.offset();
        match reader.read(next).unwrap() {
            Read::Record(Record { offset, bytes, .. }) => {
                assert_eq!(offset, from);
                said.extend(bytes);
            }
            Read::Gap { to } => {
                assert!(to > from);
                gaps.push((from, to));
            }
            Read::End => return (said, gaps),
        }
        assert!(reader.offset() > from);
    }
}

#[test]
fn what_was_written_is_read_from_any_offset_and_by_who_writes_on() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(dir.path(), BUDGET);
    let mut writer = logs.writer("i", "e").unwrap();
    assert!(!dir.path().join("i").exists(), "what says nothing takes nothing");
    writer.append(0, 7, Stdout, b"out").unwrap();
    writer.append(3, 8, Stderr, b"err").unwrap();
    let mut reader = logs.reader("i", "e", 1);
    let record = |offset, at_ms, stream, said: &str| {
        Read::Record(Record { offset, at_ms, stream, bytes: said.into() })
    };
    assert_eq!(reader.read(6).unwrap(), record(1, 7, Stdout, "ut"));
    assert_eq!(reader.read(3).unwrap(), Read::End, "no further than was told");
    assert_eq!(reader.read(6).unwrap(), record(3, 8, Stderr, "err"));
    append(&mut writer, b"more");
    assert_eq!(reader.read(10).unwrap(), record(6, 1, Stdout, "more"));
    drop(writer);
    let mut writer = logs.writer("i", "e").unwrap();
    assert_eq!(writer.next(), 10);
    append(&mut writer, b"!");
    assert_eq!(all(&mut logs.reader("i", "e", 0), 11), (b"outerrmore!".to_vec(), vec![]));
}

#[test]
fn a_record_that_was_not_written_to_its_end_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(dir.path(), BUDGET);
    let mut writer = logs.writer("i", "e").unwrap();
    append(&mut writer, b"whole");
    let path = writer.path().unwrap().clone();
    append(&mut writer, b"torn");
    drop(writer);
    let whole = std::fs::read(&path).unwrap();
    for cut in 1..4 + 24 {
        std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        assert_eq!(logs.writer("i", "e").unwrap().next(), 5, "{cut}");
    }
    let mut broken = whole.clone();
    *broken.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &broken).unwrap();
    let mut writer = logs.writer("i", "e").unwrap();
    append(&mut writer, b"again");
    assert_eq!(all(&mut logs.reader("i", "e", 0), 10), (b"wholeagain".to_vec(), vec![]));
    // A header that was not written to its end.
    drop(writer);
    std::fs::write(dir.path().join("i/e/00000000000000aa"), b"FAAS").unwrap();
    assert_eq!(logs.writer("i", "e").unwrap().next(), 10);
}

#[test]
fn an_execution_keeps_its_newest_output() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(dir.path(), BUDGET);
    let mut writer = logs.writer("i", "e").unwrap();
    let said: Vec<u8> = (0..4_000_000u32).map(|n| (n / 1000) as u8).collect();
    for piece in said.chunks(10_000) {
        append(&mut writer, piece);
    }
    let next = said.len() as u64;
    let first = logs.first("i", "e", next).unwrap();
    let held = next - first;
    assert!((BUDGET.each_bytes / 2..=BUDGET.each_bytes).contains(&held), "{held}");
    let (read, gaps) = all(&mut logs.reader("i", "e", 5), next);
    assert_eq!(gaps, [(5, first)]);
    assert!(read == said[usize::try_from(first).unwrap()..]);
}

#[test]
fn all_together_keep_what_they_may_and_what_nobody_wants_goes() {
    let dir = tempfile::tempdir().unwrap();
    let budget = OutputBudget { each_bytes: 1 << 20, all_bytes: 1 << 20 };
    let logs = logs(dir.path(), budget);
    for execution in 0..20 {
        append(&mut logs.writer("i", &format!("e{execution}")).unwrap(), &[7; 200_000]);
    }
    let size = |logs: &OutputLogs| {
        let of = |n: u32| 200_000 - logs.first("i", &format!("e{n}"), 200_000).unwrap();
        (0..20).map(of).collect::<Vec<_>>()
    };
    let held = size(&logs);
    assert!(held.iter().sum::<u64>() <= budget.all_bytes && held[19] == 200_000 && held[0] == 0, "{held:?}");
    logs.remove("i", Some("e19")).unwrap();
    logs.remove("i", Some("e19")).unwrap();
    assert_eq!(size(&logs)[19], 0);
    let again = OutputLogs::open(dir.path(), budget, |_, execution| execution == "e18").unwrap();
    assert_eq!(size(&again).iter().sum::<u64>(), 200_000);
    again.remove("i", None).unwrap();
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
}

#[test]
fn gaps_make_no_files_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(dir.path(), BUDGET);
    let mut writer = logs.writer("i", "e").unwrap();
    for n in 0..1000 {
        writer.append(n * 2, 1, Stdout, b"x").unwrap();
    }
    let files = std::fs::read_dir(dir.path().join("i/e")).unwrap().count();
    assert!(files <= 16, "{files}");
    let (said, _) = all(&mut logs.reader("i", "e", 0), 1999);
    assert!(!said.is_empty() && said.len() <= files);
}

#[test]
fn what_was_lost_is_a_gap_even_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(dir.path(), BUDGET);
    let mut writer = logs.writer("i", "e").unwrap();
    append(&mut writer, b"ab");
    writer.append(10, 1, Stdout, b"cd").unwrap();
    writer.skip_to(20);
    assert_eq!(all(&mut logs.reader("i", "e", 0), 20), (b"abcd".to_vec(), vec![(2, 10), (12, 20)]));
    assert_eq!(all(&mut logs.reader("i", "e", 5), 20), (b"cd".to_vec(), vec![(5, 10), (12, 20)]));
}

proptest! {
    #[test]
    fn no_bytes_in_a_segment_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), is_headed in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("i/e");
        std::fs::create_dir_all(&place).unwrap();
        let (path, _) = segment::create(&place, 0).unwrap();
        let mut content = if is_headed { std::fs::read(&path).unwrap() } else { Vec::new() };
        content.extend(bytes);
        std::fs::write(&path, content).unwrap();
        let logs = logs(dir.path(), BUDGET);
        all(&mut logs.reader("i", "e", 0), 1000);
        let mut writer = logs.writer("i", "e").unwrap();
        let next = writer.next();
        append(&mut writer, b"x");
        prop_assert_eq!(writer.next(), next + 1);
    }
}
