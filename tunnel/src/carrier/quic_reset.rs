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
use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};

/// Length of a connection's id: it stands in every packet to the relay.
const ID: usize = 8;

/// So much of it is chance. quinn looks an id up among those of all connections before it asks
/// whether a packet begins a new one, and does so for the ids it gives in a Retry too: with the 24
/// bits of its own generator a relay of 20,000 devices let one in 170 newcomers wait for ever.
const CHANCE: usize = 6;

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

/// Draws ids that end in a mark of the relay's key, and says what it drew last. By the mark a
/// packet of a connection that is forgotten, whose sender is owed a reset, is told from noise.
pub(super) struct Marked {
    key: hmac::Key,
    drawn: u64,
}

impl Marked {
    pub(super) fn new(reset_key: &[u8]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, reset_key);
        let own = hmac::sign(&key, b"belay connection id v2");
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, own.as_ref()), drawn: 0 }
    }

    fn mark(&self, chance: &[u8]) -> hmac::Tag {
        hmac::sign(&self.key, chance)
    }
}

impl ConnectionIdGenerator for Marked {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID];
        let (chance, mark) = id.split_at_mut(CHANCE);
        self.drawn += 1;
        if rand::fill(chance).is_err() {
            // quinn asks until it gets one that is free, so another each time.
            tracing::error!("the system gave no random numbers for a connection's id");
            chance.copy_from_slice(
                self.drawn.to_le_bytes().first_chunk::<CHANCE>().unwrap_or(&[0; CHANCE]),
            );
        }
        for (slot, byte) in mark.iter_mut().zip(self.mark(chance).as_ref()) {
            *slot = *byte;
        }
        LAST.set(Some(LineId(id)));
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        let (chance, mark) = id.split_at_checked(CHANCE).ok_or(InvalidCid)?;
        let marked = self.mark(chance).as_ref().get(..mark.len()) == Some(mark);
        if marked { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        ID
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_of_a_large_fleet_are_distinct_and_known_again_by_the_same_key_alone() {
        let mut drawn = Marked::new(&[7; 32]);
        // Of 24 bits of chance some three hundred would be drawn twice.
        let ids: HashSet<_> = (0..100_000).map(|_| drawn.generate_cid()).collect();
        assert_eq!(ids.len(), 100_000);
        let restarted = Marked::new(&[7; 32]);
        assert!(ids.iter().all(|id| restarted.validate(id).is_ok()));
        let other = Marked::new(&[8; 32]);
        // A mark of 16 bits: some two of the hundred thousand by luck.
        assert!(ids.iter().filter(|id| other.validate(id).is_ok()).count() < 50);
        assert!(restarted.validate(&ConnectionId::new(&[0; 4])).is_err());
    }

    #[test]
    fn the_id_that_was_drawn_last_is_told() {
        let id = Marked::new(&[7; 32]).generate_cid();
        assert_eq!(LAST.take().unwrap().0.as_slice(), &*id);
    }
}
