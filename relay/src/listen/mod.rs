//! Taking connections in. The HTTPS side is `https`; the QUIC side has rooms of its own.

mod hosts;
pub mod https;
mod upgrade;
