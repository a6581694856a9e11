//! What goes, what stays, and who says so.

use std::fs;

use faas_executor::images::ImageError;
use faas_test_support::needs;

use super::layer::Layer;
use super::oci::{Compression, Image};
use super::store::{Fixture, import, silent, text};

fn with_base(text: &str) -> Image {
    let base = Layer::new().file("base", &"x".repeat(1 << 20)).end();
    Image::of(&[base, Layer::new().file("own", text).end()], Compression::Zstd)
}

#[tokio::test]
async fn shared_layers_stay_until_the_last_image_goes() {
    needs!(Root);
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let (one, two) = (with_base("1"), with_base("2"));
    import(&store, &one).await.unwrap();
    import(&store, &two).await.unwrap();
    assert_eq!(fixture.count("layers"), 3);
    store.remove(&one.config.to_string()).await.unwrap();
    assert_eq!((fixture.count("layers"), fixture.count("images")), (2, 1));
    assert_eq!(text(&store.get(&two.config.to_string()).unwrap().unwrap(), "own"), "2");
    store.remove(&two.config.to_string()).await.unwrap();
    fixture.assert_empty();
    let gone = store.remove(&two.config.to_string()).await.unwrap_err();
    assert!(matches!(gone, ImageError::NotFound { .. }));
    assert!(store.get(&two.config.to_string()).unwrap().is_none());
}

#[tokio::test]
async fn an_image_in_use_is_not_removed_by_any_process() {
    needs!(Root);
    let fixture = Fixture::new();
    let (here, there) = (fixture.open().await, fixture.open().await);
    let image = with_base("1");
    let lease = import(&here, &image).await.unwrap();
    let second = there.get(&image.config.to_string()).unwrap().unwrap();
    for store in [&here, &there] {
        let error = store.remove(&image.config.to_string()).await.unwrap_err();
        assert!(matches!(error, ImageError::InUse { .. }), "{error}");
    }
    drop(lease);
    assert!(there.remove(&image.config.to_string()).await.is_err(), "the other lease lives");
    assert_eq!(text(&second, "own"), "1");
    drop(second);
    there.remove(&image.config.to_string()).await.unwrap();
    assert!(here.get(&image.config.to_string()).unwrap().is_none(), "and everybody sees it");
    fixture.assert_empty();
}

#[tokio::test]
async fn an_image_goes_with_its_last_name() {
    needs!(Root);
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let image = Image::small("x");
    let source = || {
        let bytes = super::oci::tar_of(&image.layout(None));
        faas_executor::images::ImportSource::Stream(Box::new(std::io::Cursor::new(bytes)))
    };
    let lease = store.import(source(), Some("a"), silent()).await.unwrap();
    store.import(source(), Some("b:1"), silent()).await.unwrap();
    assert_eq!(store.list().await.unwrap()[0].names, ["docker.io/library/a:latest", "docker.io/library/b:1"]);
    store.remove("a:latest").await.unwrap();
    assert!(store.get("a").unwrap().is_none() && store.get("b:1").unwrap().is_some());
    assert!(matches!(store.remove("b:1").await, Err(ImageError::InUse { .. })));
    drop(lease);
    store.remove("b:1").await.unwrap();
    fixture.assert_empty();
}

#[tokio::test]
async fn the_image_unused_for_the_longest_makes_room() {
    needs!(Root);
    let mut fixture = Fixture::new();
    fixture.config.max_bytes = 3 << 20;
    let store = fixture.open().await;
    let big =
        |text: &str| Image::of(&[Layer::new().file(text, &text.repeat(1 << 20)).end()], Compression::Zstd);
    let images = [big("a"), big("b"), big("c"), big("d")];
    let id = |number: usize| images[number].config.to_string();
    import(&store, &images[0]).await.unwrap();
    let leased = import(&store, &images[1]).await.unwrap();
    // The first was used later than the second, which is leased.
    let dir = |number: usize| fixture.path().join("images").join(images[number].config.hex());
    let set = |number: usize, seconds: i64| {
        let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::futimens(fs::File::open(dir(number)).unwrap(), &times).unwrap();
    };
    set(0, 2000);
    set(1, 1000);
    import(&store, &images[2]).await.unwrap();
    assert!(store.get(&id(0)).unwrap().is_none(), "evicted, though the leased one is older");
    assert!(store.get(&id(1)).unwrap().is_some() && store.get(&id(2)).unwrap().is_some());
    let held = store.get(&id(2)).unwrap();
    let error = import(&store, &images[3]).await.unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
    assert_eq!((fixture.count("images"), fixture.count("layers")), (2, 2));
    fixture.assert_nothing_half_made();
    drop((leased, held));
    import(&store, &images[3]).await.unwrap();
    assert!(store.used_bytes().unwrap() <= 3 << 20);
}

#[tokio::test]
async fn files_with_as_many_links_as_possible_are_copied() {
    needs!(Root);
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let links = |name: &str, count: usize| {
        let first = Layer::new().file("first", "content");
        (0..count).fold(first, |tar, number| tar.hard_link(&format!("{name}{number}"), "first")).end()
    };
    // ext4 has at most 65,000 names for one file: the second image cannot link to the first's layer any more.
    let tar = links("l", 32_000);
    let one = Image::of(std::slice::from_ref(&tar), Compression::Zstd);
    let two = Image::of(&[tar, Layer::new().file("other", "").end()], Compression::Zstd);
    import(&store, &one).await.unwrap();
    let lease = import(&store, &two).await.unwrap();
    assert_eq!(fs::read_dir(lease.rootfs()).unwrap().count(), 32_002);
    assert_eq!(text(&lease, "l31999"), "content");
}

#[tokio::test]
async fn a_damaged_index_is_said_and_not_replaced() {
    needs!(Root);
    let fixture = Fixture::new();
    import(&fixture.open().await, &Image::small("x")).await.unwrap();
    let index = fixture.path().join("index");
    let mut bytes = fs::read(&index).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&index, &bytes).unwrap();
    let error =
        faas_executor::images::ImageStore::open(&fixture.path(), fixture.config.clone()).await.unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
    assert_eq!((fixture.count("images"), fs::read(&index).unwrap()), (1, bytes));
}
