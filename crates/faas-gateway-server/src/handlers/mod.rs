//! One file for each resource. A handler converts, calls once and converts back.

pub(crate) mod capabilities;
pub(crate) mod docs;
pub(crate) mod execute;
pub(crate) mod health;
pub(crate) mod version;
