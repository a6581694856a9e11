//! What the tests of several crates share. Never a dependency of anything that is shipped.

pub mod gateway;
pub mod needs;
