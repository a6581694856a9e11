//! PostgreSQL that is not there, or goes and comes again.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use faas_executor::store::{Store as _, StoreError};
use faas_test_support::needs;

use crate::subject::{Location, Subject, TENANT, event, instance};

/// A server of the test's own (`scripts/test-postgres.sh`), which is gone with it.
struct Server {
    dir: PathBuf,
    _parent: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        // Its user is not ours, and has to get to the directory.
        let mode = std::fs::Permissions::from_mode(0o711);
        let parent = tempfile::Builder::new().prefix("faas-test-").permissions(mode).tempdir().unwrap();
        let server = Self { dir: parent.path().join("pg"), _parent: parent };
        server.call("start");
        server
    }

    fn call(&self, verb: &str) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/test-postgres.sh");
        let output = Command::new(script).arg(verb).arg(&self.dir).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{verb}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.call("stop");
    }
}

#[test]
fn a_server_that_was_restarted_is_used_again() {
    needs!(Root, Postgres);
    let server = Server::start();
    let url = server.call("url");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut subject = Subject::on(url).await;
        let store = subject.open().await;
        store.insert_instance(&instance("before", 1), Some(&event("before", 1))).await.unwrap();

        server.call("halt");
        let error = store.insert_instance(&instance("meanwhile", 2), None).await.unwrap_err();
        assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
        assert!(matches!(store.ping().await, Err(StoreError::Unreachable { .. })));

        server.call("start");
        store.ping().await.unwrap();
        store.insert_instance(&instance("after", 3), None).await.unwrap();
        let there = store.all_instances().await.unwrap();
        assert_eq!(there.iter().map(|there| &*there.id).collect::<Vec<_>>(), ["before", "after"]);

        // All its processes at once, as by the kernel for want of memory: it recovers from its log.
        store.update_instance(&there[0], Some(&event("before", 2))).await.unwrap();
        server.call("kill");
        server.call("start");
        assert_eq!(store.instance(TENANT, "before").await.unwrap().unwrap().revision, 2);
        assert_eq!(store.event_bounds().await.unwrap().newest, 2);
        subject.remove().await;
    });
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_at_once() {
    let location = Location("postgres://ann:geheim@localhost/faas?host=/nonexistent".to_owned());
    let error = faas_executor::store::AnyStore::open(&location.parsed(), "g").await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
    assert!(!error.to_string().contains("geheim"), "{error}");
}
