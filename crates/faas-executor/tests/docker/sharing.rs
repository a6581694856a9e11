//! Images go from the engine to the native runtime and back, without a registry.

use std::path::Path;
use std::process::Command;

use faas_executor::images::ImageStoreConfig;
use faas_executor::{Engine, EngineConfig, ExecuteSpec, PullPolicy};
use faas_test_support::needs;
use faas_types::{ErrorCode, RuntimeChoice};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::{DockerConfig, Gateway, TransportChoice, docker, of, shell, temporary, test_host, text};

/// What the image has that could get lost on the way.
const MAKE: &str = "mkdir -p /srv; cd /srv; echo data >file; chown 1234:567 file; chmod 4711 file; touch -d '2001-02-03 04:05:06' file; \
    ln file hard; ln -s file soft; ln -s /nowhere dangling; mkdir private; chown 7:8 private; chmod 2700 private; \
    mkfifo pipe; chmod 600 pipe; long=$(printf 'd%.0s' $(seq 120))/$(printf 'e%.0s' $(seq 120)); mkdir -p $long; \
    echo long >$long/file; rm -rf /mnt";

/// Tells of all that.
const LOOK: &str = "cd /srv; stat -c '%n %a %u:%g %F' . file hard soft dangling private pipe; readlink soft; \
    readlink dangling; test file -ef hard && echo same; stat -c %Y file; cat d*/e*/file; ls -d /mnt 2>&1; \
    echo $GREETING $(pwd) $(id -un)";

/// An image of one test, with two layers.
struct Image {
    host: String,
    name: String,
}

impl Image {
    fn make() -> Self {
        let (host, id) = (test_host(), uuid::Uuid::now_v7().simple().to_string());
        let (container, name) = (format!("make-{id}"), format!("shared-{id}:1"));
        docker(&host, &["run", "--network", "none", "--name", &container, "alpine", "sh", "-ec", MAKE]);
        let changes = ["ENV GREETING=hello", "WORKDIR /var", "USER app", "LABEL made.by=test"];
        let mut commit = vec!["commit"];
        commit.extend(changes.iter().flat_map(|change| ["--change", change]));
        commit.extend([container.as_str(), name.as_str()]);
        docker(&host, &commit);
        docker(&host, &["rm", &container]);
        Self { host, name }
    }

    /// How often the engine has done that with the image.
    fn count(&self, event: &str) -> usize {
        let id = docker(&self.host, &["image", "inspect", "--format", "{{.ID}}", &self.name]);
        let now = Command::new("date").arg("+%s.%N").output().unwrap().stdout;
        let event = format!("event={event}");
        let now = String::from_utf8(now).unwrap();
        let mut events = vec!["events", "--since", "1h", "--until", now.trim(), "--filter", "type=image"];
        events.extend(["--filter", &event, "--format", "{{.Actor.ID}}"]);
        docker(&self.host, &events).lines().filter(|line| *line == id.trim()).count()
    }

    fn remove(&self) {
        docker(&self.host, &["rmi", &self.name]);
    }
}

async fn gateway(host: &str) -> Gateway {
    let data_dir = temporary("data");
    let exe = std::env::current_exe().unwrap();
    let transport = TransportChoice::Auto;
    let engine = Engine::start(EngineConfig {
        data_dir: data_dir.clone(),
        database_url: None,
        docker: Some(DockerConfig { host: host.parse().unwrap(), transport, runtime: None, auth_file: None }),
        launcher_exe: exe.clone(),
        native_slots: 2,
        images: ImageStoreConfig::new(exe),
        pull: PullPolicy::Never,
        max_instances: 16,
        outputs: faas_executor::OutputBudget::default(),
        events: faas_executor::EventRetention { max_events: 1000, ttl: std::time::Duration::from_secs(60) },
        default_runtime: RuntimeChoice::Auto,
        default_image: "host".to_owned(),
        max_concurrent: 8,
        max_queued: 100,
    });
    Gateway { engine: engine.await.unwrap(), host: test_host(), data_dir }
}

fn on(runtime: RuntimeChoice, image: &str, line: &str) -> ExecuteSpec {
    ExecuteSpec { runtime, ..of(image, shell(line)) }
}

/// What a command says.
async fn said(gateway: &Gateway, runtime: RuntimeChoice, image: &str) -> String {
    let outcome = gateway.run(on(runtime, image, LOOK)).await.unwrap();
    text(&outcome.stdout).to_owned()
}

/// Nothing half made is in the store.
fn assert_tidy(data_dir: &Path) {
    let left: Vec<_> = std::fs::read_dir(data_dir.join("images/tmp")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_goes_from_the_engine_to_native_and_back_once() {
    needs!(Root, Docker);
    let (image, gateway) = (Image::make(), gateway(&test_host()).await);
    let expected = said(&gateway, RuntimeChoice::Docker, &image.name).await;
    assert!(expected.contains("file 4711 1234:567 regular file\nhard 4711 1234:567"), "{expected}");
    assert!(expected.contains("private 2700 7:8 directory\npipe 600 0:0 fifo"), "{expected}");
    assert!(expected.contains("file\n/nowhere\nsame\n981173106\nlong\n"), "{expected}");
    assert!(expected.ends_with("hello /srv app\n"), "{expected}");

    let native = || said(&gateway, RuntimeChoice::Native, &image.name);
    let (a, b) = tokio::join!(native(), native());
    assert_eq!((a, b), (expected.clone(), expected.clone()));
    assert_eq!(image.count("save"), 1, "two who wanted it at once");
    let list = gateway.engine.images().list().await.unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].names, [format!("docker.io/library/{}", image.name)]);
    assert_tidy(&gateway.data_dir);

    // The engine's is gone; the store has its own.
    image.remove();
    assert_eq!(native().await, expected);
    let docker_runs = || said(&gateway, RuntimeChoice::Docker, &image.name);
    let (a, b) = tokio::join!(docker_runs(), docker_runs());
    assert_eq!((a, b), (expected.clone(), expected));
    assert_eq!(image.count("load"), 1, "two who wanted it at once");
    let format =
        "{{.Config.Env}} {{.Config.WorkingDir}} {{.Config.User}} {{.Config.Labels}} {{len .RootFS.Layers}}";
    let config = docker(&image.host, &["image", "inspect", "--format", format, &image.name]);
    assert!(
        config.contains("GREETING=hello") && config.ends_with(" /var app map[made.by:test] 1\n"),
        "{config}"
    );
    assert_tidy(&gateway.data_dir);

    gateway.is_clean().await;
    image.remove();
    gateway.engine.images().remove(&image.name).await.unwrap();
    for runtime in [RuntimeChoice::Native, RuntimeChoice::Docker, RuntimeChoice::Auto] {
        let error = gateway.run(on(runtime, &image.name, "true")).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::ImageUnavailable, "{error}");
    }
    gateway.stop().await;
}

/// An engine behind a socket of its own, whose answers with an image end after some bytes.
fn cut_engine(socket: &Path, max_bytes: u64) -> tokio::task::JoinHandle<()> {
    let listener = UnixListener::bind(socket).unwrap();
    let real = test_host().trim_start_matches("unix://").to_owned();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut engine = UnixStream::connect(&real).await.unwrap();
            tokio::spawn(async move {
                let mut head = vec![0u8; 16 << 10];
                let read = client.read(&mut head).await.unwrap();
                engine.write_all(&head[..read]).await.unwrap();
                let line = String::from_utf8_lossy(&head[..read]);
                if line.split(' ').nth(1).is_some_and(|path| path.ends_with("/get")) {
                    let mut some = engine.take(max_bytes);
                    tokio::io::copy(&mut some, &mut client).await.unwrap();
                } else {
                    // Either side may end first.
                    drop(tokio::io::copy_bidirectional(&mut client, &mut engine).await);
                }
            });
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_goes_away_in_the_middle_of_an_image_leaves_nothing() {
    needs!(Root, Docker);
    let socket = temporary("cut.sock");
    let cut = cut_engine(&socket, 300_000);
    let gateway = gateway(&format!("unix://{}", socket.display())).await;
    let run = || gateway.run(on(RuntimeChoice::Native, "alpine", "true"));
    let (a, b) = tokio::join!(run(), run());
    for error in [a.unwrap_err(), b.unwrap_err()] {
        assert_eq!(error.code(), ErrorCode::ImageUnavailable, "{error}");
        assert!(error.to_string().contains("cannot be taken over from the Docker engine"), "{error}");
    }
    assert_tidy(&gateway.data_dir);
    assert!(gateway.engine.images().list().await.unwrap().is_empty());
    gateway.stop().await;
    cut.abort();
    std::fs::remove_file(socket).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_native_runtime_takes_no_image_for_another_machine_from_the_engine() {
    needs!(Root, Docker);
    let foreign = super::Foreign::load();
    let gateway = gateway(&test_host()).await;
    let error = gateway.run(on(RuntimeChoice::Native, &foreign.name, "true")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ImageUnavailable, "{error}");
    assert!(error.to_string().contains(super::Foreign::ARCHITECTURE), "{error}");
    assert_tidy(&gateway.data_dir);
    gateway.stop().await;
}
