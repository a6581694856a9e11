//! What the tests of several crates share. Never a dependency of anything that is shipped.

pub mod conformance;
pub mod gateway;
pub mod images;
pub mod needs;
pub mod own_program;
pub mod users;
