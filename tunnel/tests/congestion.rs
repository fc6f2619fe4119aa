//! The congestion controller over simulated links: quinn-proto's real packets on a virtual clock.
//! All times and rates here are the simulation's; nothing depends on how fast the machine is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

#[path = "congestion/alone.rs"]
mod alone;
#[path = "congestion/changing.rs"]
mod changing;
#[path = "congestion/interactive.rs"]
mod interactive;
#[path = "congestion/link.rs"]
mod link;
#[path = "congestion/peers.rs"]
mod peers;
#[path = "congestion/shared.rs"]
mod shared;
#[path = "congestion/traffic.rs"]
mod traffic;
#[path = "congestion/world.rs"]
mod world;
