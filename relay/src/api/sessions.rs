//! `/v1/sessions`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use belay_proto::api::Session;
use belay_proto::policy::AdminRight;
use belay_proto::refusal::Refused;

use super::{Api, Caller, Failure};
use crate::store::{SessionRecord, StoreError, Whose};

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<Session>>, Failure> {
    let store = |error: StoreError| Refused::from(&error);
    let (whose, users) = if caller.may(AdminRight::ManageUsers) {
        (Whose::All, api.store.users().await.map_err(store)?)
    } else {
        (Whose::User(caller.user.id), vec![caller.user.clone()])
    };
    let sessions = api.store.open_sessions(whose).await.map_err(store)?;
    let users: BTreeMap<_, _> = users.into_iter().map(|user| (user.id, user.name)).collect();
    let devices = api.store.devices().await.map_err(store)?;
    let devices: BTreeMap<_, _> =
        devices.into_iter().map(|device| (device.id, device.name)).collect();
    let shown = sessions.into_iter().filter_map(|session| {
        let user = users.get(&session.user)?.clone();
        let device = devices.get(&session.device)?.clone();
        let attached = api.presence.is_attached(session.id);
        Some(show(session, user, device, attached))
    });
    Ok(Json(shown.collect()))
}

fn show(
    session: SessionRecord,
    user: belay_proto::names::UserName,
    device: belay_proto::names::DeviceName,
    attached: bool,
) -> Session {
    Session {
        id: session.id,
        user,
        device,
        login: session.login.to_string(),
        kind: session.kind,
        opened: session.opened,
        ends: session.ends,
        attached,
        attachments: session.attachments,
        bytes_up: session.passed.up,
        bytes_down: session.passed.down,
    }
}
