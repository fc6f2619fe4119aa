//! A device that opens one line after another, far too fast: slowed, and reported.

use std::net::SocketAddr;

use belay_proto::ids::{DeviceId, UserId};
use belay_proto::refusal::{Code, Refused};

use crate::rate::{Allowance, Each};
use crate::store::{Event, EventKind, Store};

/// Lines of one device: at once, and a minute. A device on a network that breaks every few seconds
/// stays below it; one that is refused is told when to come back, which is in 2 s.
const LINES: Allowance = Allowance::new(60, 30);

/// Words about it in log and record.
const REPORTS: Allowance = Allowance::new(1, 1);

/// Sessions that one person opens or takes up: each is a record. A thousand devices at once, and then a hundred a
/// second.
const OPENS: Allowance = Allowance::new(1000, 6000);

/// Counts every device's lines, and what people open.
pub struct Flapping {
    lines: Each<DeviceId>,
    reports: Each<DeviceId>,
    opens: Each<UserId>,
}

impl Default for Flapping {
    fn default() -> Self {
        Self { lines: Each::new(LINES), reports: Each::new(REPORTS), opens: Each::new(OPENS) }
    }
}

impl Flapping {
    /// Counts one more session that somebody opens or takes up.
    ///
    /// # Errors
    /// When they are too many.
    pub(super) fn open(&self, user: UserId) -> Result<(), Refused> {
        self.opens.take(&user).map_err(|error| Refused::from(&error))
    }

    /// Counts one more.
    ///
    /// # Errors
    /// When they are too many; it is reported by then.
    pub(super) async fn count(
        &self,
        device: DeviceId,
        peer: SocketAddr,
        store: &Store,
    ) -> Result<(), Refused> {
        let Err(too_often) = self.lines.take(&device) else { return Ok(()) };
        if self.reports.take(&device).is_ok() {
            tracing::warn!(%device, %peer, "this device connects far too often");
            let event = Event::new(EventKind::LineFlapping).device(device).source(peer);
            let detail = "more than 60 lines at once and 30 a minute; slowed down";
            if let Err(error) = store.record(event.detail(detail)).await {
                tracing::warn!(%device, %error, "cannot record that a device connects too often");
            }
        }
        let cause = "this device connects far too often";
        Err(Refused::new(Code::Busy, cause, "look at what ends its lines")
            .retry_after(too_often.0.max(std::time::Duration::from_secs(1))))
    }
}
