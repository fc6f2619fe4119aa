//! A connection to the relay that requests are sent on, one after the other.
//!
//! Its law: whoever asks drives it. Nothing runs in the background, and nothing is left behind when it is dropped.

use std::pin::Pin;
use std::sync::Arc;

use belay_proto::error_line::one_line;
use bytes::Bytes;
use futures::FutureExt as _;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::Request;
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::connect::connect_tls;
use super::judge::refused_in_handshake;
use super::{Answer, HttpsError};
use crate::address::RelayAddress;
use crate::proxy::Proxies;

/// Longest answer read, in bytes: a list of 100,000 devices at 600 bytes each.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

type Driver = Connection<TokioIo<TlsStream<TcpStream>>, Full<Bytes>>;

/// See above.
pub(super) struct Open {
    sender: SendRequest<Full<Bytes>>,
    connection: Pin<Box<Driver>>,
}

/// A request that got no answer.
pub(super) struct Broken {
    pub(super) error: HttpsError,
    /// Nothing of the request has left.
    pub(super) unsent: bool,
    /// The connection ended before there was an answer.
    pub(super) lost: bool,
}

impl Open {
    /// Connects and finishes the TLS handshake.
    pub(super) async fn new(
        relay: &RelayAddress,
        proxies: &Proxies,
        tls: &Arc<ClientConfig>,
    ) -> Result<Self, HttpsError> {
        let stream = connect_tls(relay, proxies, tls).await?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|e| refused_in_handshake(relay, &e))?;
        Ok(Self { sender, connection: Box::pin(connection) })
    }

    /// Whether it takes a request: the relay may have ended it meanwhile.
    pub(super) async fn is_ready(&mut self) -> bool {
        tokio::select! {
            biased;
            _ = &mut self.connection => false,
            ready = self.sender.ready() => ready.is_ok(),
        }
    }

    /// Sends a request and reads its whole answer.
    pub(super) async fn ask(
        &mut self,
        relay: &RelayAddress,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, Broken> {
        let answering = async {
            let answer = self.sender.try_send_request(request).await.map_err(|mut error| {
                let unsent = error.take_message().is_some();
                let error = refused_in_handshake(relay, error.error());
                Broken { lost: error.token == "relay-lost", error, unsent }
            })?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| Broken {
                error: unread(relay, &*error),
                unsent: false,
                lost: false,
            })?;
            Ok(Answer { status, body: body.to_bytes(), headers })
        };
        tokio::pin!(answering);
        // Both are polled by this one task.
        tokio::select! {
            answer = &mut answering => answer,
            ended = &mut self.connection => match ended {
                Ok(()) => answering.await,
                Err(error) => {
                    let error = refused_in_handshake(relay, &error);
                    let of_request = answering.now_or_never().and_then(Result::err);
                    let unsent = of_request.is_some_and(|broken| broken.unsent);
                    Err(Broken { lost: error.token == "relay-lost", error, unsent })
                }
            },
        }
    }
}

fn unread(
    relay: &RelayAddress,
    error: &(dyn std::error::Error + Send + Sync + 'static),
) -> HttpsError {
    if error.is::<LengthLimitError>() {
        let cause = format!("{relay} answered with more than {MAX_ANSWER} bytes");
        return HttpsError::new("protocol", cause)
            .remedy("check that the address is a Belay relay's");
    }
    HttpsError::new("relay-lost", format!("{relay} broke off its answer: {}", one_line(error)))
}
