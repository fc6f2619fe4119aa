//! Which sessions of other people somebody may know of because they may join them.
//!
//! Whoever may have a shell with that login on that device may join a session of it, and has to find
//! it first. Only open sessions: what somebody did is for who reads evidence.

use std::collections::BTreeMap;

use belay_proto::ids::DeviceId;
use belay_proto::policy::{Facts, decide};

use super::{Api, Caller};
use crate::store::{DeviceRecord, SessionRecord, StoreError};

/// Devices looked up one by one; of more the whole list is read.
const ONE_BY_ONE: usize = 64;

/// Those of the sessions that are the caller's own, or open and such that they may join them.
pub(super) async fn known(
    api: &Api,
    caller: &Caller,
    mut sessions: Vec<SessionRecord>,
) -> Result<Vec<SessionRecord>, StoreError> {
    let devices = devices(api, &sessions).await?;
    sessions.retain(|session| {
        let device = devices.get(&session.device);
        session.user == caller.user.id || device.is_some_and(|device| may(caller, session, device))
    });
    Ok(sessions)
}

fn may(caller: &Caller, session: &SessionRecord, device: &DeviceRecord) -> bool {
    let SessionRecord { kind, login, over, .. } = session;
    let facts = Facts {
        roles: &caller.user.roles,
        labels: &device.labels,
        kind,
        login,
        break_glass: false,
    };
    over.is_none() && decide(&facts).is_ok_and(|allowed| allowed.may_join())
}

async fn devices(
    api: &Api,
    sessions: &[SessionRecord],
) -> Result<BTreeMap<DeviceId, DeviceRecord>, StoreError> {
    let wanted: std::collections::BTreeSet<_> =
        sessions.iter().map(|session| session.device).collect();
    if wanted.len() > ONE_BY_ONE {
        let all = api.store.devices().await?;
        return Ok(all.into_iter().map(|device| (device.id, device)).collect());
    }
    let mut found = BTreeMap::new();
    for id in wanted {
        found.extend(api.store.device_by_id(id).await?.map(|device| (id, device)));
    }
    Ok(found)
}
