//! Taking a device in: everything about its request is checked here, its token in the store.
//!
//! Its law: the certificate is issued for the key that the request proved, and for the id and name
//! that the store has just written; a device's words about itself are only kept. A device whose
//! clock is wrong enrols all the same: it takes the time from the answer.

use std::net::SocketAddr;

use belay_proto::api::{EnrolAnswer, EnrolRequest};
use belay_proto::limits::MAX_CLOCK_SKEW;
use belay_proto::names::DeviceName;
use belay_proto::refusal::{Code, Refused};
use belay_proto::time::UnixTime;
use belay_proto::token::Secret;
use belay_tunnel::{clock, pki};

use crate::api::Api;
use crate::ca::{self, Authority, DEVICE_LIFE, IssueError};
use crate::config;
use crate::rate::{Each, Source, Total};
use crate::reported;
use crate::span::plain;
use crate::store::{EnrolError, Enrolment, Event, EventKind, NameWish};

/// What a device is called whose host name gives no letter to go by.
const NAMELESS: &str = "device";

/// What bounds enrolments.
pub struct Limits {
    per_source: Each<Source>,
    total: Total,
}

impl Limits {
    /// Full allowances.
    pub fn new(attempts: &config::Attempts) -> Self {
        Self { per_source: Each::new(attempts.per_source), total: Total::new(attempts.total) }
    }
}

/// Judges an enrolment and issues the certificates.
///
/// # Errors
/// The refusal to send.
pub(crate) async fn enrol(
    api: &Api,
    peer: SocketAddr,
    request: EnrolRequest,
) -> Result<EnrolAnswer, Refused> {
    let outcome = attempt(api, peer, request).await;
    if let Err(refused) = &outcome {
        let event = Event::new(EventKind::EnrolRefused).refused(refused);
        api.strangers.record(peer, event).await;
    }
    outcome
}

async fn attempt(
    api: &Api,
    peer: SocketAddr,
    request: EnrolRequest,
) -> Result<EnrolAnswer, Refused> {
    api.enrol_limits.per_source.take(&peer.ip().into()).map_err(|e| Refused::from(&e))?;
    api.enrol_limits.total.take().map_err(|e| Refused::from(&e))?;
    let now = clock::now();
    let secret = Secret::from_hex(&request.secret)
        .ok_or_else(|| Refused::from(&EnrolError::UnknownToken))?;
    let issue = |error: IssueError| Refused::from(&error);
    let csr = ca::request_from_pem(&request.csr).map_err(|e| issue(e.into()))?;
    let key_digest = pki::requested_key_digest(&csr).map_err(|e| issue(e.into()))?;
    Authority::check_ssh_key(&request.ssh_host_key).map_err(|e| issue(e.into()))?;
    let enrolled = api
        .store
        .enrol(Enrolment {
            token: secret.digest(),
            key_digest,
            wish: wish(&request)?,
            ssh_host_key: request.ssh_host_key.trim().to_owned(),
            hostname: reported(&request.hostname),
            platform: reported(&request.platform),
            software: reported(&request.software),
            now,
            certificate_ends: now.plus(DEVICE_LIFE),
            source: peer,
            note: about_clock(request.clock, now),
        })
        .await
        .map_err(|e| Refused::from(&e))?;
    let issued = api
        .authority
        .issue_device(enrolled.id, &enrolled.name, &csr, &request.ssh_host_key, now)
        .map_err(|e| Refused::from(&e))?;
    tracing::info!(device = %enrolled.id, name = %enrolled.name, again = enrolled.again, "enrolled");
    let grant_keys = api.authority.grant_keys();
    Ok(EnrolAnswer {
        device: enrolled.id,
        name: enrolled.name,
        certificate: ca::certificate_to_pem(&issued.certificate),
        ca: api.authority.ca_pem().to_owned(),
        ssh_host_certificate: issued.ssh_certificate,
        ssh_user_cas: api.authority.ssh_user_cas(),
        grant_keys: grant_keys
            .iter()
            .map(|key| key.iter().map(|byte| format!("{byte:02x}")).collect())
            .collect(),
        clock: now,
    })
}

fn wish(request: &EnrolRequest) -> Result<NameWish, Refused> {
    match &request.name {
        Some(name) => name.parse().map(NameWish::Exactly).map_err(|error| {
            Refused::new(Code::Name, format!("\"{name}\": {error}"), "choose another with --name")
        }),
        None => Ok(NameWish::Like(from_hostname(&request.hostname))),
    }
}

/// The first label of a host name, as a device's name: lower case, everything else a hyphen.
fn from_hostname(hostname: &str) -> DeviceName {
    let label = hostname.split('.').next().unwrap_or_default();
    let mut name = String::new();
    for c in label.chars().take(63) {
        let c = c.to_ascii_lowercase();
        let keep = c.is_ascii_lowercase() || c.is_ascii_digit();
        if keep || !name.ends_with('-') {
            name.push(if keep { c } else { '-' });
        }
    }
    let name = name.trim_matches('-');
    name.parse().unwrap_or_else(|_| nameless())
}

fn nameless() -> DeviceName {
    #[expect(clippy::expect_used, reason = "the constant is a device name; a test reads it")]
    NAMELESS.parse().expect("a device name")
}

fn about_clock(theirs: UnixTime, ours: UnixTime) -> String {
    let off = theirs.distance(ours);
    let way = if theirs > ours { "ahead" } else { "behind" };
    if off > MAX_CLOCK_SKEW { format!(", its clock {} {way}", plain(off)) } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_becomes_a_device_name_whatever_it_was() {
        for (host, name) in [
            ("pump-17", "pump-17"),
            ("Pump_17.example.com", "pump-17"),
            ("..", "device"),
            ("", "device"),
            ("\u{1b}[2J", "2j"),
            ("æøå", "device"),
            ("--a--b--", "a-b"),
        ] {
            assert_eq!(from_hostname(host).as_str(), name, "{host:?}");
        }
        assert_eq!(from_hostname(&"x".repeat(300)).as_str().len(), 63);
        assert_eq!(nameless().as_str(), NAMELESS);
    }

    #[test]
    fn a_wrong_clock_is_noted_in_words() {
        assert_eq!(about_clock(UnixTime(1000), UnixTime(1100)), "");
        assert_eq!(about_clock(UnixTime(0), UnixTime(864_000)), ", its clock 10 days behind");
    }
}
