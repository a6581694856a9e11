//! What the HTTP layer asks of the engine: a seam, so that the layer is tested without sandboxes.

use std::pin::Pin;

use faas_executor::{Engine, EngineError, ExecuteSpec, ExecutionOutcome, LiveOutput};
use faas_types::Capabilities;

/// A future that a trait object can give.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Runs executions. Dropping the future of [`Executions::execute`] cancels the execution.
pub(crate) trait Executions: Send + Sync {
    /// Runs one program in a fresh sandbox.
    fn execute(&self, spec: ExecuteSpec) -> BoxFuture<'_, Result<ExecutionOutcome, EngineError>>;

    /// The same, with the output given to `live` as it comes.
    fn execute_live<'a>(
        &'a self,
        spec: ExecuteSpec,
        live: &'a mut dyn LiveOutput,
    ) -> BoxFuture<'a, Result<ExecutionOutcome, EngineError>>;

    /// What every runtime can do here.
    fn capabilities(&self) -> BoxFuture<'_, Capabilities>;
}

impl Executions for Engine {
    fn execute(&self, spec: ExecuteSpec) -> BoxFuture<'_, Result<ExecutionOutcome, EngineError>> {
        Box::pin(self.execute(spec))
    }

    fn execute_live<'a>(
        &'a self,
        spec: ExecuteSpec,
        live: &'a mut dyn LiveOutput,
    ) -> BoxFuture<'a, Result<ExecutionOutcome, EngineError>> {
        Box::pin(self.execute_live(spec, live))
    }

    fn capabilities(&self) -> BoxFuture<'_, Capabilities> {
        Box::pin(self.capabilities())
    }
}
