//! Telling a peer that its connection is forgotten, without waiting for it to speak.
//!
//! A relay that was killed keeps nothing but its keys. Its answer to a packet of a connection it no
//! longer knows is a stateless reset (RFC 9000 §10.3); but a line at rest may send no packet for
//! minutes. Whoever wrote down the id that the relay gave a connection, and where its peer is, can
//! send that reset first: to the peer it looks as if it had asked.
//!
//! quinn draws a connection's id while the connection is accepted, on the thread that accepts it,
//! and tells nobody. So the generator leaves the last one in a thread-local, and [`accept`] takes it
//! from there.

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use aws_lc_rs::{hmac, rand};
use quinn_proto::{ConnectionId, ConnectionIdGenerator, HashedConnectionIdGenerator, InvalidCid};

/// Length of the ids that [`HashedConnectionIdGenerator`] draws.
const ID: usize = 8;

/// Of a token (RFC 9000 §10.3), at a reset's end.
const TOKEN: usize = 16;

/// What stands before the token: what looks like a short header and its protected rest. Longer than
/// the least, so that it is not told from other packets by its length (RFC 9000 §10.3).
const DISGUISE: usize = 25;

/// The id that the relay gave a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineId(pub [u8; ID]);

thread_local! {
    static LAST: Cell<Option<LineId>> = const { Cell::new(None) };
}

/// Accepts a connection; its id with it.
///
/// # Errors
/// quinn's own.
pub fn accept(
    incoming: quinn::Incoming,
) -> Result<(quinn::Connecting, Option<LineId>), quinn::ConnectionError> {
    LAST.set(None);
    let connecting = incoming.accept()?;
    Ok((connecting, LAST.take()))
}

/// A generator that says what it drew last.
pub(super) struct Noted(pub(super) HashedConnectionIdGenerator);

impl ConnectionIdGenerator for Noted {
    fn generate_cid(&mut self) -> ConnectionId {
        let id = self.0.generate_cid();
        LAST.set(<[u8; ID]>::try_from(&*id).ok().map(LineId));
        id
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        self.0.validate(id)
    }

    fn cid_len(&self) -> usize {
        self.0.cid_len()
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        self.0.cid_lifetime()
    }
}

/// Sends resets from the relay's own socket.
#[derive(Debug)]
pub struct Resets {
    socket: UdpSocket,
    key: hmac::Key,
}

impl Resets {
    pub(super) fn new(socket: UdpSocket, reset_key: &[u8]) -> Self {
        Self { socket, key: hmac::Key::new(hmac::HMAC_SHA256, reset_key) }
    }

    /// Tells the peer at `towards` that the connection of this id is forgotten.
    ///
    /// # Errors
    /// When it cannot be sent now.
    pub fn send(&self, towards: SocketAddr, LineId(id): LineId) -> io::Result<()> {
        let mut packet = [0; DISGUISE + TOKEN];
        let (disguise, token) = packet.split_at_mut(DISGUISE);
        rand::fill(disguise).map_err(|_| io::Error::other("no random numbers"))?;
        if let Some(first) = disguise.first_mut() {
            // A short header: the fixed bit set, the form bit not (RFC 9000 §17.3.1).
            *first = *first & 0x3f | 0x40;
        }
        // As quinn makes the token of an id.
        for (slot, byte) in token.iter_mut().zip(hmac::sign(&self.key, &id).as_ref()) {
            *slot = *byte;
        }
        self.socket.send_to(&packet, towards).map(|_| ())
    }
}
