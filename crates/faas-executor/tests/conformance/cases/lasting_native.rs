//! What the native backend promises of lasting sandboxes beyond the others: it has a launcher that can be killed too,
//! cgroups and directories of its own, and ids of the host.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use faas_executor::sandbox::{Found, SandboxRecord};
use faas_test_support::gateway::leftovers::{self, Process};
use faas_types::SandboxId;
use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal};

use crate::seam::{ID, LIMITS, Seam, Server, Site};
use crate::subject::Subject;

fn known(record: &SandboxRecord) -> Vec<(SandboxId, Option<SandboxRecord>)> {
    vec![(SandboxId(ID.to_owned()), Some(record.clone()))]
}

fn has_cgroups(subject: &Subject) -> bool {
    subject.capabilities.limits.memory.supported
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn is_launcher(process: &Process) -> bool {
    process.name == "faas-launcher"
}

/// The one launcher among these.
fn launcher(processes: Vec<Process>) -> Process {
    let mut launchers: Vec<_> = processes.into_iter().filter(is_launcher).collect();
    assert_eq!(launchers.len(), 1, "{launchers:?}");
    launchers.remove(0)
}

fn kill(process: &Process) {
    rustix::process::kill_process(Pid::from_raw(process.pid).unwrap(), Signal::KILL).unwrap();
}

pub(crate) async fn a_killed_launcher_costs_kept_sandboxes_nothing_where_there_are_cgroups(
    subject: &Subject,
) {
    let seam = Seam::start(Site::of(subject), Vec::new()).await;
    let (sandbox, _) = seam.create(ID).await;
    seam.begin(&sandbox).await;
    // The engine has a launcher too, which is older.
    let newest = leftovers::children().into_iter().filter(is_launcher).max_by_key(|process| process.started);
    let victim = newest.unwrap();
    let ended = seam.ended(&sandbox);
    kill(&victim);
    if has_cgroups(subject) {
        assert_eq!(leftovers::eventually(|| leftovers::still_there(std::slice::from_ref(&victim))), [""; 0]);
        seam.goes_on(&sandbox).await;
        // Another launcher serves on, and the slot of the dead one is given up in the end.
        let (next, _) = seam.create("sb-next").await;
        let record = seam.halt(sandbox).await;
        let sandbox = seam.revive(&seam.spec(ID, LIMITS), &record).await;
        assert_eq!(seam.leaks(&[]).await, []);
        seam.destroy(sandbox).await;
        seam.destroy(next).await;
    } else {
        assert!(!ended.await.is_empty());
        // Its files are there.
        let record = seam.halt(sandbox).await;
        let sandbox = seam.revive(&seam.spec(ID, LIMITS), &record).await;
        seam.ok(&sandbox, "[ -s /tmp/ticks ]").await;
        seam.destroy(sandbox).await;
    }
    assert_eq!(seam.leaks(&[]).await, []);
    seam.stop().await;
}

pub(crate) async fn with_server_and_launcher_killed_it_is_adopted_where_there_are_cgroups(subject: &Subject) {
    let site = Site::of(subject);
    for launcher_first in [true, false] {
        let server = Server::start(&site, &["keep"]);
        let victim = launcher(server.children());
        let record = if launcher_first {
            kill(&victim);
            server.kill()
        } else {
            let record = server.kill();
            kill(&victim);
            record
        };
        let seam = Seam::start(site.clone(), known(&record)).await;
        match seam.adopt(&seam.spec(ID, LIMITS), &record).await {
            Found::Live { handle, .. } if has_cgroups(subject) => {
                seam.goes_on(&handle).await;
                seam.destroy(handle).await;
            }
            Found::Stopped { .. } if !has_cgroups(subject) => seam.remove(ID, Some(&record)).await,
            other => panic!("{other:?}"),
        }
        subject.is_clean().await;
        assert_eq!(seam.leaks(&[]).await, []);
        seam.stop().await;
    }
}

pub(crate) async fn the_launcher_ends_with_the_last_sandbox_that_it_keeps(subject: &Subject) {
    let site = Site::of(subject);
    let server = Server::start(&site, &["keep"]);
    let first = launcher(server.children());
    let record = server.kill();
    let seam = Seam::start(site, known(&record)).await;
    let (sandbox, _) = seam.live(&seam.spec(ID, LIMITS), &record).await;
    assert_eq!(leftovers::still_there(std::slice::from_ref(&first)).len(), 1);
    // It holds nobody up who reads what the server said.
    let stderr = fs::read_link(format!("/proc/{}/fd/2", first.pid)).unwrap();
    assert_eq!(stderr.to_str(), Some("/dev/null"));
    let record = seam.halt(sandbox).await;
    assert_eq!(leftovers::eventually(|| leftovers::still_there(std::slice::from_ref(&first))), [""; 0]);
    seam.remove(ID, Some(&record)).await;
    seam.stop().await;
}

pub(crate) async fn another_host_boot_is_known(subject: &Subject) {
    let site = Site::of(subject);
    let seam = Seam::start(site.clone(), Vec::new()).await;
    let (sandbox, mut record) = seam.create(ID).await;
    seam.ok(&sandbox, "echo kept >/tmp/kept").await;
    let stopped = seam.halt(sandbox).await;
    seam.stop().await;
    record.0["live"]["boot_id"] = "another".into();
    let seam = Seam::start(site, known(&record)).await;
    match seam.adopt(&seam.spec(ID, LIMITS), &record).await {
        Found::Stopped { reason } => assert_eq!(reason, "host_rebooted"),
        other => panic!("{other:?}"),
    }
    // Its record revives it as that of a stop does.
    assert_eq!(record.0["files"], stopped.0["files"]);
    let sandbox = seam.revive(&seam.spec(ID, LIMITS), &record).await;
    assert_eq!(seam.ok(&sandbox, "cat /tmp/kept").await, "kept");
    seam.destroy(sandbox).await;
    match seam.adopt(&seam.spec(ID, LIMITS), &record).await {
        Found::Gone { reason } => assert_eq!(reason, "host_rebooted"),
        other => panic!("{other:?}"),
    }
    seam.stop().await;
}

pub(crate) async fn a_process_that_is_not_the_sandboxs_is_left_alone(subject: &Subject) {
    let site = Site::of(subject);
    let mut record = Server::start(&site, &["keep"]).kill();
    let whole = record.clone();
    // As if the PID had come to somebody else since.
    let mut bystander = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    record.0["live"]["init"]["pid"] = bystander.id().into();
    let seam = Seam::start(site, known(&record)).await;
    let found = seam.adopt(&seam.spec(ID, LIMITS), &record).await;
    assert!(matches!(found, Found::Stopped { .. }), "{found:?}");
    // Without cgroups nothing but the true record finds it.
    seam.remove(ID, Some(&whole)).await;
    seam.remove(ID, Some(&record)).await;
    assert!(bystander.try_wait().unwrap().is_none(), "it was killed");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    subject.is_clean().await;
    seam.stop().await;
}

pub(crate) async fn ids_that_another_gateway_has_taken_meanwhile_end_it(subject: &Subject) {
    let site = Site::of(subject);
    let server = Server::start(&site, &["keep"]);
    let victim = launcher(server.children());
    kill(&victim);
    let record = server.kill();
    if !is_root() {
        // The ids are the user's own, whoever else uses them.
        let seam = Seam::start(site, known(&record)).await;
        seam.remove(ID, Some(&record)).await;
        return seam.stop().await;
    }
    let block = record.0["live"]["slot"].as_u64().unwrap() / 64;
    let path = format!("/run/faas/ids-{block}");
    let lock = fs::File::options().write(true).open(&path).unwrap();
    // Whoever held it ends soon; and then a gateway of another test may be faster.
    while rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
        && fs::read_to_string(&path).unwrap() == format!("faas-{}", site.gateway_id())
    {
        leftovers::pause(std::time::Duration::from_millis(5));
    }
    let seam = Seam::start(site, known(&record)).await;
    match seam.adopt(&seam.spec(ID, LIMITS), &record).await {
        Found::Stopped { reason } => assert!(reason.contains("another gateway"), "{reason}"),
        other => panic!("{other:?}"),
    }
    drop(lock);
    let sandbox = seam.revive(&seam.spec(ID, LIMITS), &record).await;
    seam.ok(&sandbox, "[ -s /tmp/ticks ]").await;
    seam.destroy(sandbox).await;
    subject.is_clean().await;
    seam.stop().await;
}

pub(crate) async fn what_bears_the_gateways_mark_and_is_nobodys_is_told(subject: &Subject) {
    let site = Site::of(subject);
    let seam = Seam::start(site.clone(), Vec::new()).await;
    let (sandbox, _) = seam.create(ID).await;
    assert_eq!(seam.leaks(&[]).await, []);
    let instances = site.data_dir().join("native/instances");
    assert_eq!(
        fs::metadata(&instances).unwrap().permissions().mode() & 0o7777,
        if is_root() { 0o700 } else { 0o711 }
    );
    let left = instances.join("sb-left");
    fs::create_dir(&left).unwrap();
    let mut wanted = vec![("directory", left.display().to_string())];
    let cgroups: Vec<_> = leftovers::marked(&[site.gateway_id()])
        .into_iter()
        .filter_map(|line| Some(std::path::PathBuf::from(line.strip_prefix("cgroup ")?)))
        .filter(|path| path.ends_with(format!("faas-{}", site.gateway_id())))
        .map(|path| path.join("slot-4001"))
        .collect();
    assert_eq!(cgroups.is_empty(), !has_cgroups(subject));
    for cgroup in &cgroups {
        fs::create_dir(cgroup).unwrap();
        wanted.push(("cgroup", cgroup.display().to_string()));
    }
    let mut leaks: Vec<_> = seam.leaks(&[]).await.into_iter().map(|leak| (leak.kind, leak.name)).collect();
    leaks.sort();
    wanted.sort();
    assert_eq!(leaks, wanted);
    // One that the caller knows of is none.
    fs::remove_dir(&left).unwrap();
    for cgroup in &cgroups {
        fs::remove_dir(cgroup).unwrap();
    }
    assert_eq!(seam.leaks(&[]).await, []);
    // A sandbox that nobody has a handle of any more, and its caller does not know.
    drop(sandbox);
    let kinds: Vec<_> = seam.leaks(&[]).await.into_iter().map(|leak| leak.kind).collect();
    assert!(kinds.contains(&"directory"), "{kinds:?}");
    assert_eq!(kinds.contains(&"cgroup"), has_cgroups(subject), "{kinds:?}");
    assert_eq!(kinds.contains(&"loop device"), is_root(), "{kinds:?}");
    assert_eq!(seam.leaks(&[ID]).await, []);
    seam.remove(ID, None).await;
    assert_eq!(seam.leaks(&[]).await, []);
    subject.is_clean().await;
    seam.stop().await;
}
