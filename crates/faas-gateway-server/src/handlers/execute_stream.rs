//! The answer to a command as a stream.

use std::sync::Arc;

use axum::response::Response;
use faas_executor::{EngineError, ExecutionOutcome};
use faas_types::{ExecuteEvent, ExecutionStarted, RequestId};
use futures_util::stream;
use tokio_util::task::AbortOnDropHandle;

use crate::answer_budget::AnswerRoom;
use crate::error::ApiError;
use crate::events::{self, EventFormat, Named};
use crate::executions::BoxFuture;
use crate::live::{self, Reader, Writer};
use crate::response;
use crate::state::Shared;

/// How the execution ended; an error where its task did not come to an end.
type Ended = Result<Result<ExecutionOutcome, EngineError>, tokio::task::JoinError>;

/// Runs on while the client reads slowly, and ends with the answer.
struct Streaming {
    state: Shared,
    execution: Option<AbortOnDropHandle<Result<ExecutionOutcome, EngineError>>>,
    ended: Option<Ended>,
    output: Reader,
    /// For what waits after the end, when the execution's place is another's.
    room: Option<AnswerRoom>,
    request_id: RequestId,
    is_begun: bool,
}

/// Runs a command by `run` and answers as soon as it runs; what fails before that is an ordinary answer.
pub(super) async fn answer(
    state: Shared,
    request_id: RequestId,
    format: EventFormat,
    max_output_bytes: u64,
    run: impl FnOnce(Shared, Writer) -> BoxFuture<'static, Result<ExecutionOutcome, EngineError>>,
) -> Result<Response, ApiError> {
    let (writer, output) = live::channel(max_output_bytes);
    let execution = tokio::spawn(run(Arc::clone(&state), writer));
    let execution = Some(AbortOnDropHandle::new(execution));
    let mut streaming =
        Streaming { state, execution, ended: None, output, room: None, request_id, is_begun: false };
    while streaming.output.started().is_none() && streaming.ended.is_none() {
        streaming.progress().await;
    }
    if streaming.output.started().is_none() {
        match streaming.ended {
            Some(Ok(Err(error))) => return Err(ApiError::from_engine(error, &streaming.request_id)),
            Some(Err(error)) => return Err(ApiError::internal(&error)),
            Some(Ok(Ok(_))) | None => {}
        }
    }
    let events = stream::unfold(Some(streaming), |streaming| async {
        let mut streaming = streaming?;
        let (event, is_last) = streaming.next().await;
        Some((event, (!is_last).then_some(streaming)))
    });
    Ok(events::response(format, events))
}

impl Streaming {
    /// Waits until something has happened.
    async fn progress(&mut self) {
        let Some(execution) = &mut self.execution else { return self.output.more().await };
        tokio::select! {
            ended = execution => {
                self.ended = Some(ended);
                self.execution = None;
                let waiting = usize::try_from(self.output.waiting_bytes()).unwrap_or(usize::MAX);
                self.room = self.state.answers.room_now(waiting);
                if self.room.is_none() {
                    self.output.let_go();
                }
            }
            () = self.output.more() => {}
        }
    }

    /// The next event, and whether it is the last.
    async fn next(&mut self) -> (Named<ExecuteEvent>, bool) {
        loop {
            if !self.is_begun
                && let Some(execution_id) = self.execution_id()
            {
                self.is_begun = true;
                let started = ExecutionStarted { request_id: self.request_id.clone(), execution_id };
                return (self.named("started", ExecuteEvent::Started(started)), false);
            }
            if let Some(event) = self.output.take() {
                let name = match event {
                    ExecuteEvent::Stdout(_) => "stdout",
                    ExecuteEvent::Stderr(_) => "stderr",
                    _ => "gap",
                };
                return (self.named(name, event), false);
            }
            // All of its output is there before it has ended.
            if let Some(ended) = self.ended.take() {
                return match self.end(ended) {
                    Ok(event) => (self.named("exit", event), true),
                    Err(error) => {
                        let problem = error.problem(&self.request_id);
                        (Named::from(("error", ExecuteEvent::Error(problem))), true)
                    }
                };
            }
            self.progress().await;
        }
    }

    fn execution_id(&self) -> Option<faas_types::ExecutionId> {
        self.output.started().or_else(|| match &self.ended {
            Some(Ok(Ok(outcome))) => Some(outcome.execution_id.clone()),
            _ => None,
        })
    }

    fn end(&self, ended: Ended) -> Result<ExecuteEvent, ApiError> {
        match ended {
            Ok(Ok(outcome)) => {
                let response = response::execute_response(outcome, self.request_id.clone())?;
                Ok(ExecuteEvent::Exit(response.into()))
            }
            Ok(Err(error)) => Err(ApiError::from_engine(error, &self.request_id)),
            Err(error) => Err(ApiError::internal(&error)),
        }
    }

    fn named(&self, name: &'static str, said: ExecuteEvent) -> Named<ExecuteEvent> {
        Named { name: name.into(), id: Some(self.output.offset()), said }
    }
}
