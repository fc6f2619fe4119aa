//! While the fallback is in use: looking for QUIC, for as long as it takes.

use std::future::pending;
use std::time::Duration;

use futures::future::select_ok;
use tokio::time::{sleep, timeout};

use super::race::{self, MAX_ADDRESSES};
use super::{Kind, LOOK_EVERY, Wanted};
use crate::carrier::Carrier;

/// One look: QUIC's first packet and two repetitions.
const LOOK: Duration = Duration::from_secs(5);

/// Looks every so often until there is QUIC, not greeted yet. `wanted` is asked before each look,
/// so that a certificate renewed meanwhile is used; when it has none, that look is left out. Where
/// QUIC is excluded by choice this waits for ever. Dropping the future ends it.
pub async fn quic_again(mut wanted: impl FnMut() -> Option<Wanted>) -> Carrier {
    let mut looks = 0;
    loop {
        let wait = match wanted() {
            Some(wanted) if !wanted.choice.allows(Kind::Quic) => return pending().await,
            Some(wanted) => wanted.history.next_look(wanted.look_every, looks),
            None => LOOK_EVERY,
        };
        sleep(jittered(wait)).await;
        if let Some(wanted) = wanted() {
            match timeout(LOOK, look(&wanted)).await {
                Ok(Some(carrier)) => return carrier,
                Ok(None) => {}
                Err(_) => tracing::trace!("no QUIC yet"),
            }
        }
        looks = looks.saturating_add(1);
    }
}

/// One look at each address, at once.
async fn look(wanted: &Wanted) -> Option<Carrier> {
    let addresses = match wanted.relay.resolve().await {
        Ok(addresses) => addresses,
        Err(error) => {
            tracing::debug!(%error, "no QUIC yet");
            return None;
        }
    };
    let looks = addresses.into_iter().take(MAX_ADDRESSES);
    let looks = looks.map(|address| Box::pin(race::quic(wanted, address)));
    match select_ok(looks).await {
        Ok((carrier, _)) => Some(carrier),
        Err(error) => {
            tracing::debug!(%error, "no QUIC yet");
            None
        }
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
        let all: Vec<_> = (0..200).map(|_| jittered(LOOK_EVERY)).collect();
        assert!(all.iter().all(|one| (45..=75).contains(&one.as_secs())));
        assert!(
            all.iter().any(|one| one.as_secs() < 55) && all.iter().any(|one| one.as_secs() > 65)
        );
    }
}
