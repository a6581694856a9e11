//! Layers that try to get out, to take everything, or to break what reads them. Each is imported; nothing outside of
//! the store may change, and what is refused leaves nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use faas_executor::images::{ImageError, ImageErrorKind, ImageLease, ImageStore};
use faas_test_support::needs;
use proptest::prelude::*;

use super::layer::{Item, Layer};
use super::oci::{Compression, Image, compress};
use super::store::{Fixture, import, names, text, tree};

/// Something outside of the store that attacks are after.
struct Outside {
    fixture: Fixture,
    path: PathBuf,
    before: BTreeMap<String, String>,
}

impl Outside {
    fn new() -> Self {
        let mut fixture = Fixture::new();
        fixture.config.max_bytes = 2 << 20;
        fixture.config.max_entries = 1000;
        let path = fixture.dir.path().join("outside");
        fs::create_dir(&path).unwrap();
        // Open to everybody, so that permissions are not what stops an attack.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(fixture.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(path.join("secret"), "secret").unwrap();
        fs::set_permissions(path.join("secret"), fs::Permissions::from_mode(0o666)).unwrap();
        let before = tree(&path);
        Self { fixture, path, before }
    }

    fn text(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    fn assert_untouched(&self, what: &str) {
        assert_eq!(tree(&self.path), self.before, "{what}");
        let siblings = names(self.fixture.dir.path());
        let strange =
            siblings.iter().find(|name| !name.starts_with("images") && !name.starts_with("outside"));
        assert_eq!(strange, None, "{what}");
    }
}

async fn one(store: &ImageStore, tar: Vec<u8>) -> Result<ImageLease, ImageError> {
    import(store, &Image::of(&[tar], Compression::Gzip)).await
}

fn item<'a>(kind: u8, name: &'a [u8], link: &'a [u8]) -> Item<'a> {
    Item { kind, name, link, ..Item::default() }
}

#[tokio::test]
async fn layers_that_reach_out_are_refused() {
    needs!(Root);
    let outside = Outside::new();
    let store = outside.fixture.open().await;
    let target = outside.text();
    let secret = format!("{target}/secret");
    let up = "../".repeat(12) + &target[1..];
    let deep = "d/".repeat(300) + "x";
    let long = "n".repeat(256);
    let path = format!("{}/", "n".repeat(250)).repeat(17);
    let new = Layer::new;
    let attacks: Vec<(&str, Vec<u8>, &str)> = vec![
        ("..", new().file("../escape", "x").end(), "leads out"),
        (".. in the middle", new().file("a/../../escape", "x").end(), "leads out"),
        (".. that stays inside", new().file("a/../b", "x").end(), "leads out"),
        (".. as a directory", new().dir("..", 0o777).end(), "leads out"),
        ("absolute and ..", new().file(&format!("/../../{secret}"), "x").end(), "leads out"),
        ("a link as parent", new().symlink("d", &target).file("d/secret", "x").end(), "no directory"),
        ("a relative link as parent", new().symlink("d", &up).file("d/secret", "x").end(), "no directory"),
        ("a link to / as parent", new().symlink("d", "/").file("d/etc/x", "x").end(), "no directory"),
        (
            "a link inside as parent",
            new().dir("a", 0o755).symlink("d", "a").file("d/x", "x").end(),
            "no directory",
        ),
        (
            "a link as grandparent",
            new().dir("a", 0o755).symlink("a/d", &target).dir("a/d/e/", 0o755).end(),
            "no directory",
        ),
        (
            "a directory that becomes a link",
            new().dir("d", 0o755).file("d/x", "").symlink("d", &target).file("d/secret", "x").end(),
            "no directory",
        ),
        (
            "a whiteout through a link",
            new().symlink("d", &target).file("d/.wh..wh..opq", "").end(),
            "no directory",
        ),
        ("a file as parent", new().file("f", "").file("f/x", "").end(), "no directory"),
        ("a fifo as parent", new().item(item(b'6', b"f", b"")).file("f/x", "").end(), "no directory"),
        ("a hard link out", new().hard_link("x", &secret).end(), "nothing in this layer"),
        ("a hard link up", new().hard_link("x", &up).end(), "leads out"),
        (
            "a hard link through a link",
            new().symlink("d", &target).hard_link("x", "d/secret").end(),
            "nothing",
        ),
        ("a hard link to a directory", new().dir("d", 0o755).hard_link("x", "d").end(), "directory"),
        ("a hard link to itself", new().file("x", "").hard_link("x", "./x").end(), "itself"),
        ("a hard link to the root", new().hard_link("x", "/").end(), "root"),
        ("a hard link to what it replaces", new().file("d/x", "").hard_link("d", "d/x").end(), "nothing"),
        ("a hard link to nothing", new().hard_link("x", "").end(), "root"),
        ("a link to nothing", new().symlink("x", "").end(), "no path"),
        ("a link that is too long", new().symlink("x", &"a".repeat(5000)).end(), "no path"),
        ("a name that is too long", new().file(&long, "").end(), "255"),
        ("a path that is too long", new().file(&path, "").end(), "4095"),
        ("a path that is too deep", new().file(&deep, "").end(), "256"),
        ("a name with NUL", new().pax(&[("path", b"a\0b")]).file("x", "").end(), "NUL"),
        ("a whiteout of ..", new().file("d/.wh...", "").end(), "whiteouts"),
        ("a whiteout of .", new().file("d/.wh..", "").end(), "whiteouts"),
        ("a whiteout of nothing", new().file(".wh.", "").end(), "whiteouts"),
        ("below a whiteout", new().file(".wh.x/y", "").end(), "whiteouts"),
        ("a root that is a file", new().file("./", "").item(item(b'0', b".", b"")).end(), "without a name"),
        ("a root that is a link", new().symlink("/", &target).end(), "without a name"),
        ("a kind that nobody knows", new().item(item(b'M', b"x", b"")).end(), "unknown kind"),
    ];
    for (what, tar, words) in attacks {
        let error = one(&store, tar).await.expect_err(what);
        let is_corrupt = matches!(error, ImageError::CorruptLayer { .. });
        assert!(is_corrupt && error.to_string().contains(words), "{what}: {error}");
        assert_eq!(error.kind(), ImageErrorKind::Unavailable);
        outside.assert_untouched(what);
        outside.fixture.assert_empty();
    }
}

#[tokio::test]
async fn strange_layers_are_unpacked_inside() {
    needs!(Root);
    let outside = Outside::new();
    let store = outside.fixture.open().await;
    let target = outside.text();
    let secret = format!("{target}/secret");
    let absolute = [&secret[1..]];
    let new = Layer::new;
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("absolute names", new().file(&secret, "x").file("//a///b/", "").end(), &absolute),
        ("a link that is replaced", new().symlink("x", &secret).file("x", "mine").end(), &["x"]),
        (
            "a link that becomes a directory",
            new().symlink("d", &target).dir("d", 0o700).file("d/secret", "mine").end(),
            &["d", "d/secret"],
        ),
        (
            "a link that is linked and replaced",
            new().symlink("x", &secret).hard_link("y", "x").file("y", "mine").end(),
            &["x", "y"],
        ),
        (
            "a directory that becomes a file",
            new().dir("d", 0o000).dir("d/e", 0o000).file("d/e/f", "").file("d", "mine").end(),
            &["d"],
        ),
        ("device nodes", new().item(item(b'3', b"null", b"")).item(item(b'4', b"sda", b"")).end(), &[]),
        ("a loop of links", new().symlink("a", "b").symlink("b", "a").end(), &["a", "b"]),
        (
            "the bookkeeping of aufs",
            new().dir(".wh..wh.plnk", 0o700).file(".wh..wh.plnk/1", "").file(".wh..wh.aufs", "").end(),
            &[],
        ),
        (
            "names that look like more",
            new().file("...", "").file("a\\..\\b", "").file("~", "").end(),
            &["...", "a\\..\\b", "~"],
        ),
        ("a name with a newline", new().file("a\nb\u{1b}[31m", "").end(), &["a\nb\u{1b}[31m"]),
    ];
    for (what, tar, expected) in cases {
        let lease = one(&store, tar).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        let seen = names(lease.rootfs());
        for name in expected {
            assert!(seen.iter().any(|seen| seen == name), "{what}: {seen:?}");
        }
        assert!(!expected.is_empty() || seen.is_empty(), "{what}: {seen:?}");
        for name in ["x", "y", "d", "d/secret"] {
            let path = lease.rootfs().join(name);
            if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file()) {
                assert_eq!(fs::read_to_string(path).unwrap(), "mine", "{what}");
            }
        }
        outside.assert_untouched(what);
    }
    let bytes =
        new().item(item(b'0', b"caf\xe9/\xff\xfe", b"")).item(item(b'5', b"\xf0\x9f\x92\xa9", b"")).end();
    let lease = one(&store, bytes).await.unwrap();
    assert_eq!(fs::read_dir(lease.rootfs()).unwrap().count(), 2);
    drop(lease);
    for image in store.list().await.unwrap() {
        store.remove(&image.id.to_string()).await.unwrap();
    }
    outside.fixture.assert_empty();
}

#[tokio::test]
async fn a_later_entry_of_the_same_name_wins() {
    needs!(Root);
    let outside = Outside::new();
    let store = outside.fixture.open().await;
    let tar = Layer::new()
        .file("f", "1")
        .file("f", "2")
        .dir("d", 0o700)
        .file("d/kept", "")
        .dir("d", 0o711)
        .file("linked", "old")
        .hard_link("to", "linked")
        .file("linked", "new")
        .end();
    let lease = one(&store, tar).await.unwrap();
    assert_eq!(
        (text(&lease, "f"), text(&lease, "linked"), text(&lease, "to")),
        ("2".into(), "new".into(), "old".into())
    );
    assert_eq!(fs::metadata(lease.rootfs().join("d")).unwrap().mode() & 0o7777, 0o711);
    assert!(lease.rootfs().join("d/kept").exists());
}

#[tokio::test]
async fn links_of_a_lower_layer_are_not_followed_by_an_upper_one() {
    needs!(Root);
    let outside = Outside::new();
    let store = outside.fixture.open().await;
    let lower = Layer::new().symlink("d", &outside.text()).symlink("e", "/").end();
    let upper = Layer::new().file("d/secret", "mine").file("e/.wh.etc", "").hard_link("x", "d/secret").end();
    let lease = import(&store, &Image::of(&[lower, upper], Compression::None)).await.unwrap();
    assert_eq!(text(&lease, "d/secret"), "mine");
    assert!(fs::symlink_metadata(lease.rootfs().join("d")).unwrap().is_dir());
    outside.assert_untouched("a lower link");
}

#[tokio::test]
async fn bombs_end_at_the_limits() {
    needs!(Root);
    let outside = Outside::new();
    let store = outside.fixture.open().await;
    let mut zeros = Layer::new();
    zeros.header(&Item { name: b"zeros", ..Item::default() }, 1 << 30);
    let mut zeros = zeros.cut();
    zeros.resize(zeros.len() + (8 << 20), 0);
    let huge = Layer::new().pax(&[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"huge"),
        ("GNU.sparse.realsize", b"1125899906842624"),
    ]);
    let huge = huge
        .item(Item { name: b"x", data: &[b"0\n".as_slice(), &[0; 510]].concat(), ..Item::default() })
        .end();
    let many = (0..1200).fold(Layer::new(), |tar, number| tar.file(&number.to_string(), "")).end();
    let implied = (0..600).fold(Layer::new(), |tar, number| tar.file(&format!("{number}/a"), "")).end();
    let mut long = Layer::new();
    long.header(&Item { kind: b'L', name: b"x", ..Item::default() }, 1 << 40);
    let mut behind = Layer::new().file("x", "").end();
    behind.resize(behind.len() + (8 << 20), 0);
    for (what, tar) in [
        ("a file of zeros", zeros),
        ("a petabyte of holes", huge),
        ("too many entries", many),
        ("too many implied directories", implied),
        ("zeros behind the end", behind),
    ] {
        for compression in [Compression::Gzip, Compression::Zstd] {
            let error =
                import(&store, &Image::of(std::slice::from_ref(&tar), compression)).await.expect_err(what);
            assert!(matches!(error, ImageError::TooLarge { .. }), "{what}: {error}");
            assert_eq!(error.kind(), ImageErrorKind::NoSpace);
            outside.fixture.assert_empty();
        }
    }
    let error = one(&store, long.cut()).await.unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
    // Two layers that each fit and do not fit together.
    let data = "x".repeat(3 << 19);
    let half = |name: &str| Layer::new().file(name, &data).end();
    let image = Image::of(&[half("a"), half("b")], Compression::Zstd);
    let error = import(&store, &image).await.unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
    outside.fixture.assert_empty();
}

#[tokio::test]
async fn a_zstd_window_that_wants_all_memory_is_refused() {
    needs!(Root);
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let tar = Layer::new().file("x", &"y".repeat(1 << 20)).end();
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.set_parameter(zstd::zstd_safe::CParameter::WindowLog(30)).unwrap();
    encoder.include_contentsize(false).unwrap();
    encoder.write_all(&tar).unwrap();
    let bytes = encoder.finish().unwrap();
    let mut image = Image::of(&[tar], Compression::Zstd);
    replace_layer(&mut image, bytes);
    let error = import(&store, &image).await.unwrap_err();
    assert!(matches!(error, ImageError::CorruptLayer { .. }), "{error}");
    fixture.assert_empty();
}

/// Gives an image other bytes for its only layer and makes the manifest right for them.
fn replace_layer(image: &mut Image, bytes: Vec<u8>) {
    let (old, new) = (image.layers[0], faas_executor::images::Digest::of(&bytes));
    let manifest = String::from_utf8(image.blobs.remove(&image.manifest).unwrap()).unwrap();
    let size = image.blobs.remove(&old).unwrap().len();
    let manifest = manifest
        .replace(&old.to_string(), &new.to_string())
        .replace(&format!("\"size\":{size}"), &format!("\"size\":{}", bytes.len()))
        .into_bytes();
    image.blobs.insert(new, bytes);
    image.layers = vec![new];
    image.manifest = faas_executor::images::Digest::of(&manifest);
    image.blobs.insert(image.manifest, manifest);
}

#[tokio::test]
async fn damaged_layers_are_refused_and_leave_nothing() {
    needs!(Root);
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let tar = Layer::new().file("a", &"text ".repeat(20_000)).file("b", "").end();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let whole = compress(&tar, compression);
        let mut flipped = whole.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 0x55;
        for (what, bytes) in [
            ("cut", whole[..whole.len() / 2].to_vec()),
            ("a bit flipped", flipped),
            ("garbage behind", [whole.as_slice(), b"garbage"].concat()),
            ("nothing", Vec::new()),
            ("xz", b"\xfd7zXZ\0".to_vec()),
        ] {
            // Damaged before the image was built: the digest of the bytes is right.
            let mut image = Image::of(std::slice::from_ref(&tar), compression);
            replace_layer(&mut image, bytes.clone());
            let error = import(&store, &image).await.expect_err(what);
            let is_right =
                matches!(error, ImageError::CorruptLayer { .. } | ImageError::DigestMismatch { .. });
            assert!(is_right, "{what}: {error}");
            fixture.assert_empty();
            // Damaged on the way: the digest is what is wrong.
            let mut image = Image::of(std::slice::from_ref(&tar), compression);
            let layer = image.layers[0];
            image.blobs.insert(layer, bytes);
            let error = import(&store, &image).await.expect_err(what);
            let is_right = matches!(error, ImageError::DigestMismatch { .. });
            assert!(is_right, "{what} on the way: {error}");
            fixture.assert_empty();
        }
    }
    import(&store, &Image::of(&[tar], Compression::Gzip)).await.unwrap();
}

#[tokio::test]
async fn what_the_configuration_does_not_promise_is_refused() {
    needs!(Root);
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let other = faas_executor::images::Digest::of(b"another layer").to_string();
    let config = serde_json::json!({ "rootfs": { "type": "layers", "diff_ids": [other] } });
    let image = Image::with_config(&[Layer::new().file("x", "").end()], Compression::Gzip, &config);
    let error = import(&store, &image).await.unwrap_err();
    assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
    fixture.assert_empty();
}

#[tokio::test]
async fn a_full_disk_is_said_and_the_next_try_works() {
    needs!(Root);
    let fixture = Fixture::new();
    let images = fixture.path();
    fs::create_dir(&images).unwrap();
    let mounted = Mounted::tmpfs(&images, "size=24m,mode=0700");
    let store = fixture.open().await;
    let mut data = tempfile::tempfile().unwrap();
    data.seek(SeekFrom::Start(0)).unwrap();
    let big = Layer::new().file("big", &"0123456789abcdef".repeat(2 << 20)).end();
    let error = import(&store, &Image::of(&[big], Compression::Zstd)).await.unwrap_err();
    assert!(matches!(error, ImageError::NoSpace { .. }), "{error}");
    fixture.assert_empty();
    let spooled = super::store::import_tar(&store, vec![b'x'; 30 << 20]).await.unwrap_err();
    assert!(matches!(spooled, ImageError::NoSpace { .. }), "{spooled}");
    fixture.assert_empty();
    let lease = import(&store, &Image::small("fits")).await.unwrap();
    assert_eq!(text(&lease, "etc/text"), "fits");
    drop((lease, store));
    drop(mounted);
}

/// A mount that goes with the test.
struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(at: &Path, options: &str) -> Self {
        let options = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount(
            "faas-test",
            at,
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            options.as_c_str(),
        )
        .unwrap();
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

fn hostile() -> impl Strategy<Value = Vec<(u8, String, String)>> {
    let part = prop::sample::select(vec!["a", "b", "..", ".", "", ".wh.a", ".wh..wh..opq", "OUT"]);
    let path = prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"));
    let kind = prop::sample::select(vec![b'0', b'1', b'2', b'5', b'6', b'3']);
    prop::collection::vec((kind, path.clone(), path), 1..12)
}

#[test]
fn no_sequence_of_entries_reaches_out() {
    needs!(Root);
    let outside = Outside::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let store = runtime.block_on(outside.fixture.open());
    let up = "../".repeat(12) + &outside.text()[1..];
    let config = ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(entries in hostile())| {
        let tar = entries.iter().fold(Layer::new(), |tar, (kind, name, link)| {
            let (name, link) = (name.replace("OUT", &outside.text()), link.replace("OUT", &up));
            tar.item(Item { kind: *kind, name: name.as_bytes(), link: link.as_bytes(), ..Item::default() })
        });
        if let Ok(lease) = runtime.block_on(one(&store, tar.end())) {
            let id = lease.id().to_string();
            drop(lease);
            runtime.block_on(store.remove(&id)).unwrap();
        }
        outside.assert_untouched("a sequence of entries");
        outside.fixture.assert_empty();
    });
}
