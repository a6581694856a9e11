//! Processes that die in the middle.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use faas_executor::images::ImageError;
use faas_test_support::needs;

use super::helper;
use super::layer::Layer;
use super::oci::{Compression, Image};
use super::store::{Fixture, import, text};

fn image() -> Image {
    let tar = |name: &str| {
        (0..300).fold(Layer::new(), |tar, n| tar.file(&format!("{name}/{n}"), &"text".repeat(5000))).end()
    };
    Image::of(&[tar("a"), tar("b"), tar("c")], Compression::None)
}

/// Runs in a process that is going to be killed.
pub(crate) fn import_in(dir: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let config = faas_executor::images::ImageStoreConfig::new(std::env::current_exe().unwrap());
    runtime.block_on(async {
        let store = faas_executor::images::ImageStore::open(&dir.join("images"), config).await.unwrap();
        println!("open");
        let source = faas_executor::images::ImportSource::Path(dir.join("layout"));
        store.import(source, None, |_| {}).await.unwrap();
        println!("done");
    });
}

/// The unpack processes of this test: those whose parent is `parent`.
fn children(parent: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after = stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned()).unwrap_or_default();
        let mut fields = after.split(' ');
        fields.next() != Some("Z") && fields.next() == Some(&parent.to_string())
    })
    .collect()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    match rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn an_importing_process_that_is_killed_leaves_nothing_that_the_next_one_does_not_clear() {
    needs!(Root);
    let fixture = Fixture::new();
    let image = image();
    image.write_layout(&fixture.dir.path().join("layout"), None);
    // Killed at many moments, from before the first byte to after the last.
    let mut survived = 0;
    for moment in 0..14 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(helper::IMPORT)
            .arg(fixture.dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20 + moment * 25)).await;
        let helpers = children(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        fixture
            .until("the unpack processes end with it", || {
                helpers.iter().all(|pid| {
                    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                    stat.is_empty() || stat.contains(") Z")
                })
            })
            .await;
        // A process that the killed one was just starting holds a copy of its locks until it is another program.
        let mut store = fixture.open().await;
        for _ in 0..50 {
            if fixture.count("tmp") == 0 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            store = fixture.open().await;
        }
        fixture.assert_nothing_half_made();
        match store.get(&image.config.to_string()).unwrap() {
            Some(lease) => {
                survived += 1;
                assert_eq!(text(&lease, "c/299").len(), 20_000);
                drop(lease);
                store.remove(&image.config.to_string()).await.unwrap();
            }
            None => fixture.assert_empty(),
        }
    }
    println!("{survived} of 14 had finished");
    let store = fixture.open().await;
    let lease = import(&store, &image).await.unwrap();
    assert_eq!(text(&lease, "a/0").len(), 20_000);
    assert_eq!(fixture.count("layers"), 3);
}

#[tokio::test]
async fn whatever_a_dead_process_left_is_cleared_by_the_next() {
    needs!(Root);
    let fixture = Fixture::new();
    drop(fixture.open().await);
    let path = fixture.path();
    let hex = "ab".repeat(32);
    for dir in [
        "tmp/nothing",
        "tmp/no-root/layer",
        "tmp/not-given-away/layer/root",
        "tmp/trash/i-x/root",
        &format!("layers/{hex}/root/a"),
        &format!("images/{hex}/root/a"),
    ] {
        fs::create_dir_all(path.join(dir)).unwrap();
    }
    fs::set_permissions(path.join("tmp/not-given-away/layer/root"), fs::Permissions::from_mode(0o700))
        .unwrap();
    for file in ["tmp/file/archive", "tmp/meta/layer/meta"] {
        fs::create_dir_all(path.join(file).parent().unwrap()).unwrap();
        fs::write(path.join(file), "x").unwrap();
    }
    std::os::unix::fs::symlink("/", path.join("tmp/file/link")).unwrap();
    fs::write(path.join("index.new"), "half").unwrap();
    let store = fixture.open().await;
    fixture.assert_empty();
    import(&store, &Image::small("x")).await.unwrap();
    assert!(!path.join("index.new").exists());
}

#[tokio::test]
async fn an_unpack_process_that_is_killed_is_a_clean_error() {
    needs!(Root);
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let image = image();
    let (killed, stop) =
        (std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0)), tokio::sync::watch::channel(()));
    let killer = tokio::spawn({
        let (killed, mut stopped) = (std::sync::Arc::clone(&killed), stop.1);
        async move {
            while !stopped.has_changed().unwrap_or(true) {
                for outer in children(std::process::id()) {
                    // Alternately the one that waits and the one that works.
                    let inner = children(outer);
                    let number = killed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    kill(if number % 2 == 0 { outer } else { inner.first().copied().unwrap_or(outer) });
                }
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
            let _last = stopped.changed().await;
        }
    });
    let error = import(&store, &image).await.unwrap_err();
    assert!(matches!(error, ImageError::Helper { .. }), "{error}");
    drop(stop.0);
    killer.await.unwrap();
    assert!(killed.load(std::sync::atomic::Ordering::Relaxed) > 0);
    let store = fixture.open().await;
    fixture.assert_empty();
    let lease = import(&store, &image).await.unwrap();
    assert_eq!(text(&lease, "b/7").len(), 20_000);
}

#[tokio::test]
async fn a_helper_that_is_something_else_is_said() {
    needs!(Root);
    let mut fixture = Fixture::new();
    for (program, words) in
        [("/bin/false", "status 1"), ("/no/such/program", "cannot start"), ("/bin/echo", "unexpected")]
    {
        fixture.config.helper_exe = program.into();
        let store = fixture.open().await;
        let error = import(&store, &Image::small("x")).await.unwrap_err();
        assert!(matches!(error, ImageError::Helper { .. }) && error.to_string().contains(words), "{error}");
    }
    let good = Fixture::new();
    fixture.config.helper_exe = good.config.helper_exe.clone();
    let store = fixture.open().await;
    fixture.assert_empty();
    import(&store, &Image::small("x")).await.unwrap();
}
