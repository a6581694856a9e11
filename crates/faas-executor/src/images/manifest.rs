//! Manifests and indexes: what an image consists of (OCI image specification, "Image Manifest" and "Image Index";
//! Docker's schema 2 has the same members).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::digest::Digest;
use super::error::ImageError;
use super::platform::Platform;

/// The largest manifest or index (the distribution specification's limit for registries).
pub(crate) const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// The most layers of one image. Docker makes at most 127.
pub(crate) const MAX_LAYERS: usize = 200;

/// The annotation with an image's name in an OCI layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The annotation with the whole name, as containerd and buildx write it.
const FULL_NAME: &str = "io.containerd.image.name";

/// What a registry is asked for.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// What one blob is.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    /// Its format.
    #[serde(default)]
    pub(crate) media_type: String,
    /// Its digest.
    pub(crate) digest: Digest,
    /// Its length in bytes.
    pub(crate) size: u64,
    /// What it is for, in an index.
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
    /// Names and notes.
    #[serde(default)]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// The image's name in the annotations of an OCI layout's index: the whole one where there is one.
    pub(crate) fn name(&self) -> Option<&str> {
        let annotations = self.annotations.as_ref()?;
        annotations.get(FULL_NAME).or_else(|| annotations.get(REF_NAME)).map(String::as_str)
    }
}

/// One image for one platform.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    /// The configuration.
    pub(crate) config: Descriptor,
    /// The layers, the lowest first.
    pub(crate) layers: Vec<Descriptor>,
}

/// What a document is.
#[derive(Clone, Debug)]
pub(crate) enum Document {
    /// Images for several platforms, or several images.
    Index(Vec<Descriptor>),
    /// One image.
    Manifest(Manifest),
}

/// Why a document cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    #[error("the manifest is no valid JSON: {0}")]
    Json(String),
    #[error("the manifest is of version {0}; version 2 is expected")]
    Version(u64),
    #[error("the manifest is an index and an image at once")]
    Ambiguous,
    #[error("the manifest names neither images nor layers")]
    Neither,
    #[error("it has more than {MAX_LAYERS} layers")]
    TooManyLayers,
    #[error("it is no image for containers: a part of it is of type {0}")]
    NoImage(String),
}

impl Document {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Raw {
            config: Option<Descriptor>,
            layers: Option<Vec<Descriptor>>,
            manifests: Option<Vec<Descriptor>>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Versioned {
            #[serde(default)]
            schema_version: u64,
        }
        let json = |error: serde_json::Error| ManifestError::Json(error.to_string());
        let version: Versioned = serde_json::from_slice(bytes).map_err(json)?;
        if version.schema_version != 2 {
            return Err(ManifestError::Version(version.schema_version));
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(json)?;
        match (raw.manifests, raw.config, raw.layers) {
            (Some(manifests), None, None) => Ok(Self::Index(manifests)),
            (None, Some(config), layers) => {
                let layers = layers.unwrap_or_default();
                if layers.len() > MAX_LAYERS {
                    return Err(ManifestError::TooManyLayers);
                }
                let manifest = Manifest { config, layers };
                manifest.check_types()?;
                Ok(Self::Manifest(manifest))
            }
            // CVE-2021-41190: one document must not be two things to two readers.
            (Some(_), _, _) => Err(ManifestError::Ambiguous),
            (None, None, _) => Err(ManifestError::Neither),
        }
    }
}

impl Manifest {
    /// Whether configuration and layers are those of an image. How a layer is compressed is seen from its bytes, so
    /// the suffix does not matter.
    fn check_types(&self) -> Result<(), ManifestError> {
        let refused = |media_type: &str| {
            ManifestError::NoImage(
                media_type.chars().take(100).collect::<String>().escape_debug().to_string(),
            )
        };
        if !matches!(
            self.config.media_type.as_str(),
            "" | "application/vnd.oci.image.config.v1+json"
                | "application/vnd.docker.container.image.v1+json"
        ) {
            return Err(refused(&self.config.media_type));
        }
        let is_layer = |media_type: &str| {
            media_type.is_empty()
                || media_type.starts_with("application/vnd.oci.image.layer.v1.tar")
                || media_type.starts_with("application/vnd.docker.image.rootfs.diff.tar")
        };
        match self
            .layers
            .iter()
            .find(|layer| !is_layer(&layer.media_type) || layer.media_type.ends_with("+encrypted"))
        {
            Some(layer) => Err(refused(&layer.media_type)),
            None => Ok(()),
        }
    }
}

/// The entry of an index that this machine runs, or which platforms there are.
pub(crate) fn pick<'a>(image: &str, entries: &'a [Descriptor]) -> Result<&'a Descriptor, ImageError> {
    let platform = |entry: &Descriptor| entry.platform.clone().unwrap_or_default();
    if let Some(entry) = entries.iter().find(|entry| platform(entry).runs_here()) {
        return Ok(entry);
    }
    let found: Vec<String> = entries
        .iter()
        .map(platform)
        .filter(|platform| !platform.is_unknown())
        .take(20)
        .map(|platform| platform.to_string())
        .collect();
    Err(ImageError::WrongArchitecture {
        image: image.to_owned(),
        wanted: Platform::here().to_string(),
        found: if found.is_empty() { "no platform".to_owned() } else { found.join(", ") },
    })
}

#[cfg(test)]
mod tests {
    use super::{Document, ManifestError, pick};
    use crate::images::digest::Digest;
    use crate::images::error::ImageError;
    use crate::images::platform::Platform;

    fn descriptor(media_type: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":1}}"#, Digest::of(b"x"))
    }

    #[test]
    fn a_document_is_one_thing_only() {
        let config = descriptor("application/vnd.oci.image.config.v1+json");
        let layer = descriptor("application/vnd.oci.image.layer.v1.tar+zstd");
        let image = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#);
        assert!(
            matches!(Document::parse(image.as_bytes()), Ok(Document::Manifest(m)) if m.layers.len() == 1)
        );
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{layer}]}}"#);
        assert!(matches!(Document::parse(index.as_bytes()), Ok(Document::Index(_))));
        let both = format!(r#"{{"schemaVersion":2,"manifests":[],"config":{config},"layers":[]}}"#);
        assert!(matches!(Document::parse(both.as_bytes()), Err(ManifestError::Ambiguous)));
        let old = br#"{"schemaVersion":1,"fsLayers":[]}"#;
        assert!(matches!(Document::parse(old), Err(ManifestError::Version(1))));
        assert!(matches!(Document::parse(b"{\"schemaVersion\":2}"), Err(ManifestError::Neither)));
        assert!(matches!(Document::parse(b"<html>"), Err(ManifestError::Json(_))));
        let chart = descriptor("application/vnd.cncf.helm.config.v1+json");
        let chart = format!(r#"{{"schemaVersion":2,"config":{chart},"layers":[]}}"#);
        assert!(matches!(Document::parse(chart.as_bytes()), Err(ManifestError::NoImage(_))));
        let many = vec![layer.as_str(); 201].join(",");
        let many = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{many}]}}"#);
        assert!(matches!(Document::parse(many.as_bytes()), Err(ManifestError::TooManyLayers)));
    }

    #[test]
    fn the_platform_of_this_machine_is_picked_or_the_others_are_named() {
        let here = Platform::here().architecture;
        let entries = |architectures: &[&str]| {
            let entries: Vec<_> = architectures
                .iter()
                .map(|architecture| {
                    format!(
                        r#"{{"digest":"{}","size":1,"platform":{{"os":"{}","architecture":"{architecture}"}}}}"#,
                        Digest::of(architecture.as_bytes()),
                        if *architecture == "unknown" { "unknown" } else { "linux" },
                    )
                })
                .collect();
            let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
            match Document::parse(index.as_bytes()).unwrap() {
                Document::Index(entries) => entries,
                Document::Manifest(_) => unreachable!(),
            }
        };
        let good = entries(&["unknown", "s390x", &here]);
        assert_eq!(pick("x", &good).unwrap().digest, Digest::of(here.as_bytes()));
        match pick("x", &entries(&["s390x", "unknown", "riscv64"])) {
            Err(ImageError::WrongArchitecture { found, .. }) => {
                assert_eq!(found, "linux/s390x, linux/riscv64")
            }
            other => panic!("{other:?}"),
        }
    }
}
