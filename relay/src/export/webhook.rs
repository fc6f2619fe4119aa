//! JSON lines in a request that is signed as Standard Webhooks has it
//! (<https://www.standardwebhooks.com>), so that receivers' libraries check it.
//!
//! `webhook-id` is also the idempotency key: of the log, the first and the last entry. A batch that is
//! sent again has the same one.

use aws_lc_rs::hmac;
use axum::http::HeaderValue;
use axum::http::header::{HeaderMap, HeaderName};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use belay_tunnel::clock;
use zeroize::Zeroizing;

use super::{Batch, DeliverError};
use crate::outbound::Peer;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const IDEMPOTENCY: HeaderName = HeaderName::from_static("idempotency-key");

/// Shortest secret, in bytes.
const LEAST: usize = 16;

/// The secret that both ends have.
pub(super) struct Key(hmac::Key);

impl Key {
    /// What [`Key::read`] takes.
    pub(super) const RULE: &'static str = "16 bytes or more, or whsec_ and those in base64";

    /// `whsec_` and base64, or the bytes themselves.
    pub(super) fn read(secret: &[u8]) -> Option<Self> {
        let bytes = match secret.strip_prefix(b"whsec_") {
            Some(base64) => Zeroizing::new(STANDARD.decode(base64).ok()?),
            None => Zeroizing::new(secret.to_vec()),
        };
        (bytes.len() >= LEAST).then(|| Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    fn sign(&self, id: &str, at: u64, body: &[u8]) -> String {
        let mut signing = hmac::Context::with_key(&self.0);
        signing.update(format!("{id}.{at}.").as_bytes());
        signing.update(body);
        format!("v1,{}", STANDARD.encode(signing.sign()))
    }
}

pub(super) struct Sink {
    peer: Peer,
    key: Key,
}

impl Sink {
    pub(super) const fn new(peer: Peer, key: Key) -> Self {
        Self { peer, key }
    }

    pub(super) async fn deliver(&self, batch: &Batch) -> Result<(), DeliverError> {
        let id = format!("belay-{:08x}-{}-{}", batch.log.number(), batch.first, batch.last);
        let (at, body) = (clock::now().0, batch.text().into_bytes());
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (SIGNATURE, self.key.sign(&id, at, &body)),
            (TIMESTAMP, at.to_string()),
            (IDEMPOTENCY, id.clone()),
            (ID, id),
        ] {
            // All of it is plain ASCII.
            headers.extend(HeaderValue::from_str(&value).ok().map(|value| (name, value)));
        }
        let answer = self.peer.post("application/x-ndjson", headers, body).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        Err(DeliverError::Status(self.peer.url().to_string(), answer.status))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::Key;

    /// The example of <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec>.
    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        let key = Key::read(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature =
            key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(Key::read(b"short").is_none() && Key::read(b"whsec_!").is_none());
        assert!(Key::read(b"sixteen bytes or").is_some());
    }
}
