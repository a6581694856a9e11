//! What marks our containers, so that a sweep finds all of them and nobody else's.

use std::collections::HashMap;
use std::path::Path;

use faas_types::{GatewayId, SandboxId};

use crate::sandbox::Lifetime;

/// The id of the gateway that made the container.
pub(super) const GATEWAY: &str = "faas.gateway";
/// The sandbox that the container is.
pub(super) const SANDBOX: &str = "faas.sandbox";
/// The gateway's data directory, for whoever looks at the container and asks whose it is.
const DATA_DIR: &str = "faas.data-dir";

/// Whether the container goes on without the server: `server` or `lasting`. For whoever looks at it: what is left alone
/// is what the gateway has a record of.
const LIFETIME: &str = "faas.lifetime";

/// The name of a sandbox's container.
pub(super) fn name(gateway: &GatewayId, sandbox: &SandboxId) -> String {
    format!("faas-{gateway}-{sandbox}")
}

/// The name of a lasting sandbox's container until it is kept. A name is what an engine lets be changed later, at once and
/// for good.
pub(super) fn name_before(gateway: &GatewayId, sandbox: &SandboxId) -> String {
    format!("{}{BEFORE}", name(gateway, sandbox))
}

/// The end of such a name. No sandbox's id has a dot.
const BEFORE: &str = ".new";

/// Whether a container of this name was kept.
pub(super) fn is_kept(name: &str) -> bool {
    !name.ends_with(BEFORE)
}

/// The labels of a sandbox's container.
pub(super) fn of(
    gateway: &GatewayId,
    sandbox: &SandboxId,
    data_dir: &Path,
    lifetime: Lifetime,
) -> HashMap<String, String> {
    let lifetime = match lifetime {
        Lifetime::Server => "server",
        Lifetime::Lasting => "lasting",
    };
    HashMap::from([
        (LIFETIME.to_owned(), lifetime.to_owned()),
        (GATEWAY.to_owned(), gateway.to_string()),
        (SANDBOX.to_owned(), sandbox.to_string()),
        (DATA_DIR.to_owned(), data_dir.display().to_string()),
    ])
}

/// The sandbox that a container's labels say it is, if they are this gateway's.
pub(super) fn marked(gateway: &GatewayId, labels: Option<&HashMap<String, String>>) -> Option<SandboxId> {
    let labels = labels?;
    (labels.get(GATEWAY)? == gateway.as_str()).then(|| labels.get(SANDBOX).cloned())?.map(SandboxId)
}

/// The sandbox that a container of an engine's list is, if it is one of this gateway's. The name must fit the labels:
/// an image can bring labels of its own into whatever container somebody makes from it.
pub(super) fn sandbox_of(
    gateway: &GatewayId,
    labels: Option<&HashMap<String, String>>,
    names: Option<&[String]>,
) -> Option<SandboxId> {
    let sandbox = marked(gateway, labels)?;
    let name = name(gateway, &sandbox);
    let fits = |other: &String| {
        let other = other.trim_start_matches('/');
        other.strip_suffix(BEFORE).unwrap_or(other) == name
    };
    names?.iter().any(fits).then_some(sandbox)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use faas_types::{GatewayId, SandboxId};

    use super::{GATEWAY, SANDBOX, is_kept, name, name_before, of, sandbox_of};
    use crate::sandbox::Lifetime;

    #[test]
    fn a_container_is_ours_by_labels_and_name_together() {
        let (gateway, sandbox) = (GatewayId("g1".into()), SandboxId("sb-1".into()));
        let labels = of(&gateway, &sandbox, Path::new("/d"), Lifetime::Server);
        let names = [format!("/{}", name(&gateway, &sandbox))];
        assert_eq!(sandbox_of(&gateway, Some(&labels), Some(&names)), Some(sandbox.clone()));
        let before = name_before(&gateway, &sandbox);
        assert!(is_kept(&names[0]) && !is_kept(&before));
        assert_eq!(sandbox_of(&gateway, Some(&labels), Some(&[before])), Some(sandbox));
        let other = GatewayId("g2".into());
        assert_eq!(sandbox_of(&other, Some(&labels), Some(&names)), None);
        assert_eq!(sandbox_of(&gateway, Some(&labels), Some(&["/mine".to_owned()])), None);
        let of_an_image =
            HashMap::from([(GATEWAY.to_owned(), "g1".to_owned()), (SANDBOX.to_owned(), String::new())]);
        assert_eq!(sandbox_of(&gateway, Some(&of_an_image), Some(&["/x".to_owned()])), None);
        assert_eq!(sandbox_of(&gateway, None, None), None);
    }
}
