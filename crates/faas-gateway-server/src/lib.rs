//! The HTTP gateway: takes requests, checks them, calls the engine once and answers. It knows no backend.
//!
//! `config` reads the settings; `serve` accepts connections; `app` is what every request passes through; `routes` is
//! the one table of routes, whose handlers use `extract`, `validate` and `response`; `error` makes every error answer.
#![forbid(unsafe_code)]

mod answer_budget;
mod app;
mod body_budget;
mod body_stream;
pub mod config;
mod error;
mod events;
mod execution_info;
mod executions;
mod extract;
mod file_info;
mod file_query;
mod handlers;
mod idempotency;
#[cfg(all(target_os = "linux", feature = "native"))]
mod image_info;
#[cfg(all(target_os = "linux", feature = "native"))]
pub mod images_command;
mod instance_info;
mod label_filter;
mod layers;
mod live;
mod logging;
mod offload;
mod openapi;
mod query;
mod replay;
mod response;
mod routes;
pub mod run;
mod serve;
mod state;
mod validate;

pub use openapi::openapi_json;
