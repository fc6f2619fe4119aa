//! What one end has seen of its carriers: which worked last, and whether QUIC keeps what its
//! handshake promises on this network.
//!
//! Some networks pass the first packets of QUIC and then no more. Without a memory, an end there
//! would move to QUIC, lose it, and move again for ever. Its law: each QUIC that goes silent soon
//! after its begin makes the next try twice as late, up to an hour; one that holds, or a fallback
//! that goes silent as soon, clears the doubt.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Kind;

/// A carrier that was silent this soon after its begin was not a good one. Longer than an idle
/// line takes to notice silence, which is 75 s on a device.
pub const SOON: Duration = Duration::from_secs(180);

/// Longest wait of an end that doubts QUIC.
const DOUBTS_AT_MOST: Duration = Duration::from_secs(3600);

/// Looks in a row that come one period after the other. Then each waits twice as long as the one
/// before: a look costs up to 4 KiB, which is 160 MB a month for a device that looks each minute
/// where UDP never passes.
const EAGER_LOOKS: u32 = 5;

/// Longest wait of an end whose looks find nothing, in periods: half an hour of minutes.
const LOOKS_AT_LEAST_EACH: u32 = 30;

/// What one end has seen. Shared by all that dial for it.
#[derive(Debug, Default)]
pub struct History(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    last: Option<Kind>,
    broken_promises: u32,
}

impl History {
    /// Of an end that was on this carrier last.
    pub fn after(kind: Kind) -> Self {
        let history = Self::default();
        history.welcomed(kind);
        history
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The relay welcomed us over this carrier.
    pub fn welcomed(&self, kind: Kind) {
        self.lock().last = Some(kind);
    }

    /// A carrier went silent: nobody said a word, and nothing was heard. `lived` is since its
    /// handshake.
    pub fn silenced(&self, kind: Kind, lived: Duration) {
        let mut seen = self.lock();
        seen.broken_promises = match kind {
            Kind::Quic if lived < SOON => seen.broken_promises.saturating_add(1),
            Kind::WebSocket if lived >= SOON => seen.broken_promises,
            // It held; or the whole network is a bad one, not QUIC on it.
            Kind::Quic | Kind::WebSocket => 0,
        };
    }

    /// This end is on another network now: what was seen on the last one says nothing.
    pub fn elsewhere(&self) {
        *self.lock() = Seen::default();
    }

    /// What the relay last welcomed us over.
    pub fn last(&self) -> Option<Kind> {
        self.lock().last
    }

    /// Whether QUIC has broken its promise here lately.
    pub fn doubts_quic(&self) -> bool {
        self.lock().broken_promises > 0
    }

    /// From the last look for QUIC, of which there were `looks` in a row in vain, to the next.
    pub(super) fn next_look(&self, every: Duration, looks: u32) -> Duration {
        let doubled =
            |times: u32| every.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX));
        let tired = doubled(looks.saturating_sub(EAGER_LOOKS - 1));
        let tired = tired.min(every.saturating_mul(LOOKS_AT_LEAST_EACH));
        let doubting = doubled(self.lock().broken_promises).min(DOUBTS_AT_MOST);
        tired.max(doubting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn each_quic_that_dies_young_doubles_the_wait_up_to_an_hour() {
        let history = History::default();
        let mut waits = Vec::new();
        for _ in 0..40 {
            waits.push(history.next_look(MINUTE, 0).as_secs() / 60);
            history.silenced(Kind::Quic, Duration::from_secs(5));
            assert!(history.doubts_quic());
        }
        assert_eq!(waits.get(..8), Some([1, 2, 4, 8, 16, 32, 60, 60].as_slice()));
        assert_eq!(waits.last(), Some(&60));
    }

    #[test]
    fn a_quic_that_held_and_a_fallback_that_did_not_clear_the_doubt() {
        for (kind, lived) in [(Kind::Quic, SOON), (Kind::WebSocket, Duration::from_secs(5))] {
            let history = History::default();
            history.silenced(Kind::Quic, Duration::from_secs(5));
            history.silenced(kind, lived);
            assert!(!history.doubts_quic(), "{kind}");
        }
        let history = History::default();
        history.silenced(Kind::Quic, Duration::from_secs(5));
        history.silenced(Kind::WebSocket, SOON);
        assert!(history.doubts_quic(), "a fallback that held says nothing of QUIC");
    }

    #[test]
    fn looks_in_vain_come_each_minute_at_first_and_each_half_hour_in_the_end() {
        let history = History::default();
        let waits: Vec<_> =
            (0..12).map(|looks| history.next_look(MINUTE, looks).as_secs() / 60).collect();
        assert_eq!(waits, [1, 1, 1, 1, 1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(history.next_look(MINUTE, u32::MAX), 30 * MINUTE);
    }
}
