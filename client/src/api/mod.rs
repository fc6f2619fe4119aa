//! The relay's HTTPS interface, from the client's side: one request, one answer, bounded and timed.

mod connection;

use std::sync::Arc;

use belay_proto::api::ApiError;
use belay_proto::token::Fingerprint;
use belay_tunnel::https::Https;
use belay_tunnel::pki::{FirstContactVerifier, RelayVerifier};
use belay_tunnel::tls;
use bytes::Bytes;
use hyper::Method;
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{Failure, known_token};
use crate::home::{Home, Login};
use belay_tunnel::address::RelayAddress;

/// This client, in requests.
const SOFTWARE: &str = concat!("belay/", env!("CARGO_PKG_VERSION"));

/// Spoken over TLS (RFC 7301).
const ALPN: &[&[u8]] = &[b"http/1.1"];

/// A relay's interface, ready to be asked.
pub struct Api(Https);

impl Api {
    /// With a login's certificate and pinned CA.
    ///
    /// # Errors
    /// When the login's files are damaged.
    pub fn of(login: &Login) -> Result<Self, Failure> {
        let verifier = RelayVerifier::pinned(login.ca()?, login.record().clock);
        let tls = tls::client(verifier, Some(login.tls_identity()?), ALPN).map_err(damaged)?;
        Ok(Self::new(login.relay().clone(), tls))
    }

    /// Of the login in `home`, which must still be good.
    ///
    /// # Errors
    /// When there is none.
    pub fn of_home(home: &Home) -> Result<Self, Failure> {
        Self::of(&home.live_login()?)
    }

    /// Without a certificate, with the CA already pinned: a login by password.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn pinned(
        relay: RelayAddress,
        ca: rustls_pki_types::CertificateDer<'static>,
    ) -> Result<Self, Failure> {
        let verifier = RelayVerifier::pinned(ca, belay_proto::time::UnixTime(0));
        let tls = tls::client(verifier, None, ALPN).map_err(damaged)?;
        Ok(Self::new(relay, tls))
    }

    /// Without anything but a CA's fingerprint: the first login.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn first_contact(relay: RelayAddress, ca: Fingerprint) -> Result<Self, Failure> {
        let tls = tls::client(FirstContactVerifier::new(ca), None, ALPN).map_err(damaged)?;
        Ok(Self::new(relay, tls))
    }

    fn new(relay: RelayAddress, tls: ClientConfig) -> Self {
        Self(Https::new(relay, Arc::new(tls), SOFTWARE))
    }

    /// The relay asked.
    pub const fn relay(&self) -> &RelayAddress {
        self.0.relay()
    }

    /// Asks without a body.
    ///
    /// # Errors
    /// What the relay refused with, or why it could not be asked.
    pub async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, Failure> {
        self.ask(Method::GET, path, Vec::new()).await
    }

    /// Asks with a body.
    ///
    /// # Errors
    /// What the relay refused with, or why it could not be asked.
    pub async fn send<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<A, Failure> {
        let body = serde_json::to_vec(body)
            .map_err(|e| Failure::new("internal", format!("cannot encode the request: {e}")))?;
        self.ask(method, path, body).await
    }

    /// Asks for something that is no JSON.
    ///
    /// # Errors
    /// What the relay refused with, or why it could not be asked.
    pub async fn bytes(&self, path: &str) -> Result<Bytes, Failure> {
        self.exchange(Method::GET, path, Vec::new()).await
    }

    async fn ask<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<A, Failure> {
        let answer = self.exchange(method, path, body).await?;
        serde_json::from_slice(&answer).map_err(|e| {
            Failure::new("protocol", format!("the relay's answer cannot be read: {e}"))
                .remedy("check that relay and client are of compatible versions")
        })
    }

    async fn exchange(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, Failure> {
        let answer = self.0.exchange(method, path, body).await?;
        let status = answer.status;
        if status.is_success() {
            return Ok(answer.body);
        }
        Err(match serde_json::from_slice::<ApiError>(&answer.body) {
            Ok(error) => Failure::new(known_token(&error.code), &error.cause).remedy(&error.remedy),
            Err(_) => Failure::new("protocol", format!("the relay answered {status} to {path}"))
                .remedy("check that the address is a Belay relay's, and of a compatible version"),
        })
    }
}

fn damaged(error: tls::TlsError) -> Failure {
    Failure::new("home-damaged", belay_proto::error_line::one_line(&error))
        .remedy("run: belay login")
}

/// A path of [`belay_proto::api::path`] with its placeholder filled in.
pub fn path_of(template: &str, value: &str) -> String {
    let Some((head, rest)) = template.split_once('{') else { return template.to_owned() };
    let tail = rest.split_once('}').map_or("", |(_, tail)| tail);
    // Names and UUIDs need no escaping but '@' and '.', which RFC 3986 §3.3 allows in a segment;
    // what else a person typed must not become another path.
    let mut path = head.to_owned();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'@') {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path + tail
}

#[cfg(test)]
mod tests {
    use super::path_of;
    use belay_proto::api::path;

    #[test]
    fn what_is_typed_stays_one_segment_of_the_path() {
        assert_eq!(path_of(path::DEVICE, "pump-17"), "/v1/devices/pump-17");
        assert_eq!(path_of(path::USER, "anna@example.com"), "/v1/users/anna@example.com");
        assert_eq!(path_of(path::USER, "../x?y#z"), "/v1/users/..%2Fx%3Fy%23z");
    }
}
