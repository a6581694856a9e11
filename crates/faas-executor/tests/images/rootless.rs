//! The store of an ordinary user, with one id and with a range of them.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use faas_executor::images::{ImageErrorKind, ImageStore, ImageStoreConfig, ImportSource, UnpackMode};
use faas_test_support::needs;
use faas_test_support::users::User;
use futures_util::TryStreamExt as _;

use super::helper;
use super::layer::{Item, Layer};
use super::oci::{Compression, Image};

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
        let range: Option<(u32, u32)> =
            serde_json::from_slice(&fs::read(dir.join("range")).unwrap()).unwrap();
        assert_eq!(mode, if range.is_some() { "range" } else { "one" });
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
        let gid = rustix::process::getegid().as_raw();
        let expected =
            |u, g| range.map_or((uid, gid), |(first_uid, first_gid)| (first_uid + u, first_gid + g));
        assert_eq!(owner("none"), expected(5, 6));
        assert_eq!(owner("suid"), expected(0, 0));
        assert_eq!(owner(""), expected(0, 0));
        assert!(!root.join("gone").exists() && !root.join("null").exists());
        assert_eq!(fs::metadata(root.join("suid")).unwrap().permissions().mode() & 0o7777, 0o4755);
        assert_eq!(fs::read_to_string(root.join("etc/text")).unwrap(), "x");
        // What is exported is the image's, whoever has the files here.
        let name = "copy:1".parse().unwrap();
        let pieces = store.export(&leases[0], &name).await.unwrap().try_collect::<Vec<_>>().await.unwrap();
        let other = ImageStore::open(&dir.join("home/other"), config.clone()).await.unwrap();
        let source = ImportSource::Stream(Box::new(std::io::Cursor::new(pieces.concat())));
        let copy = other.import(source, None, |_| {}).await.unwrap();
        let copied = fs::symlink_metadata(copy[0].rootfs().join("none")).unwrap();
        assert_eq!(((copied.uid(), copied.gid()), copied.mode()), (expected(5, 6), 0o40000));
        let suid = fs::metadata(copy[0].rootfs().join("suid")).unwrap().permissions().mode();
        assert_eq!(suid & 0o7777, 0o4755);
        drop((copy, leases));
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

fn run(user: &User) {
    // Programs and archives in a place that everybody may read.
    let dir = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let exe = dir.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
    fs::set_permissions(&exe, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.path().join("range"), serde_json::to_vec(&user.range()).unwrap()).unwrap();
    image("x").write_layout(&dir.path().join("good"), None);
    let evil = Image::of(&[Layer::new().symlink("d", "/tmp").file("d/x", "").end()], Compression::None);
    evil.write_layout(&dir.path().join("evil"), None);
    fs::create_dir(dir.path().join("home")).unwrap();
    std::os::unix::fs::chown(dir.path().join("home"), Some(user.uid), Some(user.gid)).unwrap();
    let output = user.command(&exe).arg(helper::AS_USER).arg(dir.path()).env_clear().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn an_ordinary_user_has_a_store_without_any_setuid_program() {
    needs!(Root);
    run(&User::make(false));
}

#[test]
fn an_ordinary_user_with_a_range_keeps_owners() {
    needs!(Root, Uidmap);
    run(&User::make(true));
}
