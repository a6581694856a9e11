//! Images of the store as clients and the command line are told of them.

use faas_executor::images::{self, Progress};
use faas_types::{EnvVars, ImageInfo, ImageProgress};

use crate::instance_info::timestamp;

/// An image as it is shown.
pub(crate) fn info(image: images::ImageInfo) -> ImageInfo {
    let config = &image.config;
    ImageInfo {
        id: image.id.to_string(),
        names: image.names,
        repo_digests: image.repo_digests,
        architecture: config.architecture.clone(),
        created_at: config.created.clone(),
        size_bytes: image.size_bytes,
        layers: image.layers,
        added_at: timestamp(image.added_unix_ms),
        last_used_at: timestamp(image.last_used_unix_ms),
        in_use: image.is_in_use,
        env_vars: EnvVars(config.env.clone()),
        working_dir: config.working_dir.clone(),
        user: config.user.clone(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
    }
}

/// A step as it is shown.
pub(crate) fn progress(step: Progress) -> ImageProgress {
    ImageProgress {
        phase: step.phase.as_str().to_owned(),
        layer: step.layer.map(|layer| layer.to_string()),
        done_bytes: step.done_bytes,
        total_bytes: step.total_bytes,
    }
}
