//! Archives of all kinds.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use faas_executor::images::{ImageError, ImageErrorKind, ImportSource};
use faas_test_support::needs;
use futures_util::TryStreamExt as _;

use super::layer::{Item, Layer};
use super::oci::{Compression, Image, compress, tar_of};
use super::store::{Fixture, STORE_IDS, import, import_tar, names, silent, text, tree};

fn layers() -> Vec<Vec<u8>> {
    vec![
        Layer::new()
            .dir("./", 0o755)
            .dir("etc/", 0o755)
            .file("etc/kept", "1")
            .file("etc/changed", "1")
            .file("etc/removed", "1")
            .dir("d/", 0o700)
            .file("d/below", "1")
            .dir("o/", 0o755)
            .file("o/below", "1")
            .symlink("link", "etc/kept")
            .file("kind", "a file")
            .end(),
        Layer::new()
            .dir("etc/", 0o750)
            .file("etc/changed", "2")
            .file("etc/.wh.removed", "")
            .file("d/new", "2")
            .dir("o/", 0o755)
            .file("o/.wh..wh..opq", "")
            .file("o/new", "2")
            .dir("kind/", 0o755)
            .file("kind/inside", "2")
            .file(".wh.link", "")
            .end(),
    ]
}

#[tokio::test]
async fn all_kinds_of_archives_give_the_same_tree() {
    needs!(Root);
    let mut trees = Vec::new();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let image = Image::of(&layers(), compression);
        let layout = tar_of(&image.layout(Some("x.example/a:1")));
        for outer in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let fixture = Fixture::new();
            let store = fixture.open().await;
            let lease = import_tar(&store, compress(&layout, outer)).await.unwrap();
            trees.push(tree(lease.rootfs()));
            assert_eq!(store.get("x.example/a:1").unwrap().unwrap().id(), image.config);
            fixture.assert_nothing_half_made();
        }
        let fixture = Fixture::new();
        trees.push(tree(import(&fixture.open().await, &image).await.unwrap().rootfs()));
    }
    let image = Image::of(&layers(), Compression::None);
    let (fixture, file) = (Fixture::new(), tempfile::NamedTempFile::new().unwrap());
    let store = fixture.open().await;
    fs::write(file.path(), image.docker_save(&["a:1", "b"])).unwrap();
    let leases = store.import(ImportSource::Path(file.path().to_owned()), None, silent()).await.unwrap();
    assert_eq!(store.get("docker.io/library/b:latest").unwrap().unwrap().id(), leases[0].id());
    trees.push(tree(leases[0].rootfs()));

    let expected = &trees[0];
    assert!(trees.iter().all(|tree| tree == expected));
    let ino = |path: std::path::PathBuf| fs::metadata(path).unwrap().ino();
    let layer =
        fs::read_dir(fixture.path().join("layers")).unwrap().map(|entry| entry.unwrap().path().join("root"));
    let layer = layer.into_iter().find(|root| root.join("d/below").exists()).unwrap();
    let rootfs = leases[0].rootfs();
    assert_eq!(ino(layer.join("d/below")), ino(rootfs.join("d/below")), "nothing is copied");
    let paths: Vec<&str> = expected.keys().map(String::as_str).collect();
    let wanted =
        ["d", "d/below", "d/new", "etc", "etc/changed", "etc/kept", "kind", "kind/inside", "o", "o/new"];
    assert_eq!(paths, wanted);
    assert_eq!(expected["etc"], "40750 0:0 1000000000 ");
    assert_eq!(expected["d"], "40700 0:0 1000000000 ", "the second layer only implies it");
    assert_eq!(expected["etc/changed"], "100644 0:0 1000000000 2");
}

#[tokio::test]
async fn what_the_image_says_of_itself_is_there() {
    needs!(Root);
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let lease = import(&store, &Image::small("x")).await.unwrap();
    let config = lease.config();
    assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/srv", "7"));
    assert_eq!(config.env[1], ("A".to_owned(), "b".to_owned()));
    assert_eq!(config.cmd, ["sh"]);
    let list = store.list().await.unwrap();
    assert_eq!(list.len(), 1);
    assert!(list[0].is_in_use && list[0].size_bytes > 0 && list[0].last_used_unix_ms > 0);
    assert_eq!(store.used_bytes().unwrap(), list[0].size_bytes);
    drop(lease);
    assert!(!store.list().await.unwrap()[0].is_in_use);
}

#[tokio::test]
async fn as_many_layers_as_allowed_are_one_directory() {
    needs!(Root);
    let tars: Vec<_> = (0..200)
        .map(|number| Layer::new().file(&format!("d/{number}"), "").file("top", &number.to_string()).end())
        .collect();
    let fixture = Fixture::new();
    let lease = import(&fixture.open().await, &Image::of(&tars, Compression::Gzip)).await.unwrap();
    assert_eq!(names(&lease.rootfs().join("d")).len(), 200);
    assert_eq!(text(&lease, "top"), "199");
}

#[tokio::test]
async fn the_same_layer_twice_and_an_image_without_layers() {
    needs!(Root);
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let tar = Layer::new().file("x", "1").end();
    let twice = Image::of(&[tar.clone(), Layer::new().file(".wh.x", "").end(), tar], Compression::None);
    let lease = import_tar(&store, twice.docker_save(&[])).await.unwrap();
    assert_eq!(text(&lease, "x"), "1");
    assert_eq!(fixture.count("layers"), 2);
    let none = import(&store, &Image::of(&[], Compression::None)).await.unwrap();
    assert!(names(none.rootfs()).is_empty());
    assert_eq!(fs::metadata(none.rootfs()).unwrap().permissions().mode() & 0o7777, 0o755);
}

/// The names of a file's extended attributes.
fn xattrs(path: &std::path::Path) -> String {
    let mut names = vec![0u8; 4096];
    let len = rustix::fs::listxattr(path, &mut names[..]).unwrap();
    String::from_utf8(names[..len].to_vec()).unwrap()
}

/// A layer with what could get lost.
fn peculiar() -> Vec<u8> {
    let item = |name: &'static [u8], kind, mode, owner| Item { kind, name, mode, owner, ..Item::default() };
    Layer::new()
        .item(item(b"sgid", b'5', 0o2775, (0, 50)))
        .item(item(b"sgid/file", b'0', 0o644, (0, 0)))
        .item(item(b"sgid/implied/file", b'0', 0o644, (0, 0)))
        .item(item(b"suid", b'0', 0o4755, (7, 8)))
        .item(item(b"sticky", b'5', 0o1777, (0, 0)))
        .item(item(b"none", b'5', 0o000, (65535, 65535)))
        .item(item(b"none/inside", b'0', 0o000, (1, 1)))
        .item(item(b"high", b'0', 0o600, (70_000, 4_294_967_295)))
        .item(item(b"fifo", b'6', 0o620, (3, 4)))
        .pax(&[
            ("SCHILY.xattr.user.kept", b"a\0b"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
            ("mtime", b"1234567890.5"),
        ])
        .item(item(b"xattr", b'0', 0o644, (0, 0)))
        .pax(&[("SCHILY.xattr.user.dir", b"1")])
        .item(item(b"xdir", b'5', 0o755, (0, 0)))
        .end()
}

#[tokio::test]
async fn owners_modes_times_and_attributes_are_kept() {
    needs!(Root);
    let tar = peculiar();
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let lease = import(&store, &Image::of(&[tar], Compression::Gzip)).await.unwrap();
    let seen = tree(lease.rootfs());
    for (name, expected) in [
        ("sgid", "42775 0:50 1000000000 "),
        ("sgid/file", "100644 0:0 1000000000 "),
        ("sgid/implied", "40755 0:0 0 "),
        ("suid", "104755 7:8 1000000000 "),
        ("sticky", "41777 0:0 1000000000 "),
        ("none", "40000 65535:65535 1000000000 "),
        ("none/inside", "100000 1:1 1000000000 "),
        ("high", "100600 65534:65534 1000000000 "),
        ("fifo", "10620 3:4 1000000000 "),
    ] {
        assert_eq!(seen[name], expected, "{name}");
    }
    let xattr = lease.rootfs().join("xattr");
    let meta = fs::metadata(&xattr).unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_234_567_890, 500_000_000));
    assert_eq!(xattrs(&xattr), "user.kept\0");
    assert_eq!(xattrs(&lease.rootfs().join("xdir")), "user.dir\0");
    assert_eq!(fs::metadata(lease.rootfs()).unwrap().uid(), STORE_IDS);
    drop(lease);
    store.remove(&store.list().await.unwrap()[0].id.to_string()).await.unwrap();
    fixture.assert_empty();
}

#[tokio::test]
async fn an_image_that_is_exported_and_imported_is_the_same() {
    needs!(Root);
    let (long, deep) = ("n".repeat(200), format!("{}/x", "d/".repeat(100)));
    let lower = Layer::new().file("gone", "").file("from/file", "text").hard_link("other/name", "from/file");
    let upper = Layer::new()
        .file(".wh.gone", "")
        .symlink("link", &"t".repeat(300))
        .symlink("up", "../..")
        .file(&long, "long")
        .file(&deep, "deep")
        .end();
    let image = Image::of(&[peculiar(), lower.end(), upper], Compression::Gzip);
    let (one, other) = (Fixture::new(), Fixture::new());
    let (store, other_store) = (one.open().await, other.open().await);
    let lease = import(&store, &image).await.unwrap();
    let name = "registry.example:5000/a/b:1".parse().unwrap();
    let mut archives = Vec::new();
    for _ in 0..2 {
        let pieces = store.export(&lease, &name).await.unwrap().try_collect::<Vec<_>>().await.unwrap();
        archives.push(pieces.concat());
    }
    assert!(archives[0] == archives[1], "the same image is the same archive");
    one.assert_nothing_half_made();
    let copy = import_tar(&other_store, archives.remove(0)).await.unwrap();
    assert_eq!(tree(copy.rootfs()), tree(lease.rootfs()));
    assert_eq!(copy.config(), lease.config());
    let inode = |name: &str| fs::metadata(copy.rootfs().join(name)).unwrap().ino();
    assert_eq!(inode("from/file"), inode("other/name"));
    for name in ["xattr", "xdir"] {
        assert_eq!(xattrs(&copy.rootfs().join(name)), xattrs(&lease.rootfs().join(name)));
    }
    let nanoseconds = fs::metadata(copy.rootfs().join("xattr")).unwrap().mtime_nsec();
    assert_eq!(nanoseconds, 500_000_000);
    assert!(other_store.get("registry.example:5000/a/b:1").unwrap().is_some());
    let by_digest = format!("registry.example:5000/a/b@{}", lease.id()).parse().unwrap();
    assert!(store.export(&lease, &by_digest).await.is_err());
}

#[tokio::test]
async fn an_export_beyond_the_largest_archive_is_refused_and_leaves_nothing() {
    needs!(Root);
    let mut fixture = Fixture::new();
    fixture.config.max_archive_bytes = 100_000;
    let store = fixture.open().await;
    let dir = tempfile::tempdir().unwrap();
    let layer = Layer::new().file("file", &"x".repeat(200_000)).end();
    Image::of(&[layer], Compression::Gzip).write_layout(dir.path(), None);
    let leases = store.import(ImportSource::Path(dir.path().to_owned()), None, |_| {}).await.unwrap();
    let Err(error) = store.export(&leases[0], &"a:1".parse().unwrap()).await else {
        panic!("it is exported")
    };
    assert_eq!(error.kind(), ImageErrorKind::NoSpace, "{error}");
    fixture.assert_nothing_half_made();
}

#[tokio::test]
async fn what_is_no_archive_is_refused_with_a_reason() {
    needs!(Root);
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let image = Image::small("x");
    let mut without_layer = image.layout(None);
    without_layer.retain(|(name, _)| !name.ends_with(&image.layers[0].hex()));
    let mut outside = Layer::new().file("index.json", "{}");
    outside = outside.file("manifest.json", r#"[{"Config":"../../etc/passwd","RepoTags":[],"Layers":[]}]"#);
    let docker_outside = Layer::new()
        .file("manifest.json", r#"[{"Config":"../etc/passwd","RepoTags":null,"Layers":[]}]"#)
        .end();
    let layout = tar_of(&image.layout(None));
    for (what, bytes, words) in [
        ("nothing", Vec::new(), "index.json"),
        ("text", b"hello, this is no archive at all".to_vec(), "cut off"),
        ("an empty archive", Layer::new().end(), "docker save"),
        ("a layer is missing", tar_of(&without_layer), "is not in it"),
        ("an index that is none", outside.end(), "version"),
        ("a name outside", docker_outside, "outside"),
        ("cut off", layout[..layout.len() / 2].to_vec(), ""),
        ("cut gzip", compress(&layout, Compression::Gzip)[..200].to_vec(), "decompressed"),
        ("xz", b"\xfd7zXZ\0and more".to_vec(), "xz"),
    ] {
        let error = import_tar(&store, bytes).await.unwrap_err();
        let is_right = matches!(error, ImageError::InvalidArchive { .. } | ImageError::Unsupported { .. });
        assert!(is_right && error.to_string().contains(words), "{what}: {error}");
    }
    let two = [image.layout(Some("a.example/a:1")), Image::small("y").layout(Some("a.example/b:1"))].concat();
    let mut index = image.index_json(Some("a.example/a:1"));
    let other = Image::small("y").index_json(Some("a.example/b:1"));
    index["manifests"].as_array_mut().unwrap().push(other["manifests"][0].clone());
    let two: Vec<_> = two
        .into_iter()
        .filter(|(name, _)| name != "index.json")
        .chain([("index.json".to_owned(), serde_json::to_vec(&index).unwrap())])
        .collect();
    let source = |bytes: &Vec<u8>| ImportSource::Stream(Box::new(std::io::Cursor::new(bytes.clone())));
    let two = tar_of(&two);
    let named = store.import(source(&two), Some("c"), silent()).await.unwrap_err();
    assert!(named.to_string().contains("2 images"), "{named}");
    assert_eq!(store.import(source(&two), None, silent()).await.unwrap().len(), 2);
    assert_eq!(text(&store.get("a.example/b:1").unwrap().unwrap(), "etc/text"), "y");
    fixture.assert_nothing_half_made();
}

#[tokio::test]
async fn an_image_for_another_machine_says_what_it_is_for() {
    needs!(Root);
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let config = serde_json::json!({
        "architecture": "s390x", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [] }
    });
    let image = Image::with_config(&[], Compression::None, &config);
    let error = import(&store, &image).await.unwrap_err();
    assert!(matches!(error, ImageError::WrongArchitecture { .. }), "{error}");
    assert!(error.to_string().contains("linux/s390x"));
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn is_there(program: &str) -> bool {
    let is_there = Command::new(program).arg("--version").output().is_ok();
    if !is_there {
        println!("{program} is not installed: not compared with it");
    }
    is_there
}

#[tokio::test]
async fn archives_of_skopeo_and_of_gnu_tar_are_taken() {
    needs!(Root);
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let rootfs = dir.path().join("rootfs");
    fs::create_dir_all(rootfs.join("sub/ünï")).unwrap();
    fs::write(rootfs.join("sub/ünï").join("n".repeat(200)), "long").unwrap();
    fs::write(rootfs.join("a"), "a").unwrap();
    fs::hard_link(rootfs.join("a"), rootfs.join("b")).unwrap();
    let sparse = fs::File::create(rootfs.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 10 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 5 << 20).unwrap();
    drop(sparse);
    let mut tars = Vec::new();
    for format in [
        &["--format=gnu"][..],
        &["--format=gnu", "--sparse"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0", "--xattrs"],
    ] {
        let tar = path("layer.tar");
        run(
            "tar",
            &[format, &["--numeric-owner", "-C", &rootfs.to_string_lossy(), "-cf", &tar, "."]].concat(),
        );
        tars.push(fs::read(tar).unwrap());
    }
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let mut trees = Vec::new();
    for tar in &tars {
        let lease = import(&store, &Image::of(std::slice::from_ref(tar), Compression::Gzip)).await.unwrap();
        let sparse = fs::read(lease.rootfs().join("sparse")).unwrap();
        assert_eq!(sparse.len(), (10 << 20) + 3);
        assert_eq!(&sparse[5 << 20..(5 << 20) + 6], b"middle");
        assert!(sparse.ends_with(b"\0end") && sparse[..5 << 20].iter().all(|byte| *byte == 0));
        let (a, b) = (lease.rootfs().join("a"), lease.rootfs().join("b"));
        assert_eq!(fs::metadata(a).unwrap().ino(), fs::metadata(b).unwrap().ino());
        trees.push(tree(lease.rootfs()));
    }
    assert!(trees.iter().all(|tree| tree == &trees[0]), "{trees:#?}");
    assert!(trees[0].contains_key(&format!("sub/ünï/{}", "n".repeat(200))));

    if is_there("skopeo") {
        let image = Image::of(&tars[..1], Compression::Gzip);
        image.write_layout(&dir.path().join("layout"), Some("x:1"));
        let from = format!("oci:{}:x:1", path("layout"));
        for (kind, to) in [("docker-archive", "d.tar"), ("oci-archive", "o.tar")] {
            let file = path(to);
            run(
                "skopeo",
                &["--insecure-policy", "copy", &from, &format!("{kind}:{file}:skopeo.example/x:2")],
            );
            let leases = store.import(ImportSource::Path(file.into()), None, silent()).await.unwrap();
            assert_eq!(tree(leases[0].rootfs()), trees[0], "{kind}");
        }
        assert!(store.get("skopeo.example/x:2").unwrap().is_some());
    }
    if is_there("umoci") {
        Image::of(&layers(), Compression::Gzip).write_layout(&dir.path().join("ours"), Some("latest"));
        let bundle = path("bundle");
        run("umoci", &["unpack", "--image", &format!("{}:latest", path("ours")), &bundle]);
        let lease = import(&store, &Image::of(&layers(), Compression::Gzip)).await.unwrap();
        let theirs: Vec<_> = names(&dir.path().join("bundle/rootfs"));
        assert_eq!(names(lease.rootfs()), theirs, "umoci makes the same of it");
    }
    fixture.assert_nothing_half_made();
}
