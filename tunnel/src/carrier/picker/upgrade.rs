//! While the fallback is in use: looking for QUIC, for as long as it takes.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Choice, Kind, Wanted, race};
use crate::carrier::Carrier;

/// Between two looks: a few packets a minute, and a way that is back is used within one.
const EVERY: Duration = Duration::from_secs(60);

/// One look: QUIC's first packet and two repetitions.
const LOOK: Duration = Duration::from_secs(5);

/// A standing wish for QUIC.
#[derive(Debug)]
pub struct Upgrade {
    wanted: Wanted,
    every: Duration,
}

impl Upgrade {
    /// For what was dialled. `None` when QUIC was excluded by choice.
    pub fn new(wanted: Wanted) -> Option<Self> {
        match wanted.choice {
            Choice::Any | Choice::Only(Kind::Quic) => Some(Self { wanted, every: EVERY }),
            Choice::Only(Kind::WebSocket) => None,
        }
    }

    /// The same, looking more or less often.
    pub const fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// Looks every so often, not greeted yet, until there is one. Dropping the future ends it.
    pub async fn quic_again(&self) -> Carrier {
        loop {
            sleep(jittered(self.every)).await;
            match timeout(LOOK, self.look()).await {
                Ok(Some(carrier)) => return carrier,
                Ok(None) => {}
                Err(_) => tracing::trace!("no QUIC yet"),
            }
        }
    }

    /// One look at each address, one after the other.
    async fn look(&self) -> Option<Carrier> {
        let addresses = match self.wanted.relay.resolve().await {
            Ok(addresses) => addresses,
            Err(error) => {
                tracing::debug!(%error, "no QUIC yet");
                return None;
            }
        };
        for address in addresses {
            match race::quic(&self.wanted, address).await {
                Ok(carrier) => return Some(carrier),
                Err(error) => tracing::debug!(%address, %error, "no QUIC yet"),
            }
        }
        None
    }
}

/// Between three quarters and five quarters of it, so that a site's devices do not look at once.
fn jittered(every: Duration) -> Duration {
    let mut byte = [u8::MAX / 2];
    if aws_lc_rs::rand::fill(&mut byte).is_err() {
        tracing::debug!("no random numbers; looking without jitter");
    }
    let [byte] = byte;
    every * 3 / 4 + every / 2 * u32::from(byte) / u32::from(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_between_45_and_75_seconds_and_not_always_the_same() {
        let all: Vec<_> = (0..200).map(|_| jittered(EVERY)).collect();
        assert!(all.iter().all(|one| (45..=75).contains(&one.as_secs())));
        assert!(
            all.iter().any(|one| one.as_secs() < 55) && all.iter().any(|one| one.as_secs() > 65)
        );
    }
}
