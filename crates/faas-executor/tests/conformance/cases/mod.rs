//! What is promised, one function a promise.

mod busybox;
mod commands;
mod defaults;
mod endings;
mod files;
mod instances;
mod language;
mod lasting;
#[cfg(feature = "native")]
mod lasting_native;
mod limits;
mod output;
mod sandbox;
mod scratch;
mod surroundings;

pub(crate) use busybox::*;
pub(crate) use commands::*;
pub(crate) use defaults::*;
pub(crate) use endings::*;
pub(crate) use files::*;
pub(crate) use instances::*;
pub(crate) use language::*;
pub(crate) use lasting::*;
#[cfg(feature = "native")]
pub(crate) use lasting_native::*;
pub(crate) use limits::*;
pub(crate) use output::*;
pub(crate) use sandbox::*;
pub(crate) use scratch::*;
pub(crate) use surroundings::*;
