//! What the backend does not do for a given sandbox, known from the engine's facts. No I/O.

use faas_types::{Network, Runtime};

use super::facts::Facts;
use crate::sandbox::{HOST_IMAGE, SandboxError, SandboxSpec, Unsupported};

pub(super) fn unsupported(operation: &str, reason: impl Into<String>) -> SandboxError {
    Unsupported { runtime: Runtime::Docker, operation: operation.to_owned(), reason: reason.into() }.into()
}

/// Why an engine with these facts cannot make this sandbox, if that is known before it is asked.
pub(super) fn refuse(facts: &Facts, spec: &SandboxSpec) -> Result<(), SandboxError> {
    if spec.image == HOST_IMAGE {
        return Err(SandboxError::ImageUnavailable {
            image: spec.image.clone(),
            reason:
                "the machine's own programs are an image of the native runtime alone; name an image of the \
                     engine or of a registry"
                    .to_owned(),
        });
    }
    if spec.network == Network::Egress {
        let egress = facts.egress();
        if !egress.supported {
            return Err(unsupported("network egress", egress.detail));
        }
    }
    if spec.limits.disk_bytes.is_some() {
        let disk = facts.disk();
        if !disk.supported {
            return Err(unsupported("disk_mb", disk.detail));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use faas_types::{Network, SandboxId};

    use super::{Facts, refuse};
    use crate::sandbox::{Limits, SandboxError, SandboxSpec};

    fn spec(image: &str, network: Network, disk_bytes: Option<u64>) -> SandboxSpec {
        let limits = Limits { memory_bytes: 1 << 28, cpu_millicores: 1000, pids: 64, disk_bytes };
        SandboxSpec::new(SandboxId("sb-1".into()), image.into(), limits, network)
    }

    #[test]
    fn what_the_engine_lacks_is_refused_with_its_name() {
        let facts = Facts { storage: "overlay2".into(), ..Facts::default() };
        refuse(&facts, &spec("alpine", Network::None, None)).unwrap();
        let egress = refuse(&facts, &spec("alpine", Network::Egress, None)).unwrap_err();
        assert!(matches!(egress, SandboxError::Unsupported(_)) && egress.to_string().contains("bridge"));
        let disk = refuse(&facts, &spec("alpine", Network::None, Some(1 << 30))).unwrap_err();
        assert!(matches!(disk, SandboxError::Unsupported(_)) && disk.to_string().contains("overlay2"));
        refuse(&Facts { bridge: true, ..facts.clone() }, &spec("alpine", Network::Egress, None)).unwrap();
        let host = refuse(&facts, &spec("host", Network::None, None)).unwrap_err();
        assert!(matches!(host, SandboxError::ImageUnavailable { .. }));
    }
}
