//! The HTTPS listener: TLS 1.3, HTTP/1.1, everything bounded.
//!
//! Its law: a connection holds a permit from before it is accepted until it has ended; every step
//! of it has a deadline; every task is in the listener's tracker. Stopping lets requests in flight
//! finish for a bounded time, then cuts. What it is not: it judges nobody (`api/gate`). A connection
//! that becomes a carrier (`upgrade`) leaves this room and its permits.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use belay_proto::error_line::one_line;
use belay_proto::refusal::{Code, Refused};
use belay_tunnel::carrier::websocket;
use belay_tunnel::pki::{ClientVerifier, PeerCertificate};
use belay_tunnel::tls::{self, TlsError};
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::hosts::{Held, Hosts};
use super::upgrade::{self, Upgrading};
use crate::api::{Api, Failure, Peer, REQUEST_WITHIN, router};
use crate::ca::{Authority, RelayCertificate};
use crate::config;
use crate::line::Door;

/// A TLS handshake, its wait for a turn included.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// From a connection's begin, or the end of an answer, to the end of the next request's head:
/// bounds slow senders and idle connections alike.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// Longest head of a request. Ours have about 300 bytes.
const MAX_HEAD: usize = 16 * 1024;

/// Most header lines.
const MAX_HEADERS: usize = 32;

/// A connection takes no new request after this, so that none is held for ever by asking.
const LIFE: Duration = Duration::from_secs(300);

/// After that, for the last answer to be read by whoever reads slowly.
const LAST_ANSWER: Duration = Duration::from_secs(120);

/// After an error of `accept`, such as too many open files.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// The TLS side of this listener. A client's certificate is optional: enrolment and login come
/// without one.
///
/// # Errors
/// [`TlsError`].
pub fn tls_config(
    authority: &Authority,
    certificate: Arc<RelayCertificate>,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let clients = ClientVerifier::optional(authority.ca().clone());
    tls::server(clients, certificate, &[b"http/1.1"]).map(Arc::new)
}

struct Shared {
    api: Arc<Api>,
    door: Door,
    router: Router,
    acceptor: TlsAcceptor,
    handshakes: Semaphore,
    /// Take no new requests.
    stop: CancellationToken,
    /// Let go of everything.
    cut: CancellationToken,
}

/// Serves until `stop`: requests by `api`, and carriers through `door`. Then it lets requests
/// in flight finish for at most `drain`.
pub async fn serve(
    (api, door): (Arc<Api>, Door),
    tls: Arc<rustls::ServerConfig>,
    limits: config::Https,
    listener: TcpListener,
    stop: CancellationToken,
    drain: Duration,
) {
    let shared = Arc::new(Shared {
        router: router(&api),
        api,
        door,
        acceptor: TlsAcceptor::from(tls),
        handshakes: Semaphore::new(limits.handshakes),
        stop,
        cut: CancellationToken::new(),
    });
    // Whatever way this future ends, its connections end with it.
    let _cut = shared.cut.clone().drop_guard();
    let tasks = TaskTracker::new();
    accept(&shared, limits, listener, &tasks).await;
    shared.api.recordings.watching.stop();
    tasks.close();
    if timeout(drain, tasks.wait()).await.is_err() {
        tracing::warn!(connections = tasks.len(), "cutting HTTPS requests that did not finish");
        shared.cut.cancel();
        tasks.wait().await;
    }
}

/// Takes connections until told to stop. The listener is closed when this returns.
async fn accept(
    shared: &Arc<Shared>,
    limits: config::Https,
    listener: TcpListener,
    tasks: &TaskTracker,
) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    let hosts = Hosts::new(limits.connections_per_source);
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await.ok()?;
            Some((permit, listener.accept().await))
        };
        let Some(Some((permit, accepted))) = shared.stop.run_until_cancelled(next).await else {
            return;
        };
        match accepted {
            Ok((tcp, peer)) => match hosts.enter(peer.ip()) {
                Some(held) => {
                    let shared = Arc::clone(shared);
                    tasks.spawn(async move { shared.connection(tcp, peer, (permit, held)).await });
                }
                None => tracing::debug!(%peer, "too many connections of one source"),
            },
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept HTTPS connections");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

impl Shared {
    async fn connection(
        &self,
        tcp: TcpStream,
        peer: SocketAddr,
        (permit, held): (OwnedSemaphorePermit, Held),
    ) {
        let make_room = held.cut().clone();
        let work = async {
            match self.handshake(tcp).await {
                Ok(stream) => self.requests(stream, peer, &held).await,
                Err(None) => {}
                Err(Some(refused)) => {
                    // The connection is over; its place is free while the record is written.
                    drop((permit, held));
                    self.api.strangers.refused(peer, &refused).await;
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = make_room.cancelled() => tracing::debug!(%peer, "silent, and had to make room"),
            () = self.cut.cancelled() => {}
        }
    }

    async fn handshake(&self, tcp: TcpStream) -> Result<TlsStream<TcpStream>, Option<Refused>> {
        websocket::prepare(&tcp);
        let work = async {
            let _turn = self.handshakes.acquire().await.ok();
            self.acceptor.accept(tcp).await
        };
        let work = self.stop.run_until_cancelled(work);
        match timeout(HANDSHAKE_WITHIN, work).await {
            Ok(Some(Ok(stream))) => Ok(stream),
            Ok(Some(Err(error))) => Err(judge(&error)),
            Ok(None) => Err(None),
            Err(_) => {
                let cause = "no TLS handshake in time";
                Err(Some(Refused::new(Code::Protocol, cause, "check the network")))
            }
        }
    }

    async fn requests(&self, stream: TlsStream<TcpStream>, peer: SocketAddr, held: &Held) {
        let (_, tls) = stream.get_ref();
        let leaf = tls.peer_certificates().and_then(|chain| chain.first());
        let certificate = match leaf.map(|leaf| PeerCertificate::from_der(leaf)).transpose() {
            Ok(certificate) => certificate.map(Arc::new),
            // The verifier has read it before; nothing gets here.
            Err(error) => {
                tracing::warn!(%peer, error = %one_line(&error), "unreadable certificate");
                return;
            }
        };
        let peer = Peer { address: peer, certificate };
        // At most one: an upgrade is the connection's last request.
        let upgrading = Mutex::<Option<Upgrading>>::default();
        let service = hyper::service::service_fn(|mut request: hyper::Request<Incoming>| {
            held.has_asked();
            request.extensions_mut().insert(peer.clone());
            let router = TowerToHyperService::new(self.router.clone());
            let (upgrading, peer) = (&upgrading, &peer);
            async move {
                if request.uri().path() != websocket::PATH {
                    return Ok::<_, Infallible>(in_time(router.call(request)).await);
                }
                Ok(match upgrade::begin(request, peer, &self.door) {
                    Ok((answer, begun)) => {
                        *upgrading.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
                        answer
                    }
                    Err(failure) => {
                        self.api.strangers.refused(peer.address, failure.refused()).await;
                        failure.into_response()
                    }
                })
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = self.stop.cancelled() => None,
            () = sleep(LIFE) => None,
        };
        let ended = match ended {
            Some(ended) => Ok(ended),
            None => {
                connection.as_mut().graceful_shutdown();
                timeout(LAST_ANSWER, connection).await
            }
        };
        match ended {
            Ok(Ok(())) => {
                let begun = upgrading.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(begun) = begun {
                    begun.hand_over(peer.address).await;
                }
            }
            Ok(Err(error)) => {
                tracing::debug!(peer = %peer.address, error = %one_line(&error), "HTTP");
            }
            Err(_) => tracing::debug!(peer = %peer.address, "its last answer was not read in time"),
        }
    }
}

async fn in_time(answer: impl Future<Output = Result<Response, Infallible>>) -> Response {
    match timeout(REQUEST_WITHIN, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => {
            let seconds = REQUEST_WITHIN.as_secs();
            let cause = format!("the request was not done within {seconds} s");
            let refused = Refused::new(Code::Busy, cause, "try again in a moment");
            Failure::with(StatusCode::REQUEST_TIMEOUT, refused).into_response()
        }
    }
}

/// What a failed handshake says about the peer; `None` when it just went away.
fn judge(error: &io::Error) -> Option<Refused> {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())?;
    let line = inner.to_string();
    let is_certificate = matches!(
        inner,
        rustls::Error::InvalidCertificate(_)
            | rustls::Error::NoCertificatesPresented
            | rustls::Error::UnsupportedNameType
    );
    Some(if is_certificate {
        let remedy = "log in or enrol at this relay";
        Refused::new(Code::ForeignCertificate, format!("TLS: {line}"), remedy)
    } else {
        Refused::new(Code::Protocol, format!("TLS: {line}"), "speak TLS 1.3 to this port")
    })
}
