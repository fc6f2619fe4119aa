//! The I/O both ends of a line share.
//!
//! `pki` makes and judges certificates, `tls` turns them into configurations, `carrier` carries
//! streams, `framed` puts one message on a stream, `https` asks the
//! relay one question, `private_file` keeps secrets on disk, `reach` notices that the
//! other end cannot be reached and tries until it can, `probe`
//! finds out what the network does on the way, `recording` packs what is in segments,
//! `transcript` makes lines of it that can be looked through. Nothing here knows what a
//! session is, and nothing above asks which carrier is in use.

pub mod address;
pub mod carrier;
pub mod clock;
pub mod congestion;
pub mod framed;
pub mod https;
pub mod pki;
pub mod private_file;
pub mod probe;
pub mod proxy;
pub mod reach;
pub mod recording;
pub mod stream;
pub mod tls;
pub mod transcript;
