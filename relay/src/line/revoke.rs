//! Cutting what a change no longer allows, at once, wherever it is live.

use std::sync::Arc;

use belay_proto::api::DeviceStatus;
use belay_proto::ids::{DeviceId, UserId};
use belay_proto::policy::{Facts, decide};
use belay_proto::refusal::{Code, Refused};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::Shared;
use super::registry::LiveSession;
use crate::store::Change;

/// Watches the store's changes until the relay stops.
pub async fn watch(mut changes: Receiver<Change>, shared: Arc<Shared>) {
    loop {
        let change = tokio::select! {
            change = changes.recv() => change,
            () = shared.stop.cancelled() => return,
        };
        match change {
            Ok(Change::DeviceStatus(id, status)) => device_status(&shared, id, status),
            Ok(Change::UserDisabled(id)) => user_disabled(&shared, id),
            Ok(Change::DeviceEdited(id)) => {
                tell_name(&shared, id).await;
                again(&shared, |session| session.device == id).await;
            }
            Ok(Change::UserRoles(id)) => again(&shared, |session| session.user == id).await,
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "too many changes at once: judging everything again");
                everything(&shared).await;
            }
            Err(RecvError::Closed) => return,
        }
    }
}

fn device_status(shared: &Shared, id: DeviceId, status: DeviceStatus) {
    let (code, cause) = match status {
        DeviceStatus::Active => return,
        DeviceStatus::Quarantined => (Code::Quarantined, "this device was quarantined"),
        DeviceStatus::Decommissioned => (Code::Decommissioned, "this device was decommissioned"),
    };
    let reason = Refused::new(code, cause, "ask an administrator");
    for session in shared.registry.all_sessions().iter().filter(|s| s.device == id) {
        session.cut(reason.clone());
    }
    if let Some(device) = shared.registry.device(id) {
        device.end(reason);
    }
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

fn user_disabled(shared: &Shared, id: UserId) {
    let reason =
        Refused::new(Code::UserDisabled, "your account was disabled", "ask an administrator");
    for session in shared.registry.all_sessions().iter().filter(|s| s.user == id) {
        session.cut(reason.clone());
    }
    shared.registry.end_clients(id, &reason);
}

/// Asks the policy again about open sessions; one it would refuse now is cut. So is one it cannot
/// be asked about: permission is never assumed.
async fn again(shared: &Shared, concerns: impl Fn(&LiveSession) -> bool) {
    for session in shared.registry.all_sessions() {
        if concerns(&session)
            && let Err(reason) = still_allowed(shared, &session).await
        {
            session.cut(reason);
        }
    }
}

async fn still_allowed(shared: &Shared, session: &LiveSession) -> Result<(), Refused> {
    let user = shared.store.user(session.user).await.map_err(|error| Refused::from(&error))?;
    let device =
        shared.store.device_by_id(session.device).await.map_err(|error| Refused::from(&error))?;
    let (Some(user), Some(device)) = (user, device) else {
        return Err(Refused::new(Code::NotAllowed, "user or device is gone", ""));
    };
    let facts = Facts {
        roles: &user.roles,
        labels: &device.labels,
        kind: &session.kind,
        login: &session.login,
    };
    match decide(&facts) {
        Ok(_) => Ok(()),
        Err(denied) => Err(Refused::new(
            denied.code,
            format!("your permission changed: {}", denied.cause),
            denied.remedy,
        )),
    }
}

async fn everything(shared: &Shared) {
    for device in shared.registry.all_devices() {
        match shared.store.device_by_id(device.id).await {
            Ok(Some(record)) => device_status(shared, device.id, record.status),
            Ok(None) => device_status(shared, device.id, DeviceStatus::Decommissioned),
            Err(error) => {
                tracing::error!(%error, "cannot judge a line again; ending it");
                device.end(Refused::from(&error));
            }
        }
    }
    for user in shared.registry.connected_users() {
        match shared.store.user(user).await {
            Ok(Some(record)) if !record.disabled => {}
            Ok(_) => user_disabled(shared, user),
            Err(error) => shared.registry.end_clients(user, &Refused::from(&error)),
        }
    }
    again(shared, |_| true).await;
}
