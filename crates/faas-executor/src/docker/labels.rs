//! What marks our containers, so that a sweep finds all of them and nobody else's.

use std::collections::HashMap;
use std::path::Path;

use faas_types::{GatewayId, SandboxId};

/// The id of the gateway that made the container.
pub(super) const GATEWAY: &str = "faas.gateway";
/// The sandbox that the container is.
pub(super) const SANDBOX: &str = "faas.sandbox";
/// The gateway's data directory, for whoever looks at the container and asks whose it is.
const DATA_DIR: &str = "faas.data-dir";

/// The name of a sandbox's container.
pub(super) fn name(gateway: &GatewayId, sandbox: &SandboxId) -> String {
    format!("faas-{gateway}-{sandbox}")
}

/// The labels of a sandbox's container.
pub(super) fn of(gateway: &GatewayId, sandbox: &SandboxId, data_dir: &Path) -> HashMap<String, String> {
    HashMap::from([
        (GATEWAY.to_owned(), gateway.to_string()),
        (SANDBOX.to_owned(), sandbox.to_string()),
        (DATA_DIR.to_owned(), data_dir.display().to_string()),
    ])
}

/// The sandbox that a container of an engine's list is, if it is one of this gateway's. The name must fit the labels:
/// an image can bring labels of its own into whatever container somebody makes from it.
pub(super) fn sandbox_of(
    gateway: &GatewayId,
    labels: Option<&HashMap<String, String>>,
    names: Option<&[String]>,
) -> Option<SandboxId> {
    let labels = labels?;
    if labels.get(GATEWAY)? != gateway.as_str() {
        return None;
    }
    let sandbox = SandboxId(labels.get(SANDBOX)?.clone());
    let name = name(gateway, &sandbox);
    names?.iter().any(|other| other.trim_start_matches('/') == name).then_some(sandbox)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use faas_types::{GatewayId, SandboxId};

    use super::{GATEWAY, SANDBOX, name, of, sandbox_of};

    #[test]
    fn a_container_is_ours_by_labels_and_name_together() {
        let (gateway, sandbox) = (GatewayId("g1".into()), SandboxId("sb-1".into()));
        let labels = of(&gateway, &sandbox, Path::new("/d"));
        let names = [format!("/{}", name(&gateway, &sandbox))];
        assert_eq!(sandbox_of(&gateway, Some(&labels), Some(&names)), Some(sandbox));
        let other = GatewayId("g2".into());
        assert_eq!(sandbox_of(&other, Some(&labels), Some(&names)), None);
        assert_eq!(sandbox_of(&gateway, Some(&labels), Some(&["/mine".to_owned()])), None);
        let of_an_image =
            HashMap::from([(GATEWAY.to_owned(), "g1".to_owned()), (SANDBOX.to_owned(), String::new())]);
        assert_eq!(sandbox_of(&gateway, Some(&of_an_image), Some(&["/x".to_owned()])), None);
        assert_eq!(sandbox_of(&gateway, None, None), None);
    }
}
