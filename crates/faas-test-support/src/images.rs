//! The test images as OCI layouts, made by the recipes in `images/`.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

fn recipes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../images")
}

/// The archive of the image's root directory, made the first time.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn archive(recipe: &str) -> PathBuf {
    let mut command = Command::new(recipes().join("archive.sh"));
    command.arg(recipe).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().expect("run archive.sh");
    assert!(output.status.success(), "{command:?}: {}", output.status);
    String::from_utf8(output.stdout).expect("a path").trim().into()
}

/// sha256 of what is read, in hex.
fn sha256(input: impl Into<Stdio>, bytes: &[u8]) -> String {
    let mut child =
        Command::new("sha256sum").stdin(input).stdout(Stdio::piped()).spawn().expect("run sha256sum");
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(bytes).expect("write to sha256sum");
    }
    let output = child.wait_with_output().expect("wait for sha256sum");
    assert!(output.status.success(), "sha256sum: {}", output.status);
    String::from_utf8_lossy(&output.stdout[..64]).into_owned()
}

/// What the lines `# config:` of a recipe say, as the configuration of an image has it.
fn config_of(recipe: &str) -> Value {
    let mut config = json!({});
    let mut env = Vec::new();
    for line in recipe.lines().filter_map(|line| line.strip_prefix("# config: ")) {
        let (word, value) = line.split_once(' ').expect("a word and a value");
        let list = || serde_json::from_str::<Value>(value).expect("a list in JSON");
        match word {
            "ENV" => env.push(value),
            "WORKDIR" => config["WorkingDir"] = value.into(),
            "USER" => config["User"] = value.into(),
            "CMD" => config["Cmd"] = list(),
            "ENTRYPOINT" => config["Entrypoint"] = list(),
            "LABEL" => {}
            other => panic!("{other} in a recipe"),
        }
    }
    config["Env"] = env.into();
    config
}

/// Writes an OCI layout of the image that everybody may read.
///
/// # Panics
/// When it cannot.
pub fn write_layout(recipe: &str, dir: &Path) {
    let archive = archive(recipe);
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let read =
        |path: &Path| fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let layer = sha256(read(&archive), &[]);
    let text = fs::read_to_string(recipes().join(recipe).with_extension("sh")).expect("read the recipe");
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": config_of(&text),
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
    });
    let config = config.to_string().into_bytes();
    let size = fs::metadata(&archive).expect("look at the archive").len();
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
    let manifest = manifest.to_string().into_bytes();
    let index = json!({
        "schemaVersion": 2,
        "manifests": [descriptor("application/vnd.oci.image.manifest.v1+json", &manifest)],
    });
    let write = |path: &Path, bytes: &[u8]| {
        fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    };
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("make the layout");
    for blob in [&config, &manifest] {
        write(&blobs.join(sha256(Stdio::piped(), blob)), blob);
    }
    link_or_copy(&archive, &blobs.join(layer));
    write(&dir.join("index.json"), index.to_string().as_bytes());
    write(&dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#);
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    let digest = format!("sha256:{}", sha256(Stdio::piped(), bytes));
    json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
}

/// The same file at another path: a link where one file system has both.
///
/// # Panics
/// When it can be neither linked nor copied.
pub fn link_or_copy(from: &Path, to: &Path) {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).unwrap_or_else(|error| panic!("copy {}: {error}", from.display()));
    }
}
