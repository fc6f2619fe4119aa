//! The relay's HTTPS interface from outside: HTTP/1.1 over TLS, directly or through the environment's proxy.
//!
//! Its law: every step has a deadline, every way to fail has a line of its own, and nothing is done twice: what
//! was sent and may have been heard is asked again only where asking changes nothing.

mod connect;
mod http_date;
mod judge;
mod open;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use belay_proto::time::UnixTime;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, CONTENT_TYPE, DATE, HOST, HeaderMap, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use rustls::ClientConfig;
use tokio::time::{Instant, sleep, timeout};

use self::open::{Broken, Open};
use crate::address::RelayAddress;
use crate::proxy::Proxies;

/// The relay's answer. A login costs it one slow password hash, which may wait for others.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A relay that has no turn for a request says when it has. That is waited for, so long in all.
const TURN_WITHIN: Duration = Duration::from_secs(10);

/// A connection that was not used for so long is not used again: the relay ends it after ten seconds, and a router
/// on the way may have forgotten it.
const KEPT_FOR: Duration = Duration::from_secs(5);

/// Why the relay gave no answer: a word for programs, the cause, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}; {remedy}")]
pub struct HttpsError {
    /// One word, stable.
    pub token: &'static str,
    /// What went wrong.
    pub cause: String,
    /// What to do.
    pub remedy: &'static str,
}

impl HttpsError {
    fn new(token: &'static str, cause: impl Into<String>) -> Self {
        Self { token, cause: cause.into(), remedy: "try again" }
    }

    const fn remedy(mut self, remedy: &'static str) -> Self {
        self.remedy = remedy;
        self
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// All that was said, at most 64 MiB.
    pub body: Bytes,
    headers: HeaderMap,
}

impl Answer {
    /// When to ask again, where the relay did nothing (RFC 6585 §4) and says so (RFC 9110 §10.2.3, in seconds). A
    /// second at least: what says less would be asked for ever.
    fn told_to_wait(&self) -> Option<Duration> {
        let is_busy = self.status == StatusCode::TOO_MANY_REQUESTS;
        let seconds: u64 = self.headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
        is_busy.then(|| Duration::from_secs(seconds.max(1)))
    }

    /// The relay's time (RFC 9110 §6.6.1).
    fn time(&self) -> Option<UnixTime> {
        self.headers.get(DATE).and_then(|date| date.to_str().ok()).and_then(http_date::read)
    }
}

/// One relay's interface. A connection is kept for the next request: three round trips less for it.
pub struct Https {
    relay: RelayAddress,
    tls: Arc<ClientConfig>,
    /// Who asks, as a product and its version.
    software: &'static str,
    kept: Mutex<Option<(Open, Instant)>>,
}

impl Https {
    /// Of this relay, under this configuration of TLS.
    pub const fn new(relay: RelayAddress, tls: Arc<ClientConfig>, software: &'static str) -> Self {
        Self { relay, tls, software, kept: Mutex::new(None) }
    }

    /// The relay asked.
    pub const fn relay(&self) -> &RelayAddress {
        &self.relay
    }

    /// Sends one request and reads its whole answer; again when the relay had no turn for it and will soon.
    ///
    /// # Errors
    /// [`HttpsError`].
    pub async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Answer, HttpsError> {
        let request = self.request(method, path, body)?;
        let mut left = TURN_WITHIN;
        loop {
            let answer = self.once(request.clone()).await?;
            let Some(wait) = answer.told_to_wait() else { return Ok(answer) };
            let Some(after) = left.checked_sub(wait) else { return Ok(answer) };
            left = after;
            sleep(wait).await;
        }
    }

    async fn once(&self, request: Request<Full<Bytes>>) -> Result<Answer, HttpsError> {
        let repeats = request.method().is_safe();
        if let Some(mut open) = self.kept().await {
            match self.ask(&mut open, request.clone()).await {
                Ok(answer) => return Ok(self.keep(open, answer)),
                // The relay may have closed it just now, and heard nothing.
                Err(broken) if broken.unsent || (broken.lost && repeats) => {}
                Err(broken) => return Err(broken.error),
            }
        }
        let proxies = Proxies::from_environment().map_err(|error| {
            HttpsError::new("bad-setting", error.to_string()).remedy("change it in the environment")
        })?;
        let mut open = Open::new(&self.relay, &proxies, &self.tls).await?;
        let answer = self.ask(&mut open, request).await.map_err(|broken| broken.error)?;
        Ok(self.keep(open, answer))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Request<Full<Bytes>>, HttpsError> {
        Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.relay.to_string())
            .header(USER_AGENT, self.software)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| HttpsError::new("internal", format!("cannot make the request: {e}")))
    }

    async fn ask(&self, open: &mut Open, request: Request<Full<Bytes>>) -> Result<Answer, Broken> {
        let asked = open.ask(&self.relay, request);
        timeout(ANSWER_WITHIN, asked).await.unwrap_or_else(|_| {
            let error = HttpsError::new(
                "relay-silent",
                format!("{} did not answer within {} s", self.relay, ANSWER_WITHIN.as_secs()),
            );
            let remedy = "try again; if it stays so, tell the relay's operator";
            Err(Broken { error: error.remedy(remedy), unsent: false, lost: false })
        })
    }

    /// The connection of the request before, if it is still good.
    async fn kept(&self) -> Option<Open> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (mut open, since) = kept?;
        (since.elapsed() < KEPT_FOR && open.is_ready().await).then_some(open)
    }

    fn keep(&self, open: Open, answer: Answer) -> Answer {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some((open, Instant::now()));
        answer
    }
}

/// Asks the relay for the time, without saying who asks: every answer of HTTP has it (RFC 9110
/// §6.6.1). Believed because TLS has proved the relay. `None` when the answer has none.
///
/// # Errors
/// [`HttpsError`].
pub async fn relay_time(
    relay: &RelayAddress,
    proxies: &Proxies,
    tls: &Arc<ClientConfig>,
    software: &'static str,
) -> Result<Option<UnixTime>, HttpsError> {
    let https = Https::new(relay.clone(), Arc::clone(tls), software);
    // A line's path: without an upgrade it is answered, and nothing comes of it.
    let request = https.request(Method::GET, crate::carrier::websocket::PATH, Vec::new())?;
    let mut open = Open::new(relay, proxies, tls).await?;
    let answer = https.ask(&mut open, request).await.map_err(|broken| broken.error)?;
    Ok(answer.time())
}
