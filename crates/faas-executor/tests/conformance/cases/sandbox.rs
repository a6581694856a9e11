//! The sandbox around a command, and what the answer says of it.

use std::collections::BTreeSet;

use faas_executor::ExecuteSpec;
use faas_types::{ErrorCode, Network};

use crate::subject::{Backend, Subject, text};

pub(crate) async fn there_is_no_network_but_loopback(subject: &Subject) {
    let said = subject.stdout(subject.argv(&["cat", "/proc/net/dev"])).await;
    let names = said.lines().filter_map(|line| Some(line.split_once(':')?.0.trim()));
    assert_eq!(names.collect::<Vec<_>>(), ["lo"], "{said}");
    assert_eq!(subject.stdout(subject.argv(&["cat", "/proc/net/route"])).await.lines().count(), 1);
}

pub(crate) async fn egress_is_refused_where_it_is_not_supported(subject: &Subject) {
    let spec = ExecuteSpec { network: Network::Egress, ..subject.argv(&["cat", "/proc/net/dev"]) };
    let support = subject.feature("network_egress").unwrap();
    if support.supported {
        let said = subject.stdout(spec).await;
        return assert!(said.lines().filter(|line| line.contains(':')).count() > 1, "{said}");
    }
    let said = subject.refused(spec, ErrorCode::Unsupported).await;
    assert!(said.contains(&support.detail), "{said}");
}

pub(crate) async fn what_was_used_is_told_where_it_can_be(subject: &Subject) {
    let line = "n=0; while [ $n -lt 200000 ]; do n=$((n + 1)); done; head -c 8000000 /dev/zero >/tmp/x";
    let outcome = subject.ok(subject.shell(line)).await;
    assert_eq!(outcome.exit.code, Some(0));
    let usage = outcome.usage;
    let told = match subject.backend {
        Backend::Docker => subject.feature("usage").unwrap().supported,
        // Whatever counts is what limits.
        Backend::Native => subject.capabilities.limits.memory.supported,
    };
    if !told {
        return assert_eq!((usage.cpu_us, usage.memory_peak_bytes), (None, None));
    }
    assert!(usage.cpu_us.is_some() || usage.memory_peak_bytes.is_some(), "{usage:?}");
    assert!(usage.cpu_us.is_none_or(|us| us > 0), "{usage:?}");
    // The loop took a moment of each of its own time.
    assert!(usage.memory_peak_bytes.is_none_or(|bytes| (1..=256 << 20).contains(&bytes)), "{usage:?}");
}

pub(crate) async fn the_answer_says_what_ran_where(subject: &Subject) {
    let mut ids = BTreeSet::new();
    for _ in 0..3 {
        let outcome = subject.ok(subject.shell("sleep 0.05")).await;
        assert_eq!(outcome.runtime.to_string(), subject.backend.as_str());
        assert_eq!(outcome.image, subject.image.name());
        assert_eq!(outcome.timeout_ms, 60_000);
        assert!(outcome.timings.create_us > 0, "{:?}", outcome.timings);
        // A sleep is never shorter than asked for.
        assert!(outcome.timings.exec_us >= 50_000, "{:?}", outcome.timings);
        assert_eq!(outcome.timings.exec_us, outcome.exit.duration_us);
        ids.insert(outcome.execution_id);
    }
    assert_eq!(ids.len(), 3);
}

pub(crate) async fn each_execution_has_a_sandbox_of_its_own(subject: &Subject) {
    let line = "cat /tmp/trace /dev/shm/trace 2>/dev/null; echo here | tee /tmp/trace >/dev/shm/trace; \
                cat /proc/sys/kernel/hostname; ls -d /proc/[0-9]* | wc -l";
    let first = subject.stdout(subject.shell(line)).await;
    let second = subject.stdout(subject.shell(line)).await;
    let host = |said: &str| said.lines().next().unwrap().to_owned();
    assert!(host(&first).starts_with("sb-") && host(&second).starts_with("sb-"), "{first} {second}");
    assert_ne!(host(&first), host(&second));
    // Side by side they see nothing of each other either.
    let (one, other) = tokio::join!(
        subject.ok(subject.shell("sleep 7777 & sleep 0.5; cat /proc/[0-9]*/cmdline | tr '\\0' ' '")),
        subject.ok(subject.shell("sleep 8888 & sleep 0.5; cat /proc/[0-9]*/cmdline | tr '\\0' ' '")),
    );
    let (one, other) = (text(&one.stdout), text(&other.stdout));
    assert!(one.contains("sleep 7777") && !one.contains("8888"), "{one}");
    assert!(other.contains("sleep 8888") && !other.contains("7777"), "{other}");
}
