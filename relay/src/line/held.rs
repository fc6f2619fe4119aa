//! The sessions a device has: what it says of them is brought together with the record.

use std::collections::BTreeSet;
use std::sync::Arc;

use belay_proto::ids::{DeviceId, SessionId};
use belay_proto::refusal::{Code, Refused};
use belay_proto::wire::control::Ended;

use super::Shared;
use super::session::close;
use crate::store::{Ending, EventKind, Passed, Reconciled};

/// Whether a device spoke of a session of its own that was open.
pub(super) enum Known {
    Yes,
    No,
}

/// Closes what a device that has connected no longer has. Returns what it is to end.
///
/// # Errors
/// The refusal of its line: without the record there is none.
pub(super) async fn reconcile(
    device: DeviceId,
    sessions: BTreeSet<SessionId>,
    shared: &Arc<Shared>,
) -> Result<Vec<Ended>, Refused> {
    let registry = Arc::clone(&shared.registry);
    let is_live = move |session| registry.is_attached(session);
    let over = shared.store.reconcile(device, sessions, is_live).await;
    let over = over.map_err(|error| Refused::from(&error))?;
    if !over.is_empty() {
        tracing::info!(%device, sessions = over.len(), "sessions ended while the line was down");
    }
    let ended = |Reconciled { session, why }| Ended {
        session,
        reason: Refused::new(Code::SessionOver, why, ""),
    };
    Ok(over.into_iter().map(ended).collect())
}

/// A device says that a session has ended: one that has a stream settles it with its last bytes,
/// another is closed here.
///
/// # Errors
/// When the store cannot be read.
pub(super) async fn ended(
    device: DeviceId,
    ended: &Ended,
    shared: &Shared,
) -> Result<Known, Refused> {
    // Its code is the device's own affair; for the client it means that the session is over.
    let reason = Refused::new(Code::SessionOver, ended.reason.cause(), ended.reason.remedy());
    if shared.registry.over_at_device(ended.session, device, reason.clone()) {
        return Ok(Known::Yes);
    }
    let session = shared.store.session(ended.session).await;
    let session = session.map_err(|error| Refused::from(&error))?;
    let own = session.filter(|session| session.device == device && session.over.is_none());
    let Some(session) = own else { return Ok(Known::No) };
    let why = reason.cause();
    let event = session.event(EventKind::SessionClosed);
    let event = event.detail(&format!("ended by the device while detached ({why})"));
    close(Ending { session: session.id, passed: Passed::default(), why, event }, shared).await;
    Ok(Known::Yes)
}
