//! Sees to it that a backend has the image of a sandbox: from where it is already, or from its registry.

use super::backend::Backend;
use super::{Inner, PullPolicy};
#[cfg(all(target_os = "linux", feature = "native"))]
use crate::images::{ImageError, ImageLease};
#[cfg(all(target_os = "linux", feature = "native"))]
use crate::sandbox::HOST_IMAGE;
use crate::sandbox::{SandboxError, SandboxSpec};

/// Has the image of `spec` where `backend` can use it. May take long, and needs no place for a sandbox.
pub(super) async fn prepare(
    inner: &Inner,
    backend: Backend<'_>,
    spec: &mut SandboxSpec,
) -> Result<(), SandboxError> {
    match backend {
        #[cfg(all(target_os = "linux", feature = "native"))]
        Backend::Native(_) => spec.stored = stored(inner, &spec.image).await?,
        #[cfg(feature = "docker")]
        Backend::Docker(docker) => match inner.config.pull {
            PullPolicy::Always => docker.fetch_image(&spec.image, true).await?,
            _ if docker.has_image(&spec.image).await? => {}
            PullPolicy::IfMissing => docker.fetch_image(&spec.image, false).await?,
            PullPolicy::Never => {
                return Err(SandboxError::ImageUnavailable {
                    image: spec.image.clone(),
                    reason:
                        "the engine does not have it, and images are not pulled here (the option pull is \
                             `never`): fetch it with `docker pull`"
                            .to_owned(),
                });
            }
        },
    }
    Ok(())
}

/// The image of this name from the store, fetched as the policy says. `None`: it is not the store's to give.
#[cfg(all(target_os = "linux", feature = "native"))]
async fn stored(inner: &Inner, name: &str) -> Result<Option<ImageLease>, SandboxError> {
    if name == HOST_IMAGE {
        return Ok(None);
    }
    let nobody_watches = |_| {};
    let lease = match inner.config.pull {
        PullPolicy::Never => match inner.images.get(name)? {
            Some(lease) => lease,
            None => return Err(ImageError::NotFound { image: name.to_owned() }.into()),
        },
        PullPolicy::IfMissing => inner.images.get_or_pull(name, nobody_watches).await?,
        PullPolicy::Always => inner.images.pull(name, nobody_watches).await?,
    };
    Ok(Some(lease))
}
