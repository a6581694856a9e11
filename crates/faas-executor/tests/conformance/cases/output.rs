//! Standard input, output and error.

use faas_executor::ExecuteSpec;

use crate::subject::{Subject, file, said, text};

/// Every byte, and no two kibibytes alike.
pub(crate) fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect()
}

pub(crate) async fn standard_input_arrives_byte_for_byte(subject: &Subject) {
    for len in [0, 1, 256, (3 << 20) + 1] {
        let stdin = bytes(len);
        let spec =
            ExecuteSpec { stdin: Some(stdin.clone()), max_output_bytes: 4 << 20, ..subject.argv(&["cat"]) };
        let outcome = subject.ok(spec).await;
        assert_eq!(outcome.stdout.len(), len);
        assert!(outcome.stdout == stdin, "{len} bytes came back changed");
        assert!(!outcome.exit.stdout_truncated);
    }
}

pub(crate) async fn without_standard_input_there_is_its_end_at_once(subject: &Subject) {
    assert_eq!(subject.stdout(subject.shell("cat; echo end")).await, "end\n");
}

pub(crate) async fn standard_input_that_nobody_reads_holds_nobody_up(subject: &Subject) {
    for line in ["true", "exec 0<&-; echo closed", "head -c 3"] {
        let spec = ExecuteSpec { stdin: Some(bytes(8 << 20)), ..subject.shell(line) };
        assert_eq!(subject.ok(spec).await.exit.code, Some(0), "{line}");
    }
}

pub(crate) async fn stdout_and_stderr_are_apart_and_exact(subject: &Subject) {
    let (out, err) = (bytes(70_000), bytes(50_001));
    let spec = ExecuteSpec {
        files: vec![file("/tmp/out", 0o644, &out), file("/tmp/err", 0o644, &err)],
        ..subject.shell("cat /tmp/out; cat /tmp/err >&2; printf '\\377\\000\\376'; printf last >&2")
    };
    let outcome = subject.ok(spec).await;
    assert!(outcome.stdout == [&out[..], &[0xff, 0, 0xfe]].concat(), "{}", outcome.stdout.len());
    assert!(outcome.stderr == [&err[..], b"last"].concat(), "{}", outcome.stderr.len());
    // Both at once, so that one that is full does not hold the other up.
    let line = "(head -c 1000000 /dev/zero >&2 &) ; head -c 1000000 /dev/zero; sleep 0.2";
    let outcome = subject.ok(subject.shell(line)).await;
    assert_eq!((outcome.stdout.len(), outcome.stderr.len()), (1_000_000, 1_000_000));
}

pub(crate) async fn output_beyond_its_limit_is_dropped_and_flagged(subject: &Subject) {
    let line = "printf 0123456789; printf abcde >&2";
    for (max, out, err) in [
        (0, "", ""),
        (5, "01234", "abcde"),
        (9, "012345678", "abcde"),
        (10, "0123456789", "abcde"),
        (11, "0123456789", "abcde"),
    ] {
        let spec = ExecuteSpec { max_output_bytes: max, ..subject.shell(line) };
        let outcome = subject.ok(spec).await;
        assert_eq!((text(&outcome.stdout), text(&outcome.stderr)), (out, err), "{max}");
        let flags = (outcome.exit.stdout_truncated, outcome.exit.stderr_truncated);
        assert_eq!(flags, (max < 10, max < 5), "{max}");
        assert_eq!(outcome.exit.code, Some(0), "{}", said(&outcome));
    }
}

pub(crate) async fn a_hundred_mebibytes_of_output_are_bounded_in_memory(subject: &Subject) {
    const KEPT: u64 = 1 << 20;
    const MOST_KIB: u64 = 32 << 10;
    // clear_refs of proc_pid_clear_refs(5): 5 sets the peak to what there is now.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status_kib("VmRSS:");
    let line = "head -c 104857600 /dev/zero; head -c 104857600 /dev/zero >&2; exit 7";
    let outcome = subject.ok(ExecuteSpec { max_output_bytes: KEPT, ..subject.shell(line) }).await;
    let grown = status_kib("VmHWM:").saturating_sub(before);
    assert_eq!(outcome.exit.code, Some(7), "{}", outcome.exit.code.unwrap_or(-1));
    assert_eq!((outcome.stdout.len() as u64, outcome.stderr.len() as u64), (KEPT, KEPT));
    assert!(outcome.exit.stdout_truncated && outcome.exit.stderr_truncated);
    assert!(grown < MOST_KIB, "the gateway took {grown} KiB for 2 MiB that it kept of 200");
}

fn status_kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    value.trim().trim_end_matches(" kB").parse().unwrap()
}
