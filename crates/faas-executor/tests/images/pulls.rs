//! Pulls from a registry on loopback.

use std::sync::Arc;
use std::time::Duration;

use faas_executor::images::{Digest, ImageError, ImageErrorKind, Phase};
use faas_test_support::needs;

use super::layer::Layer;
use super::oci::{Compression, Image, architecture, descriptor};
use super::registry::{Auth, Fault, IDENTITY, PASSWORD, Registry, USER, basic};
use super::store::{Fixture, recorder, silent, text};

async fn with_registry() -> (Fixture, Registry) {
    let (mut fixture, registry) = (Fixture::new(), Registry::start().await);
    fixture.config.insecure_registries = vec![registry.address.to_string()];
    (fixture, registry)
}

fn two_layers() -> Image {
    let tars = [
        Layer::new().dir("etc", 0o755).file("etc/text", "1").file("big", &"0123456789".repeat(300_000)).end(),
        Layer::new().file("etc/text", "2").end(),
    ];
    Image::of(&tars, Compression::Gzip)
}

#[tokio::test]
async fn an_image_is_pulled_verified_and_named() {
    needs!(Root);
    let (fixture, registry) = with_registry().await;
    let image = two_layers();
    registry.add("a/b", "1", &image);
    let store = fixture.open().await;
    let name = registry.name("a/b:1");
    assert!(store.get(&name).unwrap().is_none());
    let (steps, record) = recorder();
    let lease = store.pull(&name, record).await.unwrap();
    assert_eq!(text(&lease, "etc/text"), "2");
    assert_eq!(store.get(&name).unwrap().unwrap().id(), image.config);
    let pinned = registry.name(&format!("a/b@{}", image.manifest));
    assert_eq!(store.get(&pinned).unwrap().unwrap().id(), image.config);
    assert_eq!(store.list().await.unwrap()[0].repo_digests, std::slice::from_ref(&pinned));
    let steps = steps.lock().unwrap().clone();
    for layer in &image.layers {
        let of_layer: Vec<_> = steps.iter().filter(|step| step.layer == Some(*layer)).collect();
        assert_eq!(of_layer.first().unwrap().phase, Phase::Unpacking);
        let last = of_layer.last().unwrap();
        assert_eq!((last.phase, Some(last.done_bytes)), (Phase::Unpacked, last.total_bytes));
    }
    assert_eq!(steps.last().unwrap().phase, Phase::Committing);

    let before = registry.count("");
    store.pull(&pinned, silent()).await.unwrap();
    assert_eq!(registry.count(""), before, "what a digest stands for is known");
    store.get_or_pull(&name, silent()).await.unwrap();
    assert_eq!(registry.count(""), before);
    store.pull(&name, silent()).await.unwrap();
    assert_eq!(registry.count("/blobs/"), 4, "only the configuration is fetched again");
}

#[tokio::test]
async fn a_shared_layer_is_fetched_once_and_a_tag_can_move() {
    needs!(Root);
    let (fixture, registry) = with_registry().await;
    let base = Layer::new().file("base", "base").end();
    let first = Image::of(&[base.clone(), Layer::new().file("x", "1").end()], Compression::Gzip);
    let second = Image::of(&[base, Layer::new().file("x", "2").end()], Compression::Gzip);
    let store = fixture.open().await;
    registry.add("a", "latest", &first);
    let old = store.pull(&registry.name("a"), silent()).await.unwrap();
    registry.add("a", "latest", &second);
    let new = store.pull(&registry.name("a"), silent()).await.unwrap();
    assert_eq!((text(&old, "x"), text(&new, "x")), ("1".into(), "2".into()));
    assert_eq!(registry.count(&format!("/blobs/{}", first.layers[0])), 1);
    assert_eq!(store.get(&registry.name("a")).unwrap().unwrap().id(), second.config);
    let list = store.list().await.unwrap();
    let of = |id: Digest| list.iter().find(|image| image.id == id).unwrap().names.len();
    assert_eq!((of(first.config), of(second.config)), (0, 1));
}

#[tokio::test]
async fn callers_that_want_the_same_wait_for_one_pull() {
    needs!(Root);
    let (fixture, registry) = with_registry().await;
    let image = two_layers();
    registry.add("a", "1", &image);
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    registry.fault(image.layers[0], Fault::Wait(Arc::clone(&gate)));
    let store = fixture.open().await;
    let name = registry.name("a:1");
    let start = |store: &faas_executor::images::ImageStore| {
        let (store, name) = (store.clone(), name.clone());
        tokio::spawn(async move { store.get_or_pull(&name, |_| {}).await })
    };
    let callers: Vec<_> = (0..5).map(|_| start(&store)).collect();
    let (gone, waiting) = callers.split_first().unwrap();
    fixture
        .until("the layer is asked for", || registry.count(&format!("/blobs/{}", image.layers[0])) == 1)
        .await;
    // One caller that goes away takes nothing from the others.
    gone.abort();
    let late = start(&store);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting[0].is_finished());
    gate.add_permits(10);
    for caller in callers.into_iter().skip(1).chain([late]) {
        assert_eq!(text(&caller.await.unwrap().unwrap(), "etc/text"), "2");
    }
    assert_eq!(registry.count("/manifests/"), 1);
    assert_eq!(registry.count("/blobs/"), 3);
    fixture.assert_nothing_half_made();
}

#[tokio::test]
async fn two_images_at_once_fetch_their_common_layer_once() {
    needs!(Root);
    let (fixture, registry) = with_registry().await;
    let base = Layer::new().file("base", &"x".repeat(100_000)).end();
    let store = fixture.open().await;
    let images: Vec<Image> = (0..4)
        .map(|n| Image::of(&[base.clone(), Layer::new().file("x", &n.to_string()).end()], Compression::Gzip))
        .collect();
    for (number, image) in images.iter().enumerate() {
        registry.add("a", &number.to_string(), image);
    }
    let pulls = (0..4).map(|number| {
        let (store, name) = (store.clone(), registry.name(&format!("a:{number}")));
        tokio::spawn(async move { store.pull(&name, |_| {}).await })
    });
    for pull in pulls.collect::<Vec<_>>() {
        pull.await.unwrap().unwrap();
    }
    assert_eq!(registry.count(&format!("/blobs/{}", images[0].layers[0])), 1);
    assert_eq!(fixture.count("layers"), 5);
}

#[tokio::test]
async fn the_last_caller_to_go_stops_the_pull_and_nothing_is_left() {
    needs!(Root);
    let (fixture, registry) = with_registry().await;
    let image = two_layers();
    registry.add("a", "1", &image);
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    registry.fault(image.layers[0], Fault::Wait(Arc::clone(&gate)));
    let store = fixture.open().await;
    let name = registry.name("a:1");
    let caller = tokio::spawn({
        let (store, name) = (store.clone(), name.clone());
        async move { store.pull(&name, |_| {}).await }
    });
    fixture.until("the second layer is there", || fixture.count("layers") == 1).await;
    caller.abort();
    // The task that pulls hears of it a little later.
    fixture.until("all is gone", || fixture.count("tmp") + fixture.count("layers") == 0).await;
    gate.add_permits(10);
    store.pull(&name, silent()).await.unwrap();
}

#[tokio::test]
async fn the_platform_of_this_machine_is_taken_from_an_index() {
    needs!(Root);
    let (fixture, registry) = with_registry().await;
    let (here, there) = (Image::small("here"), Image::small("there"));
    registry.add("a", "here", &here);
    registry.add("a", "there", &there);
    let entry = |image: &Image, architecture: &str| {
        let mut entry =
            descriptor("application/vnd.oci.image.manifest.v1+json", &image.blobs[&image.manifest]);
        entry["platform"] = serde_json::json!({ "os": "linux", "architecture": architecture });
        entry
    };
    let index = |entries: &[serde_json::Value]| {
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = serde_json::json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": entries });
        serde_json::to_vec(&index).unwrap()
    };
    let both = index(&[entry(&there, "s390x"), entry(&here, architecture())]);
    registry.add_manifest("a", "both", &both);
    registry.add_manifest("a", "other", &index(&[entry(&there, "s390x"), entry(&there, "riscv64")]));
    let store = fixture.open().await;
    let lease = store.pull(&registry.name("a:both"), silent()).await.unwrap();
    assert_eq!(text(&lease, "etc/text"), "here");
    let of_index = registry.name(&format!("a@{}", Digest::of(&both)));
    assert_eq!(store.get(&of_index).unwrap().unwrap().id(), here.config, "known by the index's digest too");
    let error = store.pull(&registry.name("a:other"), silent()).await.unwrap_err();
    assert!(matches!(&error, ImageError::WrongArchitecture { .. }), "{error}");
    assert!(error.to_string().contains("linux/s390x, linux/riscv64"), "{error}");
}

#[tokio::test]
async fn each_thing_that_goes_wrong_has_its_own_error() {
    needs!(Root);
    let (mut fixture, registry) = with_registry().await;
    fixture.config.idle_timeout = Duration::from_millis(300);
    fixture.config.insecure_registries.push("127.0.0.1:1".to_owned());
    let store = fixture.open().await;
    let image = two_layers();
    registry.add("a", "1", &image);
    let name = registry.name("a:1");
    let layer = image.layers[0];
    type Check = fn(&ImageError) -> bool;
    let cases: Vec<(&str, Fault, Check)> = vec![
        ("flipped", Fault::Flip, |error| matches!(error, ImageError::DigestMismatch { .. })),
        ("cut", Fault::Truncate, |error| matches!(error, ImageError::Unreachable { .. })),
        ("too long", Fault::Longer, |error| matches!(error, ImageError::DigestMismatch { .. })),
        ("missing", Fault::Status(404), |error| matches!(error, ImageError::Unknown { .. })),
        ("too many requests", Fault::Status(429), |error| matches!(error, ImageError::BadAnswer { .. })),
        ("an error", Fault::Status(503), |error| matches!(error, ImageError::BadAnswer { .. })),
        ("forbidden", Fault::Status(403), |error| matches!(error, ImageError::Unauthorized { .. })),
        ("silence", Fault::Hang, |error| matches!(error, ImageError::Unreachable { .. })),
    ];
    for (what, fault, is_right) in cases {
        registry.fault(layer, fault);
        let error = store.pull(&name, silent()).await.expect_err(what);
        assert!(is_right(&error), "{what}: {error}");
        assert_eq!(error.kind(), ImageErrorKind::Unavailable, "{what}");
        fixture.assert_empty();
    }
    registry.state.lock().unwrap().faults.clear();
    registry.fault(image.config, Fault::Flip);
    let error = store.pull(&name, silent()).await.unwrap_err();
    assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
    registry.state.lock().unwrap().faults.clear();
    store.pull(&name, silent()).await.unwrap();

    for missing in ["a:2", "b:1", &format!("a@{}", Digest::of(b"no"))] {
        let error = store.pull(&registry.name(missing), silent()).await.unwrap_err();
        assert!(matches!(error, ImageError::Unknown { .. }), "{error}");
    }
    let error = store.pull("127.0.0.1:1/a", silent()).await.unwrap_err();
    assert!(matches!(error, ImageError::Unreachable { .. }), "{error}");
    // Spoken to with TLS unless it is said otherwise.
    let tls = Fixture::new();
    let error = tls.open().await.pull(&name, silent()).await.unwrap_err();
    assert!(matches!(error, ImageError::Unreachable { .. }), "{error}");
    registry.add_manifest("a", "html", b"<html>");
    let error = store.pull(&registry.name("a:html"), silent()).await.unwrap_err();
    assert!(matches!(error, ImageError::Unsupported { .. }), "{error}");
    registry.add_manifest("a", "huge", &vec![b' '; 5 << 20]);
    let error = store.pull(&registry.name("a:huge"), silent()).await.unwrap_err();
    assert!(matches!(error, ImageError::BadAnswer { .. }), "{error}");
    for name in ["host", "../x", "docker.io/A", ""] {
        assert_eq!(store.pull(name, silent()).await.unwrap_err().kind(), ImageErrorKind::Invalid, "{name}");
    }
}

#[tokio::test]
async fn a_pull_that_takes_too_long_ends_and_leaves_nothing() {
    needs!(Root);
    let (mut fixture, registry) = with_registry().await;
    fixture.config.pull_timeout = Duration::from_millis(1500);
    let image = two_layers();
    registry.add("a", "1", &image);
    registry.fault(image.layers[0], Fault::Hang);
    let store = fixture.open().await;
    let error = store.pull(&registry.name("a:1"), silent()).await.unwrap_err();
    assert!(matches!(error, ImageError::TimedOut { .. }), "{error}");
    fixture.assert_empty();
}

fn docker_config(fixture: &mut Fixture, json: &str) {
    let path = fixture.dir.path().join("config.json");
    std::fs::write(&path, json).unwrap();
    fixture.config.docker_config = Some(path);
}

#[tokio::test]
async fn credentials_are_shown_to_their_registry_alone() {
    needs!(Root);
    let (mut fixture, registry) = with_registry().await;
    let blobs = Registry::start().await;
    let image = two_layers();
    registry.add("a", "1", &image);
    blobs.add("a", "1", &image);
    let address = registry.address;
    registry.state.lock().unwrap().redirect = Some(format!("http://{}", blobs.address));
    registry.state.lock().unwrap().auth = Auth::Basic;
    docker_config(
        &mut fixture,
        &format!(r#"{{"auths":{{"{address}":{{"username":"{USER}","password":"{PASSWORD}"}}}}}}"#),
    );
    let store = fixture.open().await;
    store.pull(&registry.name("a:1"), silent()).await.unwrap();
    assert_eq!(blobs.count("/blobs/"), 3, "redirects are followed");
    assert!(blobs.authorizations("").iter().all(Option::is_none), "and nothing is shown there");
    assert!(registry.authorizations("/blobs/").iter().all(|shown| *shown == Some(basic())));
    // Another registry that asks gets nothing either.
    blobs.state.lock().unwrap().auth = Auth::Basic;
    let mut config = fixture.config.clone();
    config.insecure_registries.push(blobs.address.to_string());
    let other =
        faas_executor::images::ImageStore::open(&fixture.dir.path().join("other"), config).await.unwrap();
    let error = other.pull(&blobs.name("a:1"), silent()).await.unwrap_err();
    assert!(matches!(error, ImageError::Unauthorized { .. }), "{error}");
    assert!(blobs.authorizations("").iter().all(Option::is_none));
}

#[tokio::test]
async fn tokens_are_got_with_what_docker_has() {
    needs!(Root);
    let auth = |content: &str| format!(r#"{{"auths":{{"REGISTRY":{{{content}}}}}}}"#);
    let password = basic().replace("Basic ", "");
    for (what, config, works) in [
        ("auth", auth(&format!(r#""auth":"{password}""#)), true),
        ("identity token", auth(&format!(r#""identitytoken":"{IDENTITY}""#)), true),
        ("a wrong password", auth(r#""username":"user","password":"pa55""#), false),
        ("nothing", "{}".to_owned(), false),
        ("a helper", r#"{"credHelpers":{"REGISTRY":"ecr-login"}}"#.to_owned(), false),
        ("no JSON", "{".to_owned(), false),
    ] {
        let (mut fixture, registry) = with_registry().await;
        registry.add("a", "1", &Image::small("x"));
        registry.state.lock().unwrap().auth = Auth::Bearer(format!("http://{}/token", registry.address));
        docker_config(&mut fixture, &config.replace("REGISTRY", &registry.address.to_string()));
        let store = fixture.open().await;
        let pulled = store.pull(&registry.name("a:1"), silent()).await;
        assert_eq!(pulled.is_ok(), works, "{what}: {pulled:?}");
        if let Err(error) = pulled {
            assert!(matches!(error, ImageError::Unauthorized { .. }), "{what}: {error}");
            assert!(what != "a helper" || error.to_string().contains("ecr-login"), "{error}");
            assert!(!error.to_string().contains("pa55"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_realm_without_encryption_gets_nothing_unless_it_is_allowed() {
    needs!(Root);
    let (mut fixture, registry) = with_registry().await;
    let realm = Registry::start().await;
    realm.state.lock().unwrap().anonymous = true;
    registry.add("a", "1", &Image::small("x"));
    registry.state.lock().unwrap().auth = Auth::Bearer(format!("http://{}/token", realm.address));
    let password = basic().replace("Basic ", "");
    docker_config(
        &mut fixture,
        &format!(r#"{{"auths":{{"{}":{{"auth":"{password}"}}}}}}"#, registry.address),
    );
    let store = fixture.open().await;
    let error = store.pull(&registry.name("a:1"), silent()).await.unwrap_err();
    assert!(matches!(error, ImageError::BadAnswer { .. }), "{error}");
    assert_eq!(realm.count(""), 0, "it is not even asked");
    // A registry that gives tokens to everybody needs no credentials.
    registry.state.lock().unwrap().anonymous = true;
    registry.state.lock().unwrap().auth = Auth::Bearer(format!("http://{}/token", registry.address));
    fixture.config.docker_config = None;
    fixture.open().await.pull(&registry.name("a:1"), silent()).await.unwrap();
}
