//! `/v1/devices`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use belay_proto::api::{Device, DeviceChange, Twin};
use belay_proto::policy::AdminRight;
use belay_proto::refusal::{Code, Refused};

use super::body::Strict;
use super::{Api, Caller, Failure};
use crate::store::{DeviceChangeError, DeviceRecord, StoreError};

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<Device>>, Failure> {
    let devices = api.store.devices().await.map_err(|e: StoreError| Refused::from(&e))?;
    let covered = |device: &DeviceRecord| {
        let roles = caller.user.roles.iter();
        roles.filter(|role| role.may(AdminRight::ListDevices)).any(|r| r.covers(&device.labels))
    };
    Ok(Json(devices.into_iter().filter(covered).map(|device| show(&api, device)).collect()))
}

pub(super) async fn change(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(device): Path<String>,
    Strict(change): Strict<DeviceChange>,
) -> Result<Json<Device>, Failure> {
    let edits =
        change.name.is_some() || !change.set_labels.is_empty() || !change.remove_labels.is_empty();
    let rights =
        [(edits, AdminRight::EditDevice), (change.status.is_some(), AdminRight::DeviceStatus)];
    for (asked, right) in rights {
        if asked && !caller.may(right) {
            let cause = format!("none of your roles has the right {}", right.token());
            let refused = Refused::new(Code::NotAllowed, cause, "ask an administrator");
            return Err(caller.refuse(&api, refused).await);
        }
    }
    match api.store.change_device(&device, change, caller.actor()).await {
        Ok(device) => Ok(Json(show(&api, device))),
        Err(error @ DeviceChangeError::Store(_)) => Err(Refused::from(&error).into()),
        Err(error) => Err(caller.refuse(&api, Refused::from(&error)).await),
    }
}

fn show(api: &Api, device: DeviceRecord) -> Device {
    let present = api.presence.line(device.id);
    Device {
        id: device.id,
        name: device.name,
        status: device.status,
        labels: device.labels,
        enrolled: device.enrolled,
        online: present.is_some(),
        last_seen: present.as_ref().map(|present| present.last_seen).or(device.last_seen),
        line: present.map(|present| present.line),
        last_end: device.last_end,
        hostname: device.hostname,
        platform: device.platform,
        software: device.software,
        clone: device.clone.map(|alarm| Twin { since: alarm.since, address: alarm.source }),
    }
}
