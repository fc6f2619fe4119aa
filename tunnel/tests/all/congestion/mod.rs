//! The congestion controller over simulated links: quinn-proto's real packets on a virtual clock.
//! All times and rates here are the simulation's; nothing depends on how fast the machine is.

mod alone;
mod changing;
mod interactive;
mod link;
mod peers;
mod shared;
mod traffic;
mod world;
