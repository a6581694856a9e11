//! The image store from outside: real processes, real archives, a registry on loopback.
//!
//! The unpack process is this very program: [`helper`] looks at the arguments before the test harness does.

mod archives;
mod attacks;
mod crashes;
mod helper;
mod layer;
mod oci;
mod pulls;
mod registry;
mod removal;
mod rootless;
mod store;
