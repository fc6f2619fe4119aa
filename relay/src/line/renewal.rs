//! A device's certificates: asked for and answered over its line.

use std::time::Duration;

use belay_proto::ids::DeviceId;
use belay_proto::refusal::{Code, Refused};
use belay_proto::wire::control::{Control as Message, Renew, Renewed};
use belay_tunnel::carrier::Carrier;
use belay_tunnel::clock;
use belay_tunnel::pki::requested_key_digest;
use tokio::time::timeout;

use super::Shared;
use super::admit::Control;
use super::device::{End, goodbye, send};
use crate::store::{Event, EventKind, Renewal};

/// A device that slept past its certificate's end: it has proved its key, and gets a new
/// certificate. Nothing else is opened on this connection.
pub(super) async fn renew_only_line(
    carrier: &Carrier,
    id: DeviceId,
    mut control: Control,
    shared: &Shared,
) {
    let asked = timeout(Duration::from_secs(30), control.recv.next::<Message>()).await;
    if let Ok(Ok(Some(Message { renew: Some(renew), .. }))) = asked
        && answer_renewal(id, carrier, &mut control, &renew, shared).await.is_ok()
    {
        let done = Refused::new(Code::RenewOnly, "renewed", "connect again");
        goodbye(carrier, &mut control, &done).await;
        return;
    }
    let refused = Refused::new(
        Code::RenewOnly,
        "this certificate has expired and only renews",
        "ask for a renewal",
    );
    goodbye(carrier, &mut control, &refused).await;
}

pub(super) async fn answer_renewal(
    id: DeviceId,
    carrier: &Carrier,
    control: &mut Control,
    renew: &Renew,
    shared: &Shared,
) -> Result<(), End> {
    match renewed(id, carrier, renew, shared).await {
        Ok(renewed) => {
            send(control, Message { renewed: Some(renewed), ..Message::default() }).await
        }
        Err(refused) => {
            let event = Event::new(EventKind::RenewRefused)
                .device(id)
                .refused(&refused)
                .source(carrier.remote_address());
            if let Err(error) = shared.store.record(event).await {
                tracing::warn!(device = %id, %error, "cannot record a refused renewal");
            }
            Err(End::Told(refused))
        }
    }
}

async fn renewed(
    id: DeviceId,
    carrier: &Carrier,
    renew: &Renew,
    shared: &Shared,
) -> Result<Renewed, Refused> {
    let now = clock::now();
    let unknown = || Refused::new(Code::UnknownIdentity, "the relay does not know this device", "");
    let record = shared
        .store
        .device_by_id(id)
        .await
        .map_err(|error| Refused::from(&error))?
        .ok_or_else(unknown)?;
    let host_key = renew.ssh_host_key.as_deref().unwrap_or(&record.ssh_host_key);
    let issued = shared
        .authority
        .issue_device(id, &record.name, &renew.csr, host_key, now)
        .map_err(|error| Refused::from(&error))?;
    let key_digest = requested_key_digest(&renew.csr).map_err(|error| {
        Refused::new(Code::BadRequest, error.to_string(), "make the request again")
    })?;
    let note = Renewal {
        device: id,
        key_digest,
        ssh_host_key: renew.ssh_host_key.clone(),
        certificate_ends: issued.expires,
        source: carrier.remote_address(),
    };
    shared.store.note_renewal(note).await.map_err(|error| Refused::from(&error))?;
    Ok(Renewed {
        device: id,
        certificate: issued.certificate.to_vec().into(),
        ssh_host_certificate: Some(issued.ssh_certificate),
    })
}
