//! The images of the suite, made by the recipes in `images/`, for the image store.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use faas_executor::images::{Digest, ImageStore, ImageStoreConfig, ImportSource};
use serde_json::{Value, json};

use super::stock::Image;

fn recipes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../images")
}

fn text_of(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The archive of the image's root directory, made the first time.
fn archive(image: Image) -> PathBuf {
    text_of(Command::new(recipes().join("archive.sh")).arg(image.recipe())).into()
}

/// What the lines `# config:` of a recipe say, as the configuration of an image has it.
fn config_of(recipe: &str) -> Value {
    let mut config = json!({ "Env": [] });
    for line in recipe.lines().filter_map(|line| line.strip_prefix("# config: ")) {
        let (word, value) = line.split_once(' ').unwrap();
        match word {
            "ENV" => config["Env"].as_array_mut().unwrap().push(value.into()),
            "WORKDIR" => config["WorkingDir"] = value.into(),
            "USER" => config["User"] = value.into(),
            "CMD" => config["Cmd"] = serde_json::from_str(value).unwrap(),
            "ENTRYPOINT" => config["Entrypoint"] = serde_json::from_str(value).unwrap(),
            "LABEL" => {}
            other => panic!("{other} in a recipe"),
        }
    }
    config
}

/// Writes an OCI layout of the image that everybody may read.
pub(crate) fn write_layout(image: Image, dir: &Path) {
    let archive = archive(image);
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let layer = text_of(Command::new("sha256sum").arg(&archive));
    let layer = layer.split_whitespace().next().unwrap();
    let recipe = fs::read_to_string(recipes().join(image.recipe()).with_extension("sh")).unwrap();
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": config_of(&recipe),
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
    });
    let config = serde_json::to_vec(&config).unwrap();
    let size = fs::metadata(&archive).unwrap().len();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": format!("sha256:{layer}"),
            "size": size,
        }],
    });
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let index = json!({
        "schemaVersion": 2,
        "manifests": [descriptor("application/vnd.oci.image.manifest.v1+json", &manifest)],
    });
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    for blob in [&config, &manifest] {
        fs::write(blobs.join(Digest::of(blob).hex()), blob).unwrap();
    }
    link_or_copy(&archive, &blobs.join(layer));
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len() })
}

/// The same file at another path: a link where one file system has both.
pub(crate) fn link_or_copy(from: &Path, to: &Path) {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).unwrap();
    }
}

/// Takes the image into a store from its layout.
pub(crate) async fn import(store: &ImageStore, image: Image, layout: &Path) {
    let source = ImportSource::Path(layout.to_owned());
    store.import(source, Some(image.name()), |_| {}).await.unwrap();
}

/// The store that the tests of root's backends share, with the image in it. It is in cargo's directory for what tests
/// keep: a large image takes longer to take in than all cases that use it.
pub(crate) fn shared_store(image: Image) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance");
    let store_dir = dir.join("images");
    fs::create_dir_all(&store_dir).unwrap();
    let lock = File::create(dir.join("lock")).unwrap();
    lock.lock().unwrap();
    let archive = archive(image);
    // Of which archive the store's image is.
    let mark = dir.join(image.recipe());
    let archive_name = archive.file_name().unwrap().to_str().unwrap();
    if fs::read_to_string(&mark).is_ok_and(|text| text == archive_name) {
        return store_dir;
    }
    let layout = tempfile::tempdir_in(&dir).unwrap();
    write_layout(image, layout.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = ImageStoreConfig::new(std::env::current_exe().unwrap());
        let store = ImageStore::open(&store_dir, config).await.unwrap();
        import(&store, image, layout.path()).await;
    });
    fs::write(&mark, archive_name).unwrap();
    store_dir
}
