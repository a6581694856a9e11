//! The store of an ordinary user, with one id and with a range of them.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use faas_executor::images::{ImageErrorKind, ImageStore, ImageStoreConfig, ImportSource, UnpackMode};
use faas_test_support::needs;

use super::helper;
use super::layer::{Item, Layer};
use super::oci::{Compression, Image};

/// Users that the machine does not have: one with its own id alone, and one to whom a test gives a range.
const ALONE: u32 = 54_242;
const WITH_RANGE: u32 = 54_243;

/// The ids that a range test gives to it.
const FIRST: u32 = 1_660_000_000;

fn image(text: &str) -> Image {
    let item = |name: &'static [u8], kind, mode, owner| Item { kind, name, mode, owner, ..Item::default() };
    let lower = Layer::new()
        .item(item(b"none", b'5', 0o000, (5, 6)))
        .item(item(b"none/inside", b'0', 0o000, (7, 7)))
        .item(item(b"suid", b'0', 0o4755, (0, 0)))
        .item(item(b"null", b'3', 0o666, (0, 0)))
        .file("gone", "")
        .end();
    let upper = Layer::new().file(".wh.gone", "").dir("etc", 0o755).file("etc/text", text).end();
    Image::of(&[lower, upper], Compression::Gzip)
}

/// Runs as that user.
pub(crate) fn as_user(dir: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let config = ImageStoreConfig::new(std::env::current_exe().unwrap());
    runtime.block_on(async {
        let uid = rustix::process::geteuid().as_raw();
        let mode = match config.unpack {
            UnpackMode::SingleId => "one",
            UnpackMode::Subordinate { .. } => "range",
            UnpackMode::Rootful => "root",
        };
        assert_eq!(mode, fs::read_to_string(dir.join("mode")).unwrap());
        let path = dir.join("home/images");
        let store = ImageStore::open(&path, config.clone()).await.unwrap();
        let import = |name: &str| store.import(ImportSource::Path(dir.join(name)), None, |_| {});
        let error = import("evil").await.unwrap_err();
        assert_eq!(error.kind(), ImageErrorKind::Unavailable, "{error}");
        let leases = import("good").await.unwrap();
        let root = leases[0].rootfs().to_owned();
        let owner = |name: &str| {
            let meta = fs::symlink_metadata(root.join(name)).unwrap();
            (meta.uid(), meta.gid())
        };
        let expected = |u, g| if mode == "range" { (FIRST + u, FIRST + g) } else { (uid, uid) };
        assert_eq!(owner("none"), expected(5, 6));
        assert_eq!(owner("suid"), expected(0, 0));
        assert_eq!(owner(""), expected(0, 0));
        assert!(!root.join("gone").exists() && !root.join("null").exists());
        assert_eq!(fs::metadata(root.join("suid")).unwrap().permissions().mode() & 0o7777, 0o4755);
        assert_eq!(fs::read_to_string(root.join("etc/text")).unwrap(), "x");
        drop(leases);
        let id = store.list().await.unwrap()[0].id.to_string();
        // Twice, so that what was removed can be had again.
        for _ in 0..2 {
            store.remove(&id).await.unwrap();
            for name in ["layers", "images", "tmp"] {
                assert_eq!(fs::read_dir(path.join(name)).unwrap().count(), 0, "{name}");
            }
            import("good").await.unwrap();
        }
        store.remove(&id).await.unwrap();
    });
}

/// The name of the user with a range: newuidmap(1) serves only users that have one.
const NAME: &str = "faas-images-test";

/// Makes the user, and gives it ids, for as long as this lives.
struct Ranges(Vec<PathBuf>);

impl Ranges {
    fn give() -> Self {
        let uid = WITH_RANGE.to_string();
        assert!(Command::new("groupadd").args(["--gid", &uid, NAME]).status().unwrap().success());
        let user = [
            "--no-create-home",
            "--no-log-init",
            "--gid",
            &uid,
            "--uid",
            &uid,
            "--key",
            "SUB_UID_COUNT=0",
            NAME,
        ];
        assert!(Command::new("useradd").args(user).status().unwrap().success());
        let paths = ["/etc/subuid", "/etc/subgid"].map(PathBuf::from).to_vec();
        for path in &paths {
            let mut text = fs::read_to_string(path).unwrap_or_default();
            text.push_str(&format!("{WITH_RANGE}:{FIRST}:65536\n"));
            fs::write(path, text).unwrap();
        }
        Self(paths)
    }
}

impl Drop for Ranges {
    fn drop(&mut self) {
        for path in &self.0 {
            let text = fs::read_to_string(path).unwrap();
            let rest: String = text
                .lines()
                .filter(|line| !line.starts_with(&format!("{WITH_RANGE}:")))
                .map(|l| format!("{l}\n"))
                .collect();
            fs::write(path, rest).unwrap();
        }
        assert!(Command::new("userdel").arg(NAME).status().unwrap().success());
    }
}

fn run(uid: u32, mode: &str) {
    // Programs and archives in a place that everybody may read.
    let dir = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let exe = dir.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
    fs::set_permissions(&exe, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.path().join("mode"), mode).unwrap();
    image("x").write_layout(&dir.path().join("good"), None);
    let evil = Image::of(&[Layer::new().symlink("d", "/tmp").file("d/x", "").end()], Compression::None);
    evil.write_layout(&dir.path().join("evil"), None);
    fs::create_dir(dir.path().join("home")).unwrap();
    std::os::unix::fs::chown(dir.path().join("home"), Some(uid), Some(uid)).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid", &uid.to_string(), "--regid", &uid.to_string(), "--clear-groups"])
        .arg(&exe)
        .arg(helper::AS_USER)
        .arg(dir.path())
        .env_clear()
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn an_ordinary_user_has_a_store_without_any_setuid_program() {
    needs!(Root);
    run(ALONE, "one");
}

#[test]
fn an_ordinary_user_with_a_range_keeps_owners() {
    needs!(Root);
    if !Path::new("/usr/bin/newuidmap").exists() {
        println!("newuidmap is not installed (package uidmap): not tried");
        return;
    }
    let _ranges = Ranges::give();
    run(WITH_RANGE, "range");
}
