//! Images of the store as clients and the command line are told of them.

use faas_executor::images::{self, Progress};
use faas_types::{EnvVars, ImageInfo, ImageProgress};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

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

/// Milliseconds since 1970 as RFC 3339 has them, in UTC.
fn timestamp(unix_ms: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000);
    // A clock beyond the year 9999 has no such form.
    at.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::timestamp;

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
    }
}
