//! Which carrier: QUIC and WebSocket raced, and QUIC again while the other is in use.
//!
//! `race` dials, `attempt` is what came of each try, `diagnosis` makes one line of all of them,
//! `upgrade` goes on looking for QUIC. Its law: the first finished handshake wins and all others
//! are dropped; no failure is forgotten, and each names its way.

mod attempt;
mod diagnosis;
mod race;
mod upgrade;

pub use attempt::{Attempt, How, Kind, Trouble};
pub use diagnosis::{Unreached, remark};
pub use race::dial;
pub use upgrade::Upgrade;

use rustls::ClientConfig;

use super::Carrier;
use super::quic::Role;
use crate::address::RelayAddress;
use crate::proxy::{BadProxy, Proxies};

/// The environment variable that forces a carrier: `quic`, `websocket`, or nothing for both.
pub const CARRIER_VARIABLE: &str = "BELAY_CARRIER";

/// Which carriers may be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first that works; QUIC has a head start.
    #[default]
    Any,
    /// Only this one.
    Only(Kind),
}

/// A setting of the network cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSetting {
    /// The proxy.
    #[error(transparent)]
    Proxy(#[from] BadProxy),
    /// The carrier.
    #[error("BELAY_CARRIER is \"{}\"; it must be quic, websocket or not set",
        belay_proto::error_line::printable(.0))]
    Carrier(String),
}

impl Choice {
    /// Of a word; an empty one is no choice.
    ///
    /// # Errors
    /// [`BadSetting::Carrier`].
    pub fn of(word: &str) -> Result<Self, BadSetting> {
        match word.trim() {
            "" => Ok(Self::Any),
            "quic" => Ok(Self::Only(Kind::Quic)),
            "websocket" => Ok(Self::Only(Kind::WebSocket)),
            other => Err(BadSetting::Carrier(other.to_owned())),
        }
    }

    const fn allows(self, kind: Kind) -> bool {
        match (self, kind) {
            (Self::Any, _)
            | (Self::Only(Kind::Quic), Kind::Quic)
            | (Self::Only(Kind::WebSocket), Kind::WebSocket) => true,
            (Self::Only(Kind::Quic), Kind::WebSocket)
            | (Self::Only(Kind::WebSocket), Kind::Quic) => false,
        }
    }
}

/// Where to dial, as whom, and which ways.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The relay: UDP for QUIC, TCP for WebSocket, at the same port.
    pub relay: RelayAddress,
    /// What proves the relay, and us to it.
    pub tls: ClientConfig,
    /// Who dials.
    pub role: Role,
    /// Which carriers.
    pub choice: Choice,
    /// The proxy of the fallback. QUIC always goes direct.
    pub proxies: Proxies,
    /// What worked last: a fallback is not kept waiting then.
    pub last: Option<Kind>,
}

impl Wanted {
    /// Both carriers, and the proxy and choice of the environment.
    ///
    /// # Errors
    /// [`BadSetting`].
    pub fn from_environment(
        relay: RelayAddress,
        tls: ClientConfig,
        role: Role,
    ) -> Result<Self, BadSetting> {
        let choice = Choice::of(&std::env::var(CARRIER_VARIABLE).unwrap_or_default())?;
        let proxies = Proxies::from_environment()?;
        Ok(Self { relay, tls, role, choice, proxies, last: None })
    }
}

/// A carrier, and what was tried on the way to it.
#[derive(Debug)]
pub struct Dialled {
    /// The winner.
    pub carrier: Carrier,
    /// Which it is.
    pub kind: Kind,
    /// Every attempt, in the order of their ends; those the winner overtook come last.
    pub attempts: Vec<Attempt>,
}
