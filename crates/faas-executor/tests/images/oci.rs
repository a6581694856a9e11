//! Images as registries and archives have them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use faas_executor::images::Digest;
use serde_json::{Value, json};

use super::layer::{Item, Layer};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn compress(bytes: &[u8], how: Compression) -> Vec<u8> {
    match how {
        Compression::None => bytes.to_vec(),
        Compression::Gzip => gzip(bytes),
        Compression::Zstd => zstd::encode_all(bytes, 1).unwrap(),
    }
}

/// This machine's processor in Go's words.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// An image: every blob by its digest, and which is which.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) blobs: BTreeMap<Digest, Vec<u8>>,
    pub(crate) manifest: Digest,
    pub(crate) config: Digest,
    pub(crate) layers: Vec<Digest>,
    pub(crate) tars: Vec<Vec<u8>>,
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len() })
}

impl Image {
    /// An image of these tar streams.
    pub(crate) fn of(tars: &[Vec<u8>], compression: Compression) -> Self {
        let diff_ids: Vec<_> = tars.iter().map(|tar| Digest::of(tar).to_string()).collect();
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": { "Env": ["PATH=/bin", "A=b"], "WorkingDir": "/srv", "User": "7", "Cmd": ["sh"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        Self::with_config(tars, compression, &config)
    }

    pub(crate) fn with_config(tars: &[Vec<u8>], compression: Compression, config: &Value) -> Self {
        let suffix = match compression {
            Compression::None => "",
            Compression::Gzip => "+gzip",
            Compression::Zstd => "+zstd",
        };
        let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
        let config = serde_json::to_vec(config).unwrap();
        let layers: Vec<_> = tars.iter().map(|tar| compress(tar, compression)).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers.iter().map(|layer| descriptor(&media_type, layer)).collect::<Vec<_>>(),
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let digests = layers.iter().map(|layer| Digest::of(layer)).collect();
        let mut image = Self {
            blobs: BTreeMap::new(),
            manifest: Digest::of(&manifest),
            config: Digest::of(&config),
            layers: digests,
            tars: tars.to_vec(),
        };
        for blob in layers.into_iter().chain([config, manifest]) {
            image.blobs.insert(Digest::of(&blob), blob);
        }
        image
    }

    /// An image of one layer that is easy to recognise.
    pub(crate) fn small(text: &str) -> Self {
        Self::of(&[Layer::new().dir("etc", 0o755).file("etc/text", text).end()], Compression::Gzip)
    }

    pub(crate) fn index_json(&self, name: Option<&str>) -> Value {
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &self.blobs[&self.manifest]);
        if let Some(name) = name {
            entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        }
        json!({ "schemaVersion": 2, "manifests": [entry] })
    }

    /// All files of an OCI layout.
    pub(crate) fn layout(&self, name: Option<&str>) -> Vec<(String, Vec<u8>)> {
        let mut files = vec![
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), serde_json::to_vec(&self.index_json(name)).unwrap()),
        ];
        let blobs = self.blobs.iter();
        files.extend(blobs.map(|(digest, bytes)| (format!("blobs/sha256/{}", digest.hex()), bytes.clone())));
        files
    }

    pub(crate) fn write_layout(&self, dir: &Path, name: Option<&str>) {
        for (path, bytes) in self.layout(name) {
            let path = dir.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }

    /// What `docker save` wrote before it wrote OCI layouts: the second of two equal layers is a link to the first.
    pub(crate) fn docker_save(&self, tags: &[&str]) -> Vec<u8> {
        let config_name = format!("{}.json", self.config.hex());
        let mut archive = Layer::new().item(Item {
            name: config_name.as_bytes(),
            data: &self.blobs[&self.config],
            ..Item::default()
        });
        let mut names: Vec<String> = Vec::new();
        for (number, tar) in self.tars.iter().enumerate() {
            let name = format!("layer{number}/layer.tar");
            archive = archive.dir(&format!("layer{number}/"), 0o755);
            let same = self.tars[..number].iter().position(|other| other == tar);
            archive = match same {
                Some(same) => archive.symlink(&name, &format!("../layer{same}/layer.tar")),
                None => archive.item(Item { name: name.as_bytes(), data: tar, ..Item::default() }),
            };
            names.push(name);
        }
        let manifest = json!([{ "Config": config_name, "RepoTags": tags, "Layers": names }]);
        archive.file("manifest.json", &manifest.to_string()).end()
    }
}

/// Files as a tar stream.
pub(crate) fn tar_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    files
        .iter()
        .fold(Layer::new(), |tar, (name, data)| {
            tar.item(Item { name: name.as_bytes(), data, ..Item::default() })
        })
        .end()
}
