//! Sandboxes that outlive their server, at the seam.

use faas_executor::sandbox::{Found, Limits, SandboxError, SandboxHandle, SandboxRecord};
use faas_types::SandboxId;

use crate::seam::{ID, LIMITS, Seam, Server, Site};
use crate::subject::{Backend, Subject};

/// A sandbox by its record, as a server knows it at its start.
fn known(record: &SandboxRecord) -> Vec<(SandboxId, Option<SandboxRecord>)> {
    vec![(SandboxId(ID.to_owned()), Some(record.clone()))]
}

/// Whether a sandbox can be stopped where it is, and its limits changed.
fn has_cgroups(subject: &Subject) -> bool {
    match subject.backend {
        Backend::Docker => true,
        Backend::Native => subject.capabilities.limits.memory.supported,
    }
}

pub(crate) async fn a_kept_sandbox_outlives_a_killed_server(subject: &Subject) {
    let site = Site::of(subject);
    let record = Server::start(&site, &["keep"]).kill();
    let seam = Seam::start(site, known(&record)).await;
    let (sandbox, paused) = seam.live(&seam.spec(ID, LIMITS), &record).await;
    assert!(!paused);
    seam.goes_on(&sandbox).await;
    // One alone; what it starts looks like it until it is another program.
    let one = "until [ $(cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c 'tmp/[t]icks') = 1 ]; \
               do :; done";
    seam.ok(&sandbox, one).await;
    assert_eq!(seam.leaks(&[]).await, []);
    seam.destroy(sandbox).await;
    subject.is_clean().await;
    seam.stop().await;
}

pub(crate) async fn a_kept_sandbox_outlives_servers_that_end(subject: &Subject) {
    let site = Site::of(subject);
    let mut record = Server::start(&site, &["keep", "stop"]).wait();
    for _ in 0..2 {
        let seam = Seam::start(site.clone(), known(&record)).await;
        let (sandbox, _) = seam.live(&seam.spec(ID, LIMITS), &record).await;
        seam.goes_on(&sandbox).await;
        record = seam.record(&sandbox);
        seam.stop().await;
    }
    let seam = Seam::start(site, known(&record)).await;
    let (sandbox, _) = seam.live(&seam.spec(ID, LIMITS), &record).await;
    // It lasts as long as anybody wants, without being kept again.
    let record = seam.halt(sandbox).await;
    let sandbox = seam.revive(&seam.spec(ID, LIMITS), &record).await;
    assert_ne!(seam.ok(&sandbox, "wc -l </tmp/ticks").await, "0");
    seam.destroy(sandbox).await;
    seam.stop().await;
}

pub(crate) async fn a_creation_that_is_given_up_leaves_nothing(subject: &Subject) {
    let seam = Seam::start(Site::of(subject), Vec::new()).await;
    for number in 0..60u64 {
        let id = format!("sb-unborn-{number}");
        let spec = seam.spec(&id, LIMITS);
        let after = std::time::Duration::from_micros(number * number * 10);
        match tokio::time::timeout(after, seam.try_create(&spec)).await {
            Ok(made) => seam.destroy(made.unwrap()).await,
            // As whoever wrote down that it is to be made.
            Err(_given_up) => seam.remove(&id, None).await,
        }
    }
    let begun = std::time::Instant::now();
    while !seam.leaks(&[]).await.is_empty() {
        assert!(begun.elapsed() < crate::subject::SETTLE, "{:?}", seam.leaks(&[]).await);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    subject.is_clean().await;
    seam.stop().await;
}

pub(crate) async fn what_was_not_kept_ends_with_its_server(subject: &Subject) {
    let site = Site::of(subject);
    let record = Server::start(&site, &[]).kill();
    let seam = Seam::start(site.clone(), known(&record)).await;
    let found = seam.adopt(&seam.spec(ID, LIMITS), &record).await;
    assert!(matches!(found, Found::Stopped { .. } | Found::Gone { .. }), "{found:?}");
    seam.remove(ID, Some(&record)).await;
    subject.is_clean().await;
    assert_eq!(seam.leaks(&[]).await, []);
    seam.stop().await;
    // So it does when the server ends by itself.
    let record = Server::start(&site, &["stop"]).wait();
    subject.is_clean().await;
    let seam = Seam::start(site, known(&record)).await;
    seam.remove(ID, Some(&record)).await;
    seam.stop().await;
}

pub(crate) async fn a_paused_sandbox_is_adopted_paused(subject: &Subject) {
    let site = Site::of(subject);
    if !has_cgroups(subject) {
        let seam = Seam::start(site, Vec::new()).await;
        let (sandbox, _) = seam.create("sb-1").await;
        let refused = seam.pause(&sandbox).await.unwrap_err();
        assert!(matches!(refused, SandboxError::Unsupported(_)), "{refused}");
        seam.destroy(sandbox).await;
        return seam.stop().await;
    }
    let record = Server::start(&site, &["keep", "pause"]).kill();
    let seam = Seam::start(site.clone(), known(&record)).await;
    let (sandbox, paused) = seam.live(&seam.spec(ID, LIMITS), &record).await;
    assert!(paused);
    seam.resume(&sandbox).await;
    seam.goes_on(&sandbox).await;
    // Stopped while it is paused, it begins anew and is not.
    seam.pause(&sandbox).await.unwrap();
    let record = seam.halt(sandbox).await;
    let sandbox = seam.revive(&seam.spec(ID, LIMITS), &record).await;
    seam.begin(&sandbox).await;
    seam.goes_on(&sandbox).await;
    // Nor is the next one that comes where it was.
    seam.pause(&sandbox).await.unwrap();
    seam.destroy(sandbox).await;
    let (sandbox, _) = seam.create("sb-next").await;
    assert_eq!(seam.ok(&sandbox, "echo here").await, "here");
    seam.destroy(sandbox).await;
    seam.stop().await;
    // Removed while it is paused and nobody has adopted it.
    let record = Server::start(&site, &["keep", "pause"]).kill();
    let seam = Seam::start(site, known(&record)).await;
    seam.remove(ID, Some(&record)).await;
    subject.is_clean().await;
    seam.stop().await;
}

/// Tells of everything that is written by [`WRITE`].
const LIST: &str = "cd /srv-lasting && ls -ln | awk 'NR>1 {print $1, $2, $3, $4, $9, $10, $11}' && cat a deep/er/file \
                    && cat /etc/hostname /tmp/kept && { cat /etc/machine-id 2>/dev/null; true; } && [ a -ef b ]";

const WRITE: &str = "mkdir -p /srv-lasting/deep/er && cd /srv-lasting && echo content >a && chmod 4750 a && ln a b && \
                     ln -s /etc/passwd link && echo deep >deep/er/file && chmod 0711 deep && mkfifo pipe && \
                     echo tmp >/tmp/kept && echo gone >/run/gone && echo gone >/dev/shm/gone && rm -rf /sys && \
                     ln -s /srv-lasting /sys && rm -f /etc/hosts";

pub(crate) async fn halt_keeps_the_files_and_nothing_in_memory(subject: &Subject) {
    let seam = Seam::start(Site::of(subject), Vec::new()).await;
    let spec = seam.spec(ID, LIMITS);
    let (mut sandbox, _) = seam.create(ID).await;
    // A container's engine mounts some of these.
    let write = match subject.backend {
        Backend::Native => WRITE.to_owned(),
        Backend::Docker => {
            let write = WRITE.split(" && rm -rf /sys").next().unwrap();
            format!("{write} && echo gone >/run/secrets/gone")
        }
    };
    seam.ok(&sandbox, &write).await;
    if subject.has_users() {
        seam.ok(&sandbox, "chown 1234:5678 /srv-lasting/a /srv-lasting/deep/er/file").await;
    }
    let before = seam.ok(&sandbox, LIST).await;
    for _ in 0..2 {
        let record = seam.halt(sandbox).await;
        subject.is_clean().await;
        assert_eq!(seam.leaks(&[ID]).await, []);
        sandbox = seam.revive(&spec, &record).await;
        seam.keep(&sandbox).await;
        assert_eq!(seam.ok(&sandbox, LIST).await, before);
        // A container has the `/run` of its image, with what that has there, and not one in memory.
        let in_memory = match subject.backend {
            Backend::Native => "/run/gone /dev/shm/gone",
            Backend::Docker => "/run/secrets/gone /dev/shm/gone",
        };
        assert_eq!(seam.run(&sandbox, &format!("ls {in_memory} 2>/dev/null")).await.1, "");
        assert_eq!(
            seam.ok(
                &sandbox,
                "echo x >/dev/null; ls /proc/self/fd >/dev/null; cat /dev/zero | head -c 3 | wc -c"
            )
            .await,
            "3"
        );
    }
    seam.destroy(sandbox).await;
    seam.stop().await;
}

pub(crate) async fn it_is_removed_in_every_state_and_twice(subject: &Subject) {
    let site = Site::of(subject);
    // While it runs, by a server that has not adopted it; and half made, when there is no record yet.
    for with_record in [true, false] {
        let record = Server::start(&site, if with_record { &["keep"] } else { &[] }).kill();
        let known = vec![(SandboxId(ID.to_owned()), with_record.then(|| record.clone()))];
        let seam = Seam::start(site.clone(), known).await;
        for _ in 0..2 {
            seam.remove(ID, Some(&record).filter(|_| with_record)).await;
            subject.is_clean().await;
            assert_eq!(seam.leaks(&[]).await, []);
        }
        seam.stop().await;
    }
    let seam = Seam::start(site, Vec::new()).await;
    // Stopped.
    let (sandbox, first) = seam.create("sb-stopped").await;
    let record = seam.halt(sandbox).await;
    assert_eq!(seam.leaks(&["sb-stopped"]).await, []);
    seam.remove("sb-stopped", Some(&record)).await;
    seam.remove("sb-stopped", Some(&first)).await;
    // Ended by itself, with a handle.
    let (sandbox, _) = seam.create("sb-ended").await;
    let ended = seam.ended(&sandbox);
    kill_keeper(&seam, &sandbox).await;
    ended.await;
    seam.destroy(sandbox).await;
    // Never there.
    seam.remove("sb-never", None).await;
    assert_eq!(seam.leaks(&[]).await, []);
    subject.is_clean().await;
    seam.stop().await;
}

/// Ends a sandbox from inside: with the keeper its first process ends, and all others with that.
async fn kill_keeper(seam: &Seam, sandbox: &SandboxHandle) {
    // It is the only child of the first process, whatever its number is.
    let line = "for stat in /proc/[0-9]*/stat; do read -r pid name state parent rest <$stat; \
                [ \"$parent\" != 1 ] || kill -9 $pid; done 2>/dev/null; sleep 60";
    let (code, said) = seam.run(sandbox, line).await;
    assert_eq!(code, None, "{said}");
}

pub(crate) async fn its_end_is_told_and_its_files_stay(subject: &Subject) {
    let seam = Seam::start(Site::of(subject), Vec::new()).await;
    let spec = seam.spec(ID, LIMITS);
    let (sandbox, _) = seam.create(ID).await;
    let (ended, other) = (seam.ended(&sandbox), seam.ended(&sandbox));
    seam.ok(&sandbox, "echo kept >/tmp/kept; sync").await;
    kill_keeper(&seam, &sandbox).await;
    assert!(!ended.await.is_empty() && !other.await.is_empty());
    let record = seam.halt(sandbox).await;
    let sandbox = seam.revive(&spec, &record).await;
    assert_eq!(seam.ok(&sandbox, "cat /tmp/kept").await, "kept");
    let ended = seam.ended(&sandbox);
    seam.destroy(sandbox).await;
    assert!(!ended.await.is_empty());
    seam.stop().await;
}

pub(crate) async fn limits_change_while_it_runs(subject: &Subject) {
    let seam = Seam::start(Site::of(subject), Vec::new()).await;
    let (sandbox, _) = seam.create(ID).await;
    let small = Limits { memory_bytes: 64 << 20, cpu_millicores: 500, pids: 16, disk_bytes: None };
    if !has_cgroups(subject) {
        let refused = seam.set_limits(&sandbox, small).await.unwrap_err();
        assert!(matches!(refused, SandboxError::Unsupported(_)), "{refused}");
        seam.destroy(sandbox).await;
        return seam.stop().await;
    }
    // More processes than the small limit allows, and not more than the large one: a shell that cannot fork ends.
    let forks = "n=0; while [ $n -lt 30 ]; do sleep 3 & n=$((n+1)); done 2>/dev/null";
    seam.ok(&sandbox, forks).await;
    // Without another process: they may have all that there may be.
    let idle = "n=1; while [ $n = 1 ]; do n=0; for comm in /proc/[0-9]*/comm; do read -r name <$comm && \
                [ \"$name\" = sleep ] && n=1; done; done 2>/dev/null; :";
    seam.ok(&sandbox, idle).await;
    seam.set_limits(&sandbox, small).await.unwrap();
    assert_ne!(seam.run(&sandbox, forks).await.0, Some(0));
    seam.ok(&sandbox, idle).await;
    // 96 MiB is more than the small limit, in memory or not.
    let hold =
        "head -c 48000000 /dev/zero >/dev/shm/x && head -c 48000000 /dev/zero | tail -c 48000000 | wc -c";
    assert_ne!(seam.run(&sandbox, hold).await, (Some(0), "48000000".to_owned()));
    seam.ok(&sandbox, "rm -f /dev/shm/x").await;
    seam.set_limits(&sandbox, LIMITS).await.unwrap();
    assert_eq!(seam.ok(&sandbox, hold).await, "48000000");
    // What it holds in memory cannot be taken back.
    let below = Limits { memory_bytes: 32 << 20, ..LIMITS };
    let refused = seam.set_limits(&sandbox, below).await.unwrap_err();
    assert!(matches!(refused, SandboxError::Unsupported(_)), "{refused}");
    assert_eq!(seam.ok(&sandbox, "wc -c </dev/shm/x").await, "48000000");
    assert_eq!(seam.run(&sandbox, forks).await.0, Some(0), "nothing was changed");
    let disk = Limits { disk_bytes: Some(1 << 30), ..LIMITS };
    assert!(matches!(seam.set_limits(&sandbox, disk).await, Err(SandboxError::Unsupported(_))));
    seam.destroy(sandbox).await;
    // Whoever comes next has its own.
    let (sandbox, _) = seam.create("sb-next").await;
    assert_eq!(seam.ok(&sandbox, hold).await, "48000000");
    seam.destroy(sandbox).await;
    seam.stop().await;
}

pub(crate) async fn what_it_uses_is_measured(subject: &Subject) {
    let site = Site::of(subject);
    let seam = Seam::start(site.clone(), Vec::new()).await;
    let (sandbox, record) = seam.create(ID).await;
    let before = seam.measure(&sandbox).await;
    let work = "n=0; while [ $n -lt 300000 ]; do n=$((n+1)); done; head -c 30000000 /dev/zero >/dev/shm/x; \
                head -c 20000000 /dev/urandom >/tmp/x; sync";
    seam.ok(&sandbox, work).await;
    let after = seam.measure(&sandbox).await;
    if has_cgroups(subject) {
        assert!(
            after.memory_bytes.unwrap() > before.memory_bytes.unwrap() + 25_000_000,
            "{before:?} {after:?}"
        );
        // `init`, `keeper` and `agent`.
        assert!((1..=8).contains(&after.pids.unwrap()), "{after:?}");
        assert!(after.cpu_us.is_none_or(|us| us > before.cpu_us.unwrap()), "{before:?} {after:?}");
        assert!(after.memory_peak_bytes.is_none_or(|peak| peak >= 30_000_000), "{after:?}");
    } else {
        assert_eq!((after.memory_bytes, after.pids, after.cpu_us), (None, None, None));
    }
    if let (Some(before), Some(after)) = (before.disk_bytes, after.disk_bytes) {
        assert!((19_000_000..60_000_000).contains(&(after - before)), "{before} {after}");
    } else {
        assert!(
            after.disk_bytes.is_none() && !subject.feature("lasting_disk_limit").is_some_and(|f| f.supported)
        );
    }
    assert!(after.network_received_bytes.is_none_or(|bytes| bytes < 1 << 20), "{after:?}");
    seam.stop().await;
    // The next server counts on.
    let seam = Seam::start(site, known(&record)).await;
    let (sandbox, _) = seam.live(&seam.spec(ID, LIMITS), &record).await;
    let later = seam.measure(&sandbox).await;
    assert!(later.cpu_us >= after.cpu_us, "{after:?} {later:?}");
    assert!(later.cpu_us.is_none_or(|us| us < after.cpu_us.unwrap() + 30_000_000), "{after:?} {later:?}");
    seam.destroy(sandbox).await;
    seam.stop().await;
}

pub(crate) async fn a_disk_limit_of_a_lasting_sandbox_holds_or_is_refused(subject: &Subject) {
    let seam = Seam::start(Site::of(subject), Vec::new()).await;
    let spec = seam.spec(ID, Limits { disk_bytes: Some(64 << 20), ..LIMITS });
    if !subject.feature("lasting_disk_limit").is_some_and(|feature| feature.supported) {
        let refused = seam.try_create(&spec).await.unwrap_err();
        assert!(matches!(refused, SandboxError::Unsupported(_)), "{refused}");
        assert_eq!(seam.leaks(&[]).await, []);
        return seam.stop().await;
    }
    let sandbox = seam.try_create(&spec).await.unwrap();
    let fill =
        "head -c 100000000 /dev/zero >/tmp/x; s=$(wc -c </tmp/x); [ $s -gt 30000000 ] && [ $s -lt 67108864 ]";
    seam.ok(&sandbox, fill).await;
    let record = seam.halt(sandbox).await;
    let sandbox = seam.revive(&spec, &record).await;
    seam.ok(&sandbox, fill).await;
    seam.ok(&sandbox, "rm /tmp/x && head -c 10000000 /dev/zero >/tmp/x").await;
    seam.destroy(sandbox).await;
    seam.stop().await;
}

pub(crate) async fn two_sandboxes_have_files_of_their_own(subject: &Subject) {
    let seam = Seam::start(Site::of(subject), Vec::new()).await;
    let (one, _) = seam.create("sb-one").await;
    let (other, _) = seam.create("sb-other").await;
    seam.ok(&one, "echo one >/tmp/mark").await;
    seam.ok(&other, "[ ! -e /tmp/mark ] && echo other >/tmp/mark").await;
    // Stopped and begun again in each other's place.
    let (one, other) = (seam.halt(one).await, seam.halt(other).await);
    let other = seam.revive(&seam.spec("sb-other", LIMITS), &other).await;
    let one = seam.revive(&seam.spec("sb-one", LIMITS), &one).await;
    assert_eq!(seam.ok(&one, "cat /tmp/mark; hostname").await, "one\nsb-one");
    assert_eq!(seam.ok(&other, "cat /tmp/mark; hostname").await, "other\nsb-other");
    for line in ["ls -d /files /images /upper /lower 2>/dev/null", "grep -c sb-one /proc/self/mountinfo"] {
        let (_, said) = seam.run(&other, line).await;
        assert!(matches!(said.as_str(), "" | "0"), "{line}: {said}");
    }
    seam.destroy(one).await;
    seam.destroy(other).await;
    seam.stop().await;
}
