//! Request bodies: bounded, JSON, every field known.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use belay_proto::api::MAX_BODY;
use belay_proto::refusal::{Code, Refused};
use serde::de::DeserializeOwned;

use super::{Api, Caller, Failure, Peer, gate};
use crate::store::{Event, EventKind};

/// A body read strictly, from somebody who may send it once it is read.
pub(super) struct Strict<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequest<Arc<Api>> for Strict<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Failure> {
        let peer = request.extensions().get::<Peer>().cloned();
        let caller = request.extensions().get::<Caller>().cloned();
        let what = format!("{} {}", request.method(), request.uri().path());
        let read = read(request).await;
        if let (Err(failure), Some(peer)) = (&read, &peer) {
            let event = match &caller {
                Some(caller) => caller.actor().event(EventKind::RequestRefused),
                None => Event::new(EventKind::RequestRefused),
            };
            api.strangers.record(peer.address, event.refused(failure.refused())).await;
        }
        let read = read?;
        if let (Some(caller), Some(peer)) = (caller, peer) {
            gate::still(api, &peer, &caller, &what).await?;
        }
        Ok(Self(read))
    }
}

async fn read<T: DeserializeOwned>(request: Request) -> Result<T, Failure> {
    // A page in a browser can send other types to another origin without asking it first.
    let kind = request.headers().get(header::CONTENT_TYPE);
    if kind.is_none_or(|kind| kind.as_bytes() != b"application/json") {
        return Err(Failure::with(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            malformed("the body must be of type application/json"),
        ));
    }
    let bytes = axum::body::to_bytes(request.into_body(), MAX_BODY).await.map_err(|_| {
        let cause = format!("the body is over {MAX_BODY} bytes or was cut off");
        Failure::with(StatusCode::PAYLOAD_TOO_LARGE, malformed(&cause))
    })?;
    serde_json::from_slice(&bytes)
        .map_err(|error| malformed(&format!("the request cannot be read: {error}")).into())
}

fn malformed(cause: &str) -> Refused {
    Refused::new(Code::BadRequest, cause, "use a client of this relay's version")
}
