//! Files of an instance: each operation is a program of the agent's own binary, run in the sandbox as whoever it is for.
//! So names are resolved by the sandbox's kernel with that user's rights, and all limits hold.

use std::time::Duration;

use faas_guest_protocol::Program;
use faas_guest_protocol::files::{FILE_VERB, FileRequest};
use faas_types::{InstanceId, TenantId};

use super::Instances;
use super::create::deleted_meanwhile;
use super::exec::lost;
use super::file_work::{FileWork, finishes_within};
use crate::engine::execute::{self, Call};
use crate::error::EngineError;
use crate::guest::{Lines, RunningProgram};

/// The agent's binary as every sandbox has it.
const AGENT: &str = "/.faas/agent";

/// Something to be done with files.
#[derive(Clone, Debug)]
pub struct FileCall {
    /// What. Its paths are not empty and without NUL.
    pub request: FileRequest,
    /// As whom, or as the instance's user.
    pub user: Option<String>,
}

impl Instances {
    /// Begins an operation on the files of an instance.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn begin_file(
        &self,
        tenant: &TenantId,
        id: &InstanceId,
        call: FileCall,
    ) -> Result<FileWork, EngineError> {
        let live = self.live(tenant, id)?;
        let in_use = live.use_it();
        self.wake(&live).await?;
        let info = live.info();
        let memory_mb = info.limits.memory_bytes >> 20;
        let backend = self.backend(info.runtime)?;
        let json = serde_json::to_string(&call.request).map_err(|_| execute::too_large())?;
        let is_absolute = call.request.path().0.starts_with(b"/");
        let order = Call {
            program: Program::Argv(vec![AGENT.to_owned(), FILE_VERB.to_owned(), json]),
            env: Vec::new(),
            // Only what is relative to it needs it to be there.
            working_dir: if is_absolute { Some("/".to_owned()) } else { info.defaults.working_dir },
            user: call.user.or(info.defaults.user),
            stdin: None,
            files: Vec::new(),
            timeout: Duration::ZERO,
            max_output_bytes: u64::MAX,
            held: None,
        };
        let mut program = {
            let place = live.place.read().await;
            let Some(sandbox) = &place.sandbox else {
                drop(place);
                return Err(lost(&live, "its sandbox is gone", false, memory_mb).await);
            };
            let stream = tokio::select! {
                reached = backend.connect(sandbox) => reached?,
                // Whoever removes it waits for the place.
                () = live.doomed.cancelled() => return Err(deleted_meanwhile()),
            };
            let mut order = order.for_image(&sandbox.image).request;
            order.timeout_ms = None;
            order.stdin = call.request.takes_content();
            order.finish_ms =
                finishes_within(&call.request).map(|time| time.as_millis().try_into().unwrap_or(u64::MAX));
            RunningProgram::start(stream, &order).map_err(|_| execute::too_large())?
        };
        match program.input.flush().await {
            // Why it ended is told by what it says.
            Ok(()) | Err(_) => {}
        }
        Ok(FileWork {
            frozen: live.frozen.subscribe(),
            live,
            _in_use: in_use,
            runtime: info.runtime,
            memory_mb,
            program: Some(program),
            said: Lines::default(),
            spoke: false,
            closed: self.inner.closed.clone(),
        })
    }
}
