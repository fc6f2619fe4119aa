//! The relay: where lines end and are spliced.
//!
//! Rooms of the HTTPS side: `config`, `init`, `store`, `ca`, `listen/https`, `api`, `login`,
//! `enrol`, `audit`, `rate`. Its law: deny by default, record before acting, bound everything a
//! peer can send. It holds no plaintext of any session but what
//! devices recorded of them without sealing it.

pub mod api;
pub mod audit;
pub mod ca;
pub mod config;
pub mod enrol;
pub mod export;
pub mod init;
pub mod line;
pub mod listen;
pub mod login;
pub mod outbound;
pub mod presence;
pub mod program;
pub mod rate;
pub mod recordings;
mod reported;
pub mod retention;
pub mod run;
mod search;
mod secret;
pub mod span;
pub mod store;
#[cfg(test)]
mod testing;

pub use reported::reported;
pub use secret::NoRandom;

/// The relay's software, as it says to peers.
pub const SOFTWARE: &str = concat!("belay-relay/", env!("CARGO_PKG_VERSION"));
