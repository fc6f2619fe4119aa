//! Who causes a change, for the record.

use std::net::SocketAddr;

use belay_proto::ids::UserId;

use super::{Event, EventKind};

/// A person at an address, or whoever holds the relay's machine.
#[derive(Debug, Clone, Copy)]
pub enum Actor {
    /// A person, over the HTTPS interface.
    User(UserId, SocketAddr),
    /// Somebody who can read the data directory: the relay's own commands.
    Machine,
}

impl Actor {
    /// An event caused by this actor.
    pub fn event(self, kind: EventKind) -> Event {
        match self {
            Self::User(user, peer) => Event::new(kind).user(user).source(peer),
            Self::Machine => Event::new(kind),
        }
    }

    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::User(..) => "",
            Self::Machine => " (on the relay's machine)",
        }
    }
}
