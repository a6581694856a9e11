//! What the host is, apart from any backend.

pub mod host;
