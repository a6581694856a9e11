//! What every request passes before and after its handler, one small piece each.

pub(crate) mod access_log;
pub(crate) mod host;
pub(crate) mod origin;
pub(crate) mod request_id;
