//! Telling devices that the relay they hold a line to was killed.
//!
//! A line at rest is quiet for minutes, and a device that waits for the relay's next question
//! learns nothing from silence. So a relay that starts again tells each device whose line it finds
//! in its record, no faster than it can take them in. A device that is told in vain (its address is
//! another by now) finds out when the question does not come.

use std::time::Duration;

use belay_tunnel::carrier::quic::Resets;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{Door, Registry};
use crate::store::LeftLine;

/// So many are told at once, and so often, while there is room for those that come: a thousand a
/// second at most.
const AT_ONCE: usize = 20;
const BEAT: Duration = Duration::from_millis(20);

/// How long the next are held back where there is no room: whoever fills the door on purpose makes
/// it ninety a second, and no less.
const BUSY_BEATS: u32 = 10;

/// Those that did not come are told again after this, once: a datagram may be lost.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Tells them all, and those that do not come a second time.
pub(crate) async fn tell_left_lines(
    mut left: Vec<LeftLine>,
    resets: Resets,
    door: &Door,
    registry: &Registry,
) {
    if left.is_empty() {
        return;
    }
    tracing::info!(lines = left.len(), "telling devices that the relay was killed");
    tell(&left, &resets, door).await;
    sleep(AGAIN_AFTER).await;
    left.retain(|line| registry.device(line.device).is_none());
    tell(&left, &resets, door).await;
}

async fn tell(left: &[LeftLine], resets: &Resets, door: &Door) {
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for some in left.chunks(AT_ONCE) {
        beat.tick().await;
        for _ in 0..BUSY_BEATS {
            if !door.is_busy() {
                break;
            }
            beat.tick().await;
        }
        for line in some {
            if let Err(error) = resets.send(line.address, line.id) {
                tracing::debug!(device = %line.device, %error, "a device could not be told");
            }
        }
    }
}
