//! A line's NAT mapping: `proto::keeping` with a clock, a carrier and a memory.

use std::time::Duration;

use belay_proto::keeping::{Effect, Keeping, Known};
use belay_tunnel::carrier::Carrier;
use tokio::time::Instant;

use super::{Agent, networks};

/// How one line's mapping is kept.
pub(super) struct Mapping {
    start: Instant,
    keeping: Keeping,
    network: Option<String>,
    /// What the relay was told last, and what is on the disk.
    told: u32,
    kept: Known,
}

impl Mapping {
    /// Of a line over this carrier; `None` when the carrier keeps itself.
    pub(super) fn of(carrier: &Carrier, agent: &Agent) -> Option<Self> {
        if carrier.is_fallback() {
            return None;
        }
        let network = networks::towards(carrier.remote_address());
        let known =
            network.as_ref().and_then(|name| networks::recall(&agent.state, name, agent.now()));
        let keeping = Keeping::new(known, Duration::ZERO);
        let (told, kept) = (keeping.ask_seconds(), keeping.known());
        Some(Self { start: Instant::now(), keeping, network, told, kept })
    }

    /// How often the relay is to ask.
    pub(super) fn ask_seconds(&self) -> u32 {
        self.keeping.ask_seconds()
    }

    /// The relay asked; what goes with the answer.
    pub(super) fn asked(&mut self, idle: bool, carrier: &Carrier, agent: &Agent) -> Option<u32> {
        self.keeping.handle_asked(idle, carrier.bytes().0, self.start.elapsed());
        self.news(agent)
    }

    /// The relay said something.
    pub(super) fn heard(&mut self) {
        self.keeping.handle_heard();
    }

    /// The device is in another network.
    pub(super) fn moved(&mut self, carrier: &Carrier, agent: &Agent) -> Option<u32> {
        let network = networks::towards(carrier.remote_address());
        if network == self.network {
            self.keeping.handle_moved();
            return None;
        }
        let known =
            network.as_ref().and_then(|name| networks::recall(&agent.state, name, agent.now()));
        self.keeping = Keeping::new(known, self.start.elapsed());
        self.network = network;
        self.kept = self.keeping.known();
        self.news(agent)
    }

    /// Waits until there is something to do.
    pub(super) async fn due(&mut self, carrier: &Carrier) -> Effect {
        loop {
            // Further away than any line lives: only that it can be added to a time of day.
            let due = self.keeping.poll_timeout().min(Duration::from_secs(86_400));
            tokio::time::sleep_until(self.start + due).await;
            let now = self.start.elapsed();
            if let Some(effect) = self.keeping.handle_timeout(carrier.bytes().0, now) {
                return effect;
            }
        }
    }

    /// What the relay has not been told yet. What was learnt is kept.
    pub(super) fn news(&mut self, agent: &Agent) -> Option<u32> {
        let known = self.keeping.known();
        if known != self.kept
            && let Some(network) = &self.network
        {
            self.kept = known;
            tracing::debug!(network, holds = known.holds, fails = known.fails, "learnt of a NAT");
            networks::remember(&agent.state, network, known, agent.now());
        }
        let ask = self.keeping.ask_seconds();
        if ask == self.told {
            return None;
        }
        self.told = ask;
        Some(ask)
    }
}
