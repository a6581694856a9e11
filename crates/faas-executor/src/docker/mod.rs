//! Sandboxes that are containers of a Docker engine, with the guest agent as their first process.
//!
//! The engine makes the container and holds it to its limits; everything inside goes through the agent, as with every
//! backend. The engine may be absent, stop and come back: whether it is there is asked again and again.
//!
//! `probe` asks whether there is an engine, `facts` is what it is, `refuse` what it cannot do; `make` makes a container
//! out of `create`'s description of it, with `pull`, `upload` and `transport`; `lease` says whose it is, `destroy` ends
//! it, `sweep` ends those that nobody owns. `share` exchanges images with the image store.
//!
//! Lasting sandboxes: `record` is what a container is found by again, `claims` which are left alone, `adopt` finds one,
//! `halt` ends its processes, `remove` all of it; `limits`, `measure` and `ended` are of one that runs, and `leaks` of
//! what is nobody's.

mod adopt;
mod auth;
mod claims;
mod client;
pub mod config;
mod counters;
mod create;
mod destroy;
mod ended;
mod executor;
mod facts;
mod freeze;
mod halt;
mod image;
mod labels;
mod leaks;
mod lease;
mod limits;
mod make;
mod measure;
mod probe;
mod pull;
mod record;
mod refuse;
mod remove;
#[cfg(all(target_os = "linux", feature = "native"))]
mod share;
mod shared;
mod state;
mod steps;
mod sweep;
mod tls;
mod transport;
mod turns;
mod upload;

pub use config::{AddressError, DockerConfig, EngineAddress, TransportChoice};
pub use executor::{DockerExecutor, DockerHandle};
