//! `/api/v1/instances/{id}/pty`: a terminal over a WebSocket (RFC 6455).
//!
//! The terminal is a lasting execution: a connection that ends leaves it as it is, and another one goes on with it. What it
//! says is read from the disk at the client's pace, so a client that reads slowly holds up nobody.

use std::ops::ControlFlow;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::Uri;
use axum::response::Response;
use faas_executor::{EngineError, ExecutionOutput, OutputEvent};
use faas_types::{
    Execution, ExecutionId, InstanceId, OutputGap, PtyCommand, PtyEvent, PtyStarted, TerminalSize,
};
use futures_util::stream::SplitSink;
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use tokio::sync::Mutex;
use utoipa::IntoParams;

use crate::error::ApiError;
use crate::handlers::subject::Subject;
use crate::openapi::Problems;
use crate::serve::ConnectionPlace;
use crate::state::Shared;
use crate::{execution_info, query, validate};

/// The longest message of a client.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// How often a client that says nothing is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(20);

/// How long a client may take to take in what is said at the end.
const FAREWELL: Duration = Duration::from_secs(5);

/// What can be said of a terminal.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct PtyParameters {
    /// Its height in characters, 1 to 1000. Default: 24
    rows: Option<u16>,
    /// Its width in characters, 1 to 1000. Default: 80
    cols: Option<u16>,
    /// What runs in it, by `/bin/sh -c`. Default: a login shell
    command: Option<String>,
    /// The user; the instance's when not given.
    user: Option<String>,
    /// The working directory; the instance's when not given.
    working_dir: Option<String>,
    /// A terminal that was started before, to go on with; with none of the parameters above.
    execution_id: Option<String>,
    /// With `execution_id`: from which byte of its output on. Default: the first that is held
    offset: Option<u64>,
}

/// Open a terminal in an instance
///
/// A WebSocket. The server sends the terminal's output in binary frames, and in text frames JSON: first `started`, then
/// `gap` where output is not held any more, and `exit` or `error` last. The client sends input in binary frames, and the
/// terminal's size as `{"type":"resize","rows":N,"cols":N}` in text frames. Anything else closes it with 1008. The terminal
/// goes on when the connection ends; `execution_id` goes on with it, `DELETE /api/v1/executions/{id}` ends it.
#[utoipa::path(
    get,
    path = "/api/v1/instances/{id}/pty",
    tag = "executions",
    params(("id" = String, Path, description = "The instance's id"), PtyParameters),
    responses((status = 101, description = "The connection is a WebSocket from here on", body = PtyEvent), Problems),
)]
pub(crate) async fn pty(
    State(state): State<Shared>,
    Extension(place): Extension<ConnectionPlace>,
    uri: Uri,
    target: Subject<InstanceId>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|refused| ApiError::malformed(refused.body_text()))?;
    let asked: PtyParameters = query::parse(&uri)?;
    let output = open(&state, &target, asked).await?;
    let session = Session { state, target, id: output.info().id };
    let upgrade = upgrade.max_message_size(MAX_MESSAGE_BYTES).max_frame_size(MAX_MESSAGE_BYTES);
    Ok(upgrade.on_upgrade(move |socket| async move {
        tokio::select! {
            () = session.serve(socket, output) => {}
            () = place.aborted() => {}
        }
    }))
}

/// Starts a terminal, or finds one.
async fn open(
    state: &Shared,
    target: &Subject<InstanceId>,
    asked: PtyParameters,
) -> Result<ExecutionOutput, ApiError> {
    let Some(id) = asked.execution_id else {
        if asked.offset.is_some() {
            return Err(query::invalid(
                "offset",
                "is for a terminal that was started before: give execution_id",
            ));
        }
        let size = TerminalSize { rows: asked.rows.unwrap_or(24), cols: asked.cols.unwrap_or(80) };
        let request_id = target.request_id.clone();
        let spec = validate::terminal(asked.command, asked.user, asked.working_dir, size, request_id)?;
        let started = state.instances.start_execution(&target.tenant, &target.id, spec).await;
        return started.map_err(|error| target.refusal(error));
    };
    if asked.command.is_some() || asked.user.is_some() || asked.working_dir.is_some() {
        return Err(query::invalid("execution_id", "names a terminal that runs: it has its command already"));
    }
    let id = ExecutionId(id);
    let refused = |error| target.refusal(error);
    let view = state.instances.execution(&target.tenant, &id).await.map_err(refused)?;
    if view.info.instance != target.id {
        return Err(refused(EngineError::NotFound { what: format!("execution {id} of {}", target.id) }));
    }
    if view.info.tty.is_none() {
        return Err(refused(EngineError::Conflict { reason: "the execution has no terminal".to_owned() }));
    }
    if let (Some(rows), Some(cols)) = (asked.rows, asked.cols) {
        let size = validate::terminal_size(TerminalSize { rows, cols })?;
        match state.instances.resize(&target.tenant, &id, size).await {
            // Its last words can be read.
            Ok(()) | Err(EngineError::Conflict { .. }) => {}
            Err(error) => return Err(refused(error)),
        }
    }
    state.instances.output(&target.tenant, &id, asked.offset).await.map_err(refused)
}

/// A terminal and one connection to it.
struct Session {
    state: Shared,
    target: Subject<InstanceId>,
    id: ExecutionId,
}

/// How a connection ends.
struct Farewell {
    code: u16,
    reason: String,
}

fn farewell(code: u16, reason: impl Into<String>) -> Farewell {
    Farewell { code, reason: reason.into() }
}

/// Where messages to the client go.
type Sender = Mutex<SplitSink<WebSocket, Message>>;

/// The client is gone.
struct Gone;

impl Session {
    async fn serve(&self, socket: WebSocket, output: ExecutionOutput) {
        let (sender, mut receiver) = socket.split();
        let sender = Mutex::new(sender);
        let farewell = tokio::select! {
            said = self.pass_on(&sender, output) => said,
            heard = self.listen(&mut receiver) => heard,
            Gone = ping(&sender) => Err(Gone),
        };
        let Ok(Farewell { code, reason }) = farewell else { return };
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        let closed = async {
            sender.lock().await.send(close).await?;
            // Until the client has closed it too, or is gone.
            while let Some(Ok(_)) = receiver.next().await {}
            Ok::<_, axum::Error>(())
        };
        match tokio::time::timeout(FAREWELL, closed).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a client went before it was told of the end"),
            Err(_elapsed) => tracing::debug!("a client did not close its connection"),
        }
    }

    /// Sends what the terminal says until it has ended.
    async fn pass_on(&self, sender: &Sender, mut output: ExecutionOutput) -> Result<Farewell, Gone> {
        let offset = output.offset();
        let started = PtyStarted { execution_id: self.id.clone(), offset };
        send_event(sender, &PtyEvent::Started(started)).await?;
        loop {
            let next = tokio::select! {
                next = output.next() => next,
                () = self.state.draining.cancelled() => Err(EngineError::ShuttingDown),
            };
            match next {
                Ok(OutputEvent::Output { bytes, .. }) => send(sender, Message::Binary(bytes.into())).await?,
                Ok(OutputEvent::Gap { from, to }) => {
                    send_event(sender, &PtyEvent::Gap(OutputGap { from, to })).await?;
                }
                Ok(OutputEvent::End(_)) => {
                    let next_offset = output.offset();
                    let view = faas_executor::ExecutionView {
                        info: output.info(),
                        first_offset: offset.min(next_offset),
                        next_offset,
                    };
                    let execution: Execution = execution_info::execution(view);
                    send_event(sender, &PtyEvent::Exit(Box::new(execution))).await?;
                    return Ok(farewell(close_code::NORMAL, "the terminal has ended"));
                }
                Err(error) => {
                    let problem = self.target.refusal(error).problem(&self.target.request_id);
                    send_event(sender, &PtyEvent::Error(problem.into())).await?;
                    return Ok(farewell(
                        close_code::AWAY,
                        "the server cannot go on; come back with execution_id",
                    ));
                }
            }
        }
    }

    /// Gives the terminal what the client sends, until that breaks the rules or goes.
    async fn listen(
        &self,
        receiver: &mut futures_util::stream::SplitStream<WebSocket>,
    ) -> Result<Farewell, Gone> {
        while let Some(Ok(message)) = receiver.next().await {
            let heard = match message {
                Message::Binary(bytes) => self.input(&bytes).await,
                Message::Text(text) => self.command(&text).await,
                Message::Close(_) => return Err(Gone),
                Message::Ping(_) | Message::Pong(_) => ControlFlow::Continue(()),
            };
            if let ControlFlow::Break(farewell) = heard {
                return Ok(farewell);
            }
        }
        Err(Gone)
    }

    async fn input(&self, bytes: &[u8]) -> ControlFlow<Farewell> {
        let taken = self.state.instances.input(&self.target.tenant, &self.id, bytes, false).await;
        self.heard(taken)
    }

    async fn command(&self, text: &str) -> ControlFlow<Farewell> {
        let broken = |reason: String| ControlFlow::Break(farewell(close_code::POLICY, reason));
        let size = match serde_json::from_str(text) {
            Ok(PtyCommand::Resize(size)) => size,
            Err(error) => return broken(shortened(&format!("no such command: {error}"))),
        };
        match validate::terminal_size(size) {
            Ok(size) => {
                let resized = self.state.instances.resize(&self.target.tenant, &self.id, size).await;
                self.heard(resized)
            }
            Err(_invalid) => broken("a terminal has 1 to 1000 rows and columns".to_owned()),
        }
    }

    fn heard(&self, done: Result<(), EngineError>) -> ControlFlow<Farewell> {
        match done {
            // It has ended, which its output tells.
            Ok(()) | Err(EngineError::Conflict { .. }) => ControlFlow::Continue(()),
            Err(error) => {
                let problem = self.target.refusal(error).problem(&self.target.request_id);
                ControlFlow::Break(farewell(close_code::AWAY, shortened(&problem.detail)))
            }
        }
    }
}

/// The longest reason of a close frame (RFC 6455, section 5.5).
const MAX_REASON_BYTES: usize = 120;

fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_REASON_BYTES)].to_owned()
}

async fn send(sender: &Sender, message: Message) -> Result<(), Gone> {
    sender.lock().await.send(message).await.map_err(|error| {
        tracing::debug!(%error, "a client of a terminal is gone");
        Gone
    })
}

async fn send_event(sender: &Sender, event: &PtyEvent) -> Result<(), Gone> {
    match serde_json::to_string(event) {
        Ok(text) => send(sender, Message::Text(text.into())).await,
        Err(error) => {
            // Strings and numbers: there is nothing in it that JSON cannot hold.
            tracing::error!(%error, "an event could not be written as JSON");
            Err(Gone)
        }
    }
}

/// Asks again and again whether the client is there.
async fn ping(sender: &Sender) -> Gone {
    loop {
        tokio::time::sleep(PING_EVERY).await;
        if let Err(gone) = send(sender, Message::Ping(Vec::new().into())).await {
            return gone;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_REASON_BYTES, shortened};

    #[test]
    fn a_reason_fits_into_a_close_frame() {
        assert_eq!(shortened("short"), "short");
        assert!(shortened(&"ä".repeat(200)).len() <= MAX_REASON_BYTES);
    }
}
