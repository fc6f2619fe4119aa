//! SSH to the device, inside the session's stream: end to end, so that the relay reads none of it.
//!
//! `host_cert` decides whether this is the device, `connect` opens the connection, `channel` runs
//! one shell or command over it, `events` is what the SSH library calls back, `outlook` when to
//! say that the line is down.

mod channel;
mod connect;
mod events;
mod host_cert;
mod outlook;
#[cfg(test)]
mod tests;

pub use channel::{Exit, Job, PtyRequest, Work, run};
pub use connect::{Connected, connect};
pub use host_cert::{HostCertError, HostTrust};
