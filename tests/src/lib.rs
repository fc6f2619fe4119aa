//! What the tests of the whole share: the network lab.
//!
//! This crate is never shipped. It may import every other crate; none imports it.

pub mod lab;
