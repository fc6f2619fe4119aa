//! The one request that is no request: `GET /v1/line` turns its connection into a carrier.
//!
//! Its law: a carrier that comes this way is bounded as one over QUIC. It takes a stranger's place
//! before it is answered, and is admitted by the same question at `Hello`. What differs is that a
//! certificate is asked for here: TLS on this port leaves it to the caller.

use std::net::SocketAddr;

use axum::body::Body;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use belay_proto::error_line::one_line;
use belay_proto::refusal::{Code, Refused};
use belay_tunnel::carrier::websocket;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::api::{Failure, Peer};
use crate::line::{Door, Entered};

/// An upgrade that was answered with 101.
pub(super) struct Upgrading {
    connection: OnUpgrade,
    place: Entered,
}

/// Answers the request, and keeps a place for the carrier.
pub(super) fn begin(
    request: hyper::Request<Incoming>,
    peer: &Peer,
    door: &Door,
) -> Result<(Response, Upgrading), Failure> {
    let wrong = |status, cause| {
        Failure::with(status, Refused::new(Code::BadRequest, cause, "use belay or belay-agent"))
    };
    if request.method() != Method::GET {
        return Err(wrong(StatusCode::METHOD_NOT_ALLOWED, "a line begins with GET"));
    }
    let headers = websocket::answer_upgrade(request.headers())
        .map_err(|(status, cause)| wrong(status, cause))?;
    if peer.certificate.is_none() {
        let cause = "a line needs a certificate, and none was shown";
        return Err(Refused::new(Code::ForeignCertificate, cause, "log in or enrol").into());
    }
    let Some(place) = door.enter(peer.address) else {
        let cause = "too many connections are waiting to be admitted";
        let refused = Refused::new(Code::Busy, cause, "try again in a moment");
        return Err(Failure::with(StatusCode::SERVICE_UNAVAILABLE, refused));
    };
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = headers;
    Ok((answer, Upgrading { connection: hyper::upgrade::on(request), place }))
}

impl Upgrading {
    /// Once the answer is sent: makes the connection a carrier and hands it to the line's side.
    pub(super) async fn hand_over(self, peer: SocketAddr) {
        let upgraded = match self.connection.await {
            Ok(upgraded) => upgraded,
            Err(error) => {
                tracing::debug!(%peer, error = %one_line(&error), "no upgrade");
                return;
            }
        };
        let parts = match upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>() {
            Ok(parts) => parts,
            Err(_) => {
                tracing::error!(%peer, "an upgraded connection is not of this listener");
                return;
            }
        };
        let stream = parts.io.into_inner();
        let chain = stream.get_ref().1.peer_certificates();
        let leaf = chain.and_then(|chain| chain.first()).map(|leaf| leaf.clone().into_owned());
        let (carrier, mover) =
            websocket::accepted(stream, parts.read_buf.to_vec(), peer, leaf).await;
        self.place.hold(carrier, mover);
    }
}
