//! What this gateway's mark is on and nobody owns: containers of the engine, directories of the backend.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use faas_types::SandboxId;

use super::client::{CallError, unavailable};
use super::probe::Live;
use super::shared::Shared;
use super::sweep;
use crate::sandbox::{Leak, SandboxError};

/// Where below the backend's directory the agents are.
const AGENTS: &str = "agent";

/// All that is left over.
pub(super) async fn leaks(shared: &Shared, lasting: &BTreeSet<SandboxId>) -> Result<Vec<Leak>, SandboxError> {
    let mut leaks = Vec::new();
    if let Some(dir) = shared.own_dir() {
        let agents = std::iter::once(shared.agent()).chain(shared.old_agents.iter().cloned()).collect();
        leaks.extend(others(dir, &BTreeSet::from([AGENTS.to_owned()]))?);
        leaks.extend(others(&dir.join(AGENTS), &agents)?);
    }
    let live = shared.probe.now().await.map_err(unavailable)?;
    let containers = containers(shared, &live, lasting).await.map_err(|error| {
        shared.probe.note(&error);
        error.into_sandbox_error()
    })?;
    leaks.extend(containers);
    Ok(leaks)
}

async fn containers(
    shared: &Shared,
    live: &Live,
    lasting: &BTreeSet<SandboxId>,
) -> Result<Vec<Leak>, CallError> {
    let listed = sweep::list(shared, live).await?;
    // Asked afterwards: what was listed and is held no more was removed meanwhile, or is a leak.
    let unheld = shared.claims().unheld(listed, lasting);
    if unheld.is_empty() {
        return Ok(Vec::new());
    }
    // What was just given back is not there any more.
    let again: BTreeSet<_> =
        sweep::list(shared, live).await?.into_iter().map(|(_, listed)| listed.container).collect();
    let left = unheld.into_iter().map(|(_, listed)| listed.container);
    let left = left.filter(|container| again.contains(container));
    Ok(left.map(|name| Leak { kind: "container", name }).collect())
}

/// What is in a directory beside what belongs there.
fn others(dir: &Path, own: &BTreeSet<String>) -> Result<Vec<Leak>, SandboxError> {
    let at = |source: io::Error| SandboxError::Io { path: dir.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(at)? {
        let entry = entry.map_err(at)?;
        if entry.file_name().to_str().is_some_and(|name| own.contains(name)) {
            continue;
        }
        let kind = if entry.file_type().map_err(at)?.is_dir() { "directory" } else { "file" };
        found.push(Leak { kind, name: entry.path().display().to_string() });
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::others;

    #[test]
    fn what_belongs_to_nobody_is_named_with_its_kind() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("agent")).unwrap();
        std::fs::create_dir(dir.path().join("left")).unwrap();
        std::fs::write(dir.path().join("note"), "").unwrap();
        let found = others(dir.path(), &["agent".to_owned()].into()).unwrap();
        let kinds: Vec<_> = found.iter().map(|leak| leak.kind).collect();
        assert_eq!(kinds, ["directory", "file"]);
        assert!(found[0].name.ends_with("/left"), "{found:?}");
    }
}
