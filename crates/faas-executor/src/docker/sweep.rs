//! Removes containers that bear this gateway's mark and that nobody owns: what an earlier gateway of the data directory
//! left, and what the engine did not remove when it was asked to. Lasting ones are left alone, but for a run of theirs
//! that was begun and never put on record: that is ended, and the files stay.

use std::sync::Arc;
use std::time::Duration;

use bollard::models::ContainerSummaryStateEnum as State;
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder};
use faas_types::SandboxId;
use futures_util::{StreamExt as _, stream};

use super::claims::Claim;
use super::client::{CallError, Client, QUICK, SLOW};
use super::probe::Live;
use super::record::Run;
use super::shared::Shared;
use super::{destroy, halt, labels};

/// How long it is waited for the next sweep when all is well.
const PERIOD: Duration = Duration::from_secs(60);

/// How long it is waited when something is known to be left.
const SOON: Duration = Duration::from_secs(2);

/// How many are removed at once.
const AT_ONCE: usize = 8;

/// Sweeps for as long as the backend runs: at its start, each [`PERIOD`], when the engine comes back, and a little
/// after something could not be removed.
pub(super) async fn keep_sweeping(shared: Arc<Shared>) {
    let mut wait = Duration::ZERO;
    // Whether something is known to be left, so that the engine's return is worth asking for.
    let mut left = false;
    loop {
        tokio::select! {
            () = shared.closed.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            () = shared.probe.came_back.notified() => {}
            () = shared.owed.notified() => {
                left = true;
                tokio::time::sleep(SOON).await;
            }
        }
        let swept = match shared.probe.for_work().await {
            Ok(live) => sweep(&shared, &live).await.map_err(|error| {
                shared.probe.note(&error);
                error.to_string()
            }),
            // Nothing can be done now.
            Err(_reason) => {
                wait = if left { SOON } else { PERIOD };
                continue;
            }
        };
        left = swept.is_err();
        wait = match swept {
            Ok(0) => PERIOD,
            Ok(count) => {
                tracing::warn!(count, "removed or ended containers that nobody owned");
                PERIOD
            }
            Err(error) => {
                tracing::warn!(error, "containers could not be swept");
                SOON
            }
        };
    }
}

/// One of this gateway's containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) container: String,
    pub(super) runs: bool,
}

/// All containers of this gateway that the engine has, owned or not.
pub(super) async fn list(shared: &Shared, live: &Live) -> Result<Vec<(SandboxId, Listed)>, CallError> {
    let filter = ("label".to_owned(), vec![format!("{}={}", labels::GATEWAY, shared.gateway)]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&[filter].into()).build();
    let listed = live.client.docker.list_containers(Some(options));
    let listed = live.client.call("list containers", SLOW, listed).await?;
    let ours = listed.into_iter().filter_map(|container| {
        let sandbox =
            labels::sandbox_of(&shared.gateway, container.labels.as_ref(), container.names.as_deref())?;
        let runs = matches!(container.state, Some(State::RUNNING | State::PAUSED | State::RESTARTING));
        Some((sandbox, Listed { container: container.id?, runs }))
    });
    Ok(ours.collect())
}

/// Removes all that nobody owns, and ends all that should not run; how many there were.
pub(super) async fn sweep(shared: &Shared, live: &Live) -> Result<usize, CallError> {
    let mut work = Vec::new();
    for (id, listed) in list(shared, live).await? {
        match shared.claims().of(&id) {
            Claim::Held | Claim::Kept(None) => {}
            Claim::Kept(Some(run)) if !listed.runs || run.container != listed.container => {}
            Claim::Kept(Some(run)) => work.push((id, Some(run), listed.container)),
            Claim::None => work.push((id, None, listed.container)),
        }
    }
    let work = work.into_iter().map(|(id, run, container)| {
        let client = live.client.clone();
        async move {
            match run {
                None => destroy::remove(&client, &container).await,
                Some(run) => end_stray(shared, &client, &id, &run).await,
            }
        }
    });
    let mut work = stream::iter(work).buffer_unordered(AT_ONCE);
    let (mut count, mut failed) = (0, None);
    while let Some(done) = work.next().await {
        match done {
            Ok(was_there) => count += usize::from(was_there),
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(count), Err)
}

/// Ends what runs in a kept container where that is not the run on record: it was begun by a server that was killed in
/// the middle, or by somebody else.
async fn end_stray(shared: &Shared, client: &Client, id: &SandboxId, run: &Run) -> Result<bool, CallError> {
    let _turn = shared.turns.turn(id.as_str()).await;
    let inspected = client.docker.inspect_container(&run.container, None::<InspectContainerOptions>);
    let state = match client.call("tell of a container", QUICK, inspected).await {
        Err(error) if error.is_not_found() => return Ok(false),
        other => other?.state.unwrap_or_default(),
    };
    // Whoever begins or takes over a run has the turn; nothing has changed since but that somebody may hold it now.
    let is_unchanged = shared.claims().of(id) == Claim::Kept(Some(run.clone()));
    if !is_unchanged || state.started_at.as_deref() == Some(&run.started_at) {
        return Ok(false);
    }
    halt::end(client, &run.container).await
}
