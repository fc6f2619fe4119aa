//! Two machines with one device's key: noticing it, and keeping the newer one out.
//!
//! Its law: a device that restarts, roams or lost its line is never taken for two. Nobody is judged
//! by having come while another line was there, only by that line's answer to a question that was
//! asked afterwards: a dead line gives none. What it is not: a proof. Whoever has the key may say
//! that it is any run; it finds disks that were copied, not thieves who know this page.

use std::net::SocketAddr;
use std::time::Duration;

use belay_proto::ids::RunId;
use belay_proto::refusal::{Code, Refused};
use belay_proto::wire::control::Run;

use super::Shared;
use crate::store::{CloneAlarm, CloneSeen, DeviceRecord, StoreError};

/// How long the older line may take to answer, with its round trip beside it. A restarted agent
/// whose old line looks alive waits as long, so it is short: a lost packet is sent again by then.
const PATIENCE: Duration = Duration::from_secs(1);
const ROUND_TRIPS: u32 = 4;
const LONGEST_PATIENCE: Duration = Duration::from_secs(5);

/// When the refused machine may ask again.
const AGAIN: Duration = Duration::from_secs(60);

/// Whether a newcomer may have the device's line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seat {
    /// It may.
    Free,
    /// It may: the machine that was kept has restarted.
    Follows,
    /// If the line that is there does not answer.
    Asked,
    /// It is the machine that was refused, or a third.
    Taken,
}

/// Judges a newcomer beside the run that holds the line, if one does.
fn seat(alarm: Option<&CloneAlarm>, held: Option<RunId>, comes: Option<Run>) -> Seat {
    let asked = |otherwise, run: Run| match held {
        Some(held) if held != run.this => Seat::Asked,
        Some(_) | None => otherwise,
    };
    match (alarm, comes) {
        (None, None) => Seat::Free,
        (None, Some(run)) => asked(Seat::Free, run),
        (Some(_), None) => Seat::Taken,
        (Some(alarm), Some(run)) => {
            let refused = run.this == alarm.refused || run.before == Some(alarm.refused);
            if run.this == alarm.kept {
                Seat::Free
            } else if run.before == Some(alarm.kept) && !refused {
                asked(Seat::Follows, run)
            } else {
                Seat::Taken
            }
        }
    }
}

/// Lets a newcomer have the device's line, or says why not; the alarm is raised by then.
///
/// # Errors
/// The refusal of its line.
pub(super) async fn claim(
    record: &DeviceRecord,
    comes: Option<Run>,
    peer: SocketAddr,
    shared: &Shared,
) -> Result<(), Refused> {
    let line = shared.registry.device(record.id);
    let held = line.as_ref().and_then(|line| line.run);
    let alarm = record.clone.as_ref();
    let kept = match seat(alarm, held, comes) {
        Seat::Free => return Ok(()),
        Seat::Follows => return follow(record, comes, shared).await,
        Seat::Asked => {
            let Some(line) = &line else { return Ok(()) };
            let round_trips = line.round_trip().unwrap_or_default() * ROUND_TRIPS;
            let patience = (PATIENCE + round_trips).min(LONGEST_PATIENCE);
            if !line.proves_itself(patience).await {
                tracing::debug!(device = %record.name, "the older line is dead");
                return follow(record, comes, shared).await;
            }
            held
        }
        Seat::Taken => alarm.map(|alarm| alarm.kept),
    };
    let refused = comes.map(|run| run.this).or(alarm.map(|alarm| alarm.refused));
    if let (Some(kept), Some(refused)) = (kept, refused) {
        tracing::warn!(
            device = %record.name, id = %record.id, %peer,
            "two machines have this device's key; the newer one is refused until somebody decides"
        );
        let seen = CloneSeen { device: record.id, kept, refused, source: peer };
        shared.store.note_clone(seen).await.map_err(|error: StoreError| Refused::from(&error))?;
    }
    let cause = "another machine with this device's key holds its line";
    let remedy = "enrol this machine with a token of its own, or let an administrator decide";
    Err(Refused::new(Code::Quarantined, cause, remedy).retry_after(AGAIN))
}

/// While the alarm is open, the run of the machine that was kept is known.
async fn follow(record: &DeviceRecord, comes: Option<Run>, shared: &Shared) -> Result<(), Refused> {
    match (&record.clone, comes) {
        (Some(_), Some(run)) => {
            let followed = shared.store.follow_kept(record.id, run.this).await;
            followed.map_err(|error| Refused::from(&error))
        }
        (None, _) | (Some(_), None) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use belay_proto::time::UnixTime;
    use uuid::Uuid;

    use super::*;

    fn id(n: u8) -> RunId {
        RunId::from_uuid(Uuid::from_bytes([n; 16]))
    }

    fn run(this: u8, before: u8) -> Option<Run> {
        Some(Run { this: id(this), before: Some(id(before)) })
    }

    fn alarm(kept: u8, refused: u8) -> CloneAlarm {
        CloneAlarm {
            since: UnixTime(1),
            source: String::new(),
            kept: id(kept),
            refused: id(refused),
        }
    }

    #[test]
    fn without_an_alarm_only_another_run_beside_a_live_line_is_looked_at() {
        assert_eq!(seat(None, None, run(1, 0)), Seat::Free, "nobody is there");
        assert_eq!(seat(None, Some(id(1)), run(1, 0)), Seat::Free, "it roams or dials again");
        assert_eq!(seat(None, Some(id(1)), None), Seat::Free, "an older agent does not say");
        assert_eq!(seat(None, Some(id(1)), run(2, 1)), Seat::Asked, "a restart, or a copy");
    }

    #[test]
    fn while_nobody_has_decided_the_machine_that_was_kept_comes_and_goes_and_restarts() {
        let alarm = alarm(1, 9);
        assert_eq!(seat(Some(&alarm), None, run(1, 0)), Seat::Free);
        assert_eq!(seat(Some(&alarm), Some(id(1)), run(1, 0)), Seat::Free);
        assert_eq!(seat(Some(&alarm), None, run(2, 1)), Seat::Follows);
        assert_eq!(seat(Some(&alarm), Some(id(1)), run(2, 1)), Seat::Asked);
    }

    #[test]
    fn while_nobody_has_decided_the_other_machine_gets_nothing_even_if_it_restarts() {
        let alarm = alarm(1, 9);
        for held in [None, Some(id(1))] {
            assert_eq!(seat(Some(&alarm), held, run(9, 1)), Seat::Taken, "copied while 1 ran");
            assert_eq!(seat(Some(&alarm), held, run(8, 9)), Seat::Taken, "its next run");
            assert_eq!(seat(Some(&alarm), held, run(5, 4)), Seat::Taken, "a third machine");
            assert_eq!(seat(Some(&alarm), held, None), Seat::Taken, "one that does not say");
        }
    }
}
