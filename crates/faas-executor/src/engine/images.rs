//! Sees to it that a backend has the image of a sandbox: from where it is already, or from its registry.

use super::backend::Backend;
use super::{Inner, PullPolicy};
#[cfg(all(target_os = "linux", feature = "native"))]
use crate::images::ImageLease;
#[cfg(all(target_os = "linux", feature = "native"))]
use crate::sandbox::HOST_IMAGE;
use crate::sandbox::{SandboxError, SandboxSpec};
#[cfg(all(target_os = "linux", feature = "native", feature = "docker"))]
use crate::{docker::DockerExecutor, images::ImageName};

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
            #[cfg(all(target_os = "linux", feature = "native"))]
            _ if lent(inner, docker, &spec.image).await? => {}
            PullPolicy::IfMissing => docker.fetch_image(&spec.image, false).await?,
            PullPolicy::Never => {
                return Err(SandboxError::ImageUnavailable {
                    image: spec.image.clone(),
                    reason:
                        "the engine does not have it, and images are not pulled here (the option pull is \
                             `never`): fetch it with `docker pull`, or import it"
                            .to_owned(),
                });
            }
        },
    }
    Ok(())
}

/// Whether the engine was given the image from the store. It takes images by a tag alone.
#[cfg(all(target_os = "linux", feature = "native", feature = "docker"))]
async fn lent(inner: &Inner, docker: &DockerExecutor, image: &str) -> Result<bool, SandboxError> {
    let Some(name) = image.parse::<ImageName>().ok().filter(|name| name.tag().is_some()) else {
        return Ok(false);
    };
    let Some(lease) = inner.images.get(image)? else { return Ok(false) };
    docker.take_image(image, inner.images.export(&lease, &name)).await?;
    Ok(true)
}

/// The image of this name from the store, had from elsewhere as the policy says. `None`: it is not the store's to give.
#[cfg(all(target_os = "linux", feature = "native"))]
async fn stored(inner: &Inner, name: &str) -> Result<Option<ImageLease>, SandboxError> {
    if name == HOST_IMAGE {
        return Ok(None);
    }
    let nobody_watches = |_| {};
    let or_pull = match inner.config.pull {
        PullPolicy::Always => return Ok(Some(inner.images.pull(name, nobody_watches).await?)),
        PullPolicy::IfMissing => true,
        PullPolicy::Never => false,
    };
    #[cfg(feature = "docker")]
    let elsewhere = {
        let docker = inner.backends.docker();
        let name = name.to_owned();
        move || async move {
            Ok(match docker {
                Some(docker) => docker.give_image(&name).await,
                None => None,
            })
        }
    };
    #[cfg(not(feature = "docker"))]
    let elsewhere = || async { Ok(None) };
    Ok(Some(inner.images.get_or_take(name, or_pull, elsewhere, nobody_watches).await?))
}
