//! Ending what a change no longer allows, at once: sessions with and without a stream alike.
//!
//! What is judged is the record of open sessions, so a session that waits for its client is not
//! forgotten, and neither is one whose permission ended while the relay was down. Once a minute
//! what could not be judged is judged again, and sessions whose time is over are closed.

use std::sync::Arc;
use std::time::Duration;

use belay_proto::api::DeviceStatus;
use belay_proto::ids::{DeviceId, UserId};
use belay_proto::refusal::{Code, Refused};
use belay_tunnel::clock;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::MissedTickBehavior;

use super::Shared;
use super::registry::LiveSession;
use super::session::{close, end_at_device, still_allowed};
use crate::store::{Change, Ending, EventKind, Passed, SessionRecord, StoreError, Whose};

/// How often to look for sessions whose time is over.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// How long after its last second a session is closed here. Its device or its splice does it
/// before, unless the device has had no line since.
const OVERDUE: Duration = Duration::from_secs(300);

/// Watches the store's changes until the relay stops.
pub async fn watch(mut changes: Receiver<Change>, shared: Arc<Shared>) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What changed before this relay started has been judged by nobody.
    let mut judged = Judged::Partly;
    loop {
        let change = tokio::select! {
            change = changes.recv() => change,
            _ = look.tick() => {
                if judged == Judged::Partly {
                    judged = everything(&shared).await;
                }
                overdue(&shared).await;
                continue;
            }
            () = shared.stop.cancelled() => return,
        };
        let now = match change {
            Ok(Change::DeviceStatus(id, status)) => device_status(&shared, id, status).await,
            Ok(Change::UserDisabled(id)) => user_disabled(&shared, id).await,
            Ok(Change::DeviceEdited(id)) => {
                tell_name(&shared, id).await;
                again(&shared, Whose::Device(id)).await
            }
            Ok(Change::UserRoles(id)) => again(&shared, Whose::User(id)).await,
            Ok(Change::SessionKilled(id)) => again(&shared, Whose::One(id)).await,
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "too many changes at once: judging everything again");
                everything(&shared).await
            }
            Err(RecvError::Closed) => return,
        };
        judged = judged.and(now);
    }
}

/// Whether all was looked at that had to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judged {
    Wholly,
    Partly,
}

impl Judged {
    fn and(self, other: Self) -> Self {
        if self == Self::Wholly { other } else { self }
    }
}

/// Ends a session: at its device, on its stream, in the record. An attached one is closed by
/// whoever holds its stream, with its last bytes.
pub(super) async fn end(shared: &Shared, session: &SessionRecord, reason: &Refused) {
    end_at_device(session, reason, shared);
    if shared.registry.cut(session.id, reason.clone()) {
        return;
    }
    let why = reason.cause();
    let event = session.event(EventKind::SessionClosed);
    let event = event.detail(&format!("ended while detached ({why})"));
    close(Ending { session: session.id, passed: Passed::default(), why, event }, shared).await;
}

/// Ends the line of a device that may not have one any more.
pub(super) async fn judge_device(shared: &Shared, id: DeviceId) {
    match shared.store.device_by_id(id).await {
        Ok(Some(record)) => drop(device_status(shared, id, record.status).await),
        Ok(None) => {}
        // It was good a moment ago, and is judged again with each session.
        Err(error) => tracing::warn!(device = %id, %error, "cannot look at a device's standing"),
    }
}

async fn device_status(shared: &Shared, id: DeviceId, status: DeviceStatus) -> Judged {
    let (code, cause) = match status {
        DeviceStatus::Active => return Judged::Wholly,
        DeviceStatus::Quarantined => (Code::Quarantined, "this device was quarantined"),
        DeviceStatus::Decommissioned => (Code::Decommissioned, "this device was decommissioned"),
    };
    let reason = Refused::new(code, cause, "ask an administrator");
    let judged = end_each(shared, Whose::Device(id), &reason).await;
    if let Some(device) = shared.registry.device(id) {
        device.end(reason);
    }
    judged
}

async fn tell_name(shared: &Shared, id: DeviceId) {
    let Some(live) = shared.registry.device(id) else { return };
    match shared.store.device_by_id(id).await {
        Ok(Some(record)) => live.rename(record.name),
        Ok(None) => {}
        // It learns its name when it connects again.
        Err(error) => tracing::warn!(device = %id, %error, "cannot tell a device its name"),
    }
}

async fn user_disabled(shared: &Shared, id: UserId) -> Judged {
    let reason =
        Refused::new(Code::UserDisabled, "your account was disabled", "ask an administrator");
    let judged = end_each(shared, Whose::User(id), &reason).await;
    shared.registry.end_clients(id, &reason);
    judged
}

async fn end_each(shared: &Shared, whose: Whose, reason: &Refused) -> Judged {
    match shared.store.open_sessions(whose).await {
        Ok(sessions) => {
            for session in &sessions {
                end(shared, session, reason).await;
            }
            Judged::Wholly
        }
        Err(error) => unreadable(shared, whose, &error),
    }
}

/// Asks the policy again about open sessions; one it would refuse now is ended. So is one it cannot
/// be asked about: permission is never assumed.
async fn again(shared: &Shared, whose: Whose) -> Judged {
    match shared.store.open_sessions(whose).await {
        Ok(sessions) => {
            for session in &sessions {
                if let Err(reason) = still_allowed(shared, session).await {
                    end(shared, session, &reason).await;
                }
            }
            Judged::Wholly
        }
        Err(error) => unreadable(shared, whose, &error),
    }
}

/// The record cannot be read: what is attached is cut, what waits is judged when it can be read
/// again, and before it gets a stream in any case.
fn unreadable(shared: &Shared, whose: Whose, error: &StoreError) -> Judged {
    tracing::error!(%error, "cannot judge open sessions again; ending those that are attached");
    let concerns = |session: &LiveSession| match whose {
        Whose::All => true,
        Whose::User(user) => session.user == user,
        Whose::Device(device) => session.device == device,
        Whose::One(id) => session.id == id,
        Whose::Joining | Whose::DueBefore(_) => false,
    };
    let reason = Refused::from(error);
    for session in shared.registry.all_sessions().iter().filter(|session| concerns(session)) {
        if !shared.registry.cut(session.id, reason.clone()) {
            tracing::debug!(session = %session.id, "it had ended");
        }
    }
    Judged::Partly
}

async fn overdue(shared: &Shared) {
    let before = clock::now().minus(OVERDUE);
    match shared.store.open_sessions(Whose::DueBefore(before)).await {
        Ok(sessions) => {
            let reason =
                Refused::new(Code::SessionOver, "the session's time is over", "open a new one");
            for session in &sessions {
                end(shared, session, &reason).await;
            }
        }
        // Looked at again in a minute.
        Err(error) => tracing::warn!(%error, "cannot look for sessions whose time is over"),
    }
}

async fn everything(shared: &Shared) -> Judged {
    let mut judged = Judged::Wholly;
    for device in shared.registry.all_devices() {
        let now = match shared.store.device_by_id(device.id).await {
            Ok(Some(record)) => device_status(shared, device.id, record.status).await,
            Ok(None) => device_status(shared, device.id, DeviceStatus::Decommissioned).await,
            Err(error) => {
                tracing::error!(%error, "cannot judge a line again; ending it");
                device.end(Refused::from(&error));
                Judged::Wholly
            }
        };
        judged = judged.and(now);
    }
    for user in shared.registry.connected_users() {
        let now = match shared.store.user(user).await {
            Ok(Some(record)) if !record.disabled => Judged::Wholly,
            Ok(_) => user_disabled(shared, user).await,
            Err(error) => {
                shared.registry.end_clients(user, &Refused::from(&error));
                Judged::Wholly
            }
        };
        judged = judged.and(now);
    }
    judged.and(again(shared, Whose::All).await)
}
