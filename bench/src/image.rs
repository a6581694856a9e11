//! Images for the store and its peers, of the recipes in `images/` and of layers made here, in the two forms that
//! images come in: an OCI layout with gzip layers, and what `docker save` writes.

use std::fs;
use std::path::{Path, PathBuf};

use faas_executor::images::Digest;
use serde_json::{Value, json};

use crate::error::BenchError;
use crate::peer::first_line;

/// What the image is called in a layout and in an archive of `docker save`.
pub(crate) const TAG: &str = "bench";

/// Files of a layer made here, and the size of each.
const FILES: usize = 50;
const FILE_BYTES: usize = 16 << 10;

/// An image: its layers as tar files, the lowest first, and its configuration.
pub(crate) struct Image {
    /// The digest of the configuration.
    pub(crate) id: Digest,
    config: Vec<u8>,
    layers: Vec<PathBuf>,
    diff_ids: Vec<Digest>,
}

fn run(program: &str, arguments: &[&str]) -> Result<String, BenchError> {
    first_line(program, arguments).map_err(|reason| BenchError::Image(format!("{program}: {reason}")))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn make_dir(path: &Path) -> Result<(), BenchError> {
    fs::create_dir_all(path).map_err(BenchError::io(path))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), BenchError> {
    fs::write(path, bytes).map_err(BenchError::io(path))
}

fn digest_of(path: &Path) -> Result<Digest, BenchError> {
    Ok(Digest::of(&fs::read(path).map_err(BenchError::io(path))?))
}

/// The archive of a recipe's root directory (`images/archive.sh`).
pub(crate) fn recipe(name: &str) -> Result<PathBuf, BenchError> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/archive.sh");
    Ok(run(&text(&script), &[name])?.into())
}

/// Packs everything in a directory, as root's.
pub(crate) fn pack(dir: &Path, archive: &Path) -> Result<(), BenchError> {
    let (dir, archive) = (text(dir), text(archive));
    let owner = ["--owner=0", "--group=0", "--numeric-owner", "--sort=name"];
    run("tar", &[&owner[..], &["-C", &dir, "-cf", &archive, "."]].concat()).map(drop)
}

/// Text that gzip makes about half as long, the same for the same seed.
fn filling(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut text = String::with_capacity(FILE_BYTES + 16);
    while text.len() < FILE_BYTES {
        // Knuth's MMIX generator; its upper bits are the good ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("{:08x}", state >> 32));
    }
    text.truncate(FILE_BYTES);
    text.into_bytes()
}

/// Layers over `base`, `count` with it, below `dir`: each adds files, replaces one and takes away one of the layer
/// below it.
pub(crate) fn layers_over(base: PathBuf, count: usize, dir: &Path) -> Result<Vec<PathBuf>, BenchError> {
    let mut layers = vec![base];
    for number in 1..count {
        let root = dir.join(format!("layer-{number}"));
        let (data, passing) = (root.join(format!("data/{number}")), root.join("passing"));
        make_dir(&data)?;
        make_dir(&passing)?;
        for file in 0..FILES {
            write(&data.join(file.to_string()), &filling((number * FILES + file) as u64))?;
        }
        write(&root.join("last"), format!("{number}\n").as_bytes())?;
        write(&passing.join(number.to_string()), b"")?;
        if number > 1 {
            write(&passing.join(format!(".wh.{}", number - 1)), b"")?;
        }
        let archive = dir.join(format!("layer-{number}.tar"));
        pack(&root, &archive)?;
        layers.push(archive);
    }
    Ok(layers)
}

impl Image {
    /// An image of these layers.
    pub(crate) fn of(layers: Vec<PathBuf>) -> Result<Self, BenchError> {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let diff_ids = layers.iter().map(|layer| digest_of(layer)).collect::<Result<Vec<_>, _>>()?;
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids.iter().map(Digest::to_string).collect::<Vec<_>>()},
        });
        let config = config.to_string().into_bytes();
        Ok(Self { id: Digest::of(&config), config, layers, diff_ids })
    }

    /// Writes an OCI layout with gzip layers (OCI image specification, "Image Layout").
    pub(crate) fn write_layout(&self, dir: &Path) -> Result<(), BenchError> {
        let blobs = dir.join("blobs/sha256");
        make_dir(&blobs)?;
        let mut layers = Vec::new();
        for (layer, diff_id) in self.layers.iter().zip(&self.diff_ids) {
            let packed = dir.join("layer.gz");
            run("sh", &["-c", "exec gzip -nc \"$0\" >\"$1\"", &text(layer), &text(&packed)])?;
            let digest = digest_of(&packed)?;
            let size = fs::metadata(&packed).map_err(BenchError::io(&packed))?.len();
            fs::rename(&packed, blobs.join(digest.hex())).map_err(BenchError::io(diff_id.hex()))?;
            layers.push(descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &digest, size));
        }
        let add = |kind: &str, bytes: &[u8]| -> Result<Value, BenchError> {
            let digest = Digest::of(bytes);
            write(&blobs.join(digest.hex()), bytes)?;
            Ok(descriptor(kind, &digest, bytes.len() as u64))
        };
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": kind,
            "config": add("application/vnd.oci.image.config.v1+json", &self.config)?,
            "layers": layers,
        });
        let mut manifest = add(kind, manifest.to_string().as_bytes())?;
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": TAG});
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        write(&dir.join("index.json"), index.to_string().as_bytes())?;
        write(&dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)
    }

    /// Writes what `docker save` does (moby's image specification 1.2), in `dir`.
    pub(crate) fn write_saved(&self, dir: &Path) -> Result<(), BenchError> {
        let mut layers = Vec::new();
        for (number, layer) in self.layers.iter().enumerate() {
            let name = format!("{number}/layer.tar");
            let path = dir.join(&name);
            make_dir(&dir.join(number.to_string()))?;
            fs::copy(layer, &path).map_err(BenchError::io(&path))?;
            layers.push(name);
        }
        let manifest =
            json!([{"Config": "config.json", "RepoTags": [format!("{TAG}:latest")], "Layers": layers}]);
        write(&dir.join("config.json"), &self.config)?;
        write(&dir.join("manifest.json"), manifest.to_string().as_bytes())
    }

    /// Makes its tree in `dir` with GNU tar, one layer after the other: what every unpacking is compared with.
    pub(crate) fn write_tree(&self, dir: &Path) -> Result<(), BenchError> {
        make_dir(dir)?;
        for layer in &self.layers {
            let (layer, at) = (text(layer), text(dir));
            // Whiteouts concern the layers below, so they come first.
            let take_away =
                r#"tar -tf "$0" | sed -n 's|\(.*/\)\.wh\.\(.*\)|\1\2|p' | (cd "$1" && xargs -r rm -r --)"#;
            run("sh", &["-c", take_away, &layer, &at])?;
            run("tar", &["--numeric-owner", "--exclude=.wh.*", "-C", &at, "-xpf", &layer])?;
        }
        Ok(())
    }
}

fn descriptor(kind: &str, digest: &Digest, size: u64) -> Value {
    json!({"mediaType": kind, "digest": digest.to_string(), "size": size})
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{FILE_BYTES, FILES, Image, filling, layers_over, pack};
    use crate::tree::Tree;

    #[test]
    fn filling_depends_on_the_seed_alone() {
        assert_eq!(filling(1).len(), FILE_BYTES);
        assert_eq!(filling(1), filling(1));
        assert_ne!(filling(1), filling(2));
    }

    #[test]
    fn upper_layers_replace_and_take_away() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        fs::create_dir(at("base")).unwrap();
        fs::write(at("base/below"), "text").unwrap();
        pack(&at("base"), &at("base.tar")).unwrap();
        let image = Image::of(layers_over(at("base.tar"), 3, scratch.path()).unwrap()).unwrap();
        image.write_tree(&at("tree")).unwrap();
        assert_eq!(fs::read_to_string(at("tree/below")).unwrap(), "text");
        assert_eq!(fs::read_to_string(at("tree/last")).unwrap(), "2\n");
        assert!(!at("tree/passing/1").exists() && at("tree/passing/2").exists());
        // below, last, passing and 2 in it, data, and two directories of files in that.
        assert_eq!(Tree::of(&at("tree")).unwrap().entries, 5 + 2 * (FILES + 1));
        image.write_layout(&at("layout")).unwrap();
        assert_eq!(fs::read_dir(at("layout/blobs/sha256")).unwrap().count(), 3 + 2);
    }
}
