//! Sandboxes that are containers of a Docker engine, with the guest agent as their first process.
//!
//! The engine makes the container and holds it to its limits; everything inside goes through the agent, as with every
//! backend. The engine may be absent, stop and come back: whether it is there is asked again and again.
//!
//! `probe` asks whether there is an engine, `facts` is what it is, `refuse` what it cannot do; `make` makes a container
//! out of `create`'s description of it, with `pull`, `upload` and `transport`; `lease` says whose it is, `destroy` ends
//! it, `sweep` ends those that nobody owns. `share` exchanges images with the image store.

mod auth;
mod client;
pub mod config;
mod counters;
mod create;
mod destroy;
mod executor;
mod facts;
mod image;
mod labels;
mod lease;
mod make;
mod probe;
mod pull;
mod refuse;
#[cfg(all(target_os = "linux", feature = "native"))]
mod share;
mod shared;
mod steps;
mod sweep;
mod tls;
mod transport;
mod upload;

pub use config::{AddressError, DockerConfig, EngineAddress, TransportChoice};
pub use executor::{DockerExecutor, DockerHandle};
