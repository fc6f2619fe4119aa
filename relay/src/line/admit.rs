//! Who is this, and may they hold a connection? Asked once, at `Hello`.
//!
//! TLS has proved the key and our CA's signature. Here dates are judged by the relay's clock, the
//! identity is looked up, and a refusal becomes a line for the peer and an entry in the store.

use std::collections::BTreeSet;
use std::time::Duration;

use belay_proto::api::DeviceStatus;
use belay_proto::error_line::printable;
use belay_proto::ids::SessionId;
use belay_proto::limits::{DEVICE_SESSIONS, MAX_CLOCK_SKEW, MAX_REPORTED_TEXT};
use belay_proto::presence::{ASK_LEAST, ASK_MOST, Probing};
use belay_proto::refusal::{Code, Refused};
use belay_proto::time::UnixTime;
use belay_proto::version;
use belay_proto::wire::control::{Hello, HelloAnswer, Run, Welcome, capability};
use belay_tunnel::carrier::{Carrier, RecvHalf, ResetCode, SendHalf};
use belay_tunnel::clock;
use belay_tunnel::framed::{self, Messages};
use belay_tunnel::pki::{Identity, PeerCertificate};

use super::Shared;
use super::registry::{Able, next_epoch};
use crate::store::{DeviceRecord, Event, EventKind, UserRecord};

/// A connection that may stay.
#[allow(clippy::large_enum_variant, reason = "handed on once, never kept")]
pub(super) enum Admitted {
    /// A device's line.
    Device(AdmittedDevice),
    /// A person's client.
    Client(AdmittedClient),
}

pub(super) struct AdmittedDevice {
    pub(super) record: DeviceRecord,
    pub(super) certificate: PeerCertificate,
    pub(super) epoch: belay_proto::ids::Epoch,
    /// May do nothing but renew its certificate.
    pub(super) renew_only: bool,
    /// Seconds its clock is ahead of ours.
    pub(super) clock_ahead: i64,
    pub(super) reported: Reported,
    /// The name in its SSH host certificate, as it says.
    pub(super) known_as: Option<String>,
    /// The sessions it still has.
    pub(super) sessions: BTreeSet<SessionId>,
    /// Which run of the agent it is, as it says.
    pub(super) run: Option<Run>,
    /// From one answer to the next question.
    pub(super) ask_every: Duration,
    pub(super) able: Able,
    pub(super) control: Control,
}

pub(super) struct AdmittedClient {
    pub(super) user: UserRecord,
    pub(super) control: Control,
}

/// The control stream after the answer.
pub(super) struct Control {
    pub(super) send: SendHalf,
    pub(super) recv: Messages<RecvHalf>,
}

/// What a device says of itself: never believed, only shown.
#[derive(Debug, Clone, Default)]
pub(super) struct Reported {
    pub(super) hostname: String,
    pub(super) platform: String,
    pub(super) software: String,
}

/// Closes a refused connection; the reason travels in the close as well, for a peer that reads no
/// answer.
pub(super) fn close(carrier: &Carrier, refused: &Refused) {
    carrier.close(ResetCode(u32::from(refused.code().number())), &refused.to_string());
}

/// How long a refused peer has to read its answer before the connection closes under it.
const READ_REFUSAL: Duration = Duration::from_secs(2);

/// Reads `Hello`, judges, answers. `None` when refused; told and recorded by then.
pub(super) async fn admit(carrier: &Carrier, shared: &Shared) -> Option<Admitted> {
    let peer = carrier.remote_address();
    let (mut send, recv) = carrier.accept().await.ok()?;
    let mut recv = Messages::new(recv);
    let judged = match recv.next::<Hello>().await {
        Ok(Some(hello)) => judge(carrier, shared, hello).await,
        Ok(None) => return None,
        Err(error) => Err(Judged::Stranger(Refused::new(
            Code::Protocol,
            format!("no readable Hello: {error}"),
            "use a client of this relay's version",
        ))),
    };
    let (answer, refused) = match judged {
        Ok(who) => {
            let answer = HelloAnswer { welcome: Some(who.welcome()), refused: None };
            match framed::write(&mut send, &answer).await {
                Ok(()) => return Some(who.into_admitted(Control { send, recv })),
                Err(_) => return None,
            }
        }
        Err(Judged::Stranger(refused)) => {
            shared.strangers.refused(peer, &refused).await;
            (HelloAnswer { welcome: None, refused: Some(refused.clone()) }, refused)
        }
        Err(Judged::Known(event, refused)) => {
            shared.strangers.record(peer, event.refused(&refused)).await;
            (HelloAnswer { welcome: None, refused: Some(refused.clone()) }, refused)
        }
    };
    if framed::write(&mut send, &answer).await.is_ok() {
        send.finish();
        let gone = tokio::time::timeout(READ_REFUSAL, carrier.closed()).await;
        tracing::debug!(%peer, %refused, left_by_itself = gone.is_ok(), "refused at Hello");
    }
    close(carrier, &refused);
    None
}

enum Judged {
    /// Nobody we know.
    Stranger(Refused),
    /// Somebody we know, refused.
    Known(Event, Refused),
}

impl From<Refused> for Judged {
    fn from(refused: Refused) -> Self {
        Self::Stranger(refused)
    }
}

#[allow(clippy::large_enum_variant, reason = "lives for one Hello")]
enum Who {
    Device {
        record: DeviceRecord,
        certificate: PeerCertificate,
        epoch: belay_proto::ids::Epoch,
        renew_only: bool,
        clock_ahead: i64,
        reported: Reported,
        known_as: Option<String>,
        sessions: BTreeSet<SessionId>,
        run: Option<Run>,
        ask_every: Duration,
        able: Able,
        version: u16,
    },
    Client {
        user: UserRecord,
        version: u16,
    },
}

impl Who {
    fn welcome(&self) -> Welcome {
        let plain = |version| Welcome {
            version,
            clock: clock::now(),
            epoch: None,
            probe_seconds: None,
            renew_only: None,
            trust: None,
            capabilities: None,
        };
        match self {
            Self::Device { version, epoch, renew_only, ask_every, .. } => Welcome {
                epoch: Some(*epoch),
                probe_seconds: u32::try_from(ask_every.as_secs()).ok(),
                renew_only: renew_only.then_some(true),
                capabilities: Some(vec![capability::RECORD.to_owned()]),
                ..plain(*version)
            },
            Self::Client { version, .. } => plain(*version),
        }
    }

    fn into_admitted(self, control: Control) -> Admitted {
        match self {
            Self::Device {
                record,
                certificate,
                epoch,
                renew_only,
                clock_ahead,
                reported,
                known_as,
                sessions,
                run,
                ask_every,
                able,
                version: _,
            } => Admitted::Device(AdmittedDevice {
                record,
                certificate,
                epoch,
                renew_only,
                clock_ahead,
                reported,
                known_as,
                sessions,
                run,
                ask_every,
                able,
                control,
            }),
            Self::Client { user, version: _ } => Admitted::Client(AdmittedClient { user, control }),
        }
    }
}

async fn judge(carrier: &Carrier, shared: &Shared, hello: Hello) -> Result<Who, Judged> {
    let certificate = carrier.peer_certificate().ok_or_else(|| {
        Refused::new(Code::ForeignCertificate, "the peer showed no certificate", "log in or enrol")
    })?;
    let certificate = PeerCertificate::from_der(&certificate)
        .map_err(|error| Refused::new(Code::ForeignCertificate, error.to_string(), ""))?;
    let version = agreed_version(&hello);
    let now = clock::now();
    match certificate.identity.clone() {
        Identity::Device(id) => {
            let event = || Event::new(EventKind::LineRefused).device(id);
            let known = |refused| Judged::Known(event(), refused);
            let version = version.map_err(known)?;
            let record =
                shared.store.device_by_id(id).await.map_err(|_| known(store_unavailable()))?;
            let record = record.ok_or_else(|| {
                known(Refused::new(
                    Code::UnknownIdentity,
                    "this relay does not know this device",
                    "enrol it again with a new token",
                ))
            })?;
            device_may_connect(&record, &certificate).map_err(known)?;
            if certificate.not_before > now {
                return Err(known(not_yet_valid(&certificate, now)));
            }
            let sessions = sessions(&hello).map_err(known)?;
            shared
                .flapping
                .count(id, carrier.remote_address(), &shared.store)
                .await
                .map_err(known)?;
            let theirs = hello.clock.unwrap_or(now);
            Ok(Who::Device {
                renew_only: certificate.not_after < now,
                clock_ahead: theirs.correction_from(now),
                known_as: hello.name.clone(),
                able: able(&hello, shared),
                sessions,
                run: hello.run,
                ask_every: ask_every(&hello),
                reported: reported(hello),
                epoch: next_epoch(),
                record,
                certificate,
                version,
            })
        }
        Identity::User { id, name: _ } => {
            let event = || Event::new(EventKind::ClientRefused).user(id);
            let known = |refused| Judged::Known(event(), refused);
            let version = version.map_err(known)?;
            client_clock(&hello, now).map_err(known)?;
            if certificate.not_before > now {
                return Err(known(not_yet_valid(&certificate, now)));
            }
            if certificate.not_after < now {
                let ago = span(certificate.not_after.distance(now));
                return Err(known(Refused::new(
                    Code::Expired,
                    format!("your login expired {ago} ago"),
                    "run: belay login",
                )));
            }
            let user = shared.store.user(id).await.map_err(|_| known(store_unavailable()))?;
            let user = user.ok_or_else(|| {
                known(Refused::new(
                    Code::UnknownIdentity,
                    "this relay does not know you any more",
                    "ask an administrator",
                ))
            })?;
            if user.disabled {
                return Err(known(Refused::new(
                    Code::UserDisabled,
                    "your account is disabled",
                    "ask an administrator",
                )));
            }
            Ok(Who::Client { user, version })
        }
        Identity::Relay { .. } => {
            Err(Refused::new(Code::ForeignCertificate, "a relay's certificate opens no line", "")
                .into())
        }
    }
}

fn says(hello: &Hello, wanted: &str) -> bool {
    hello.capabilities.iter().flatten().any(|capability| capability == wanted)
}

fn able(hello: &Hello, shared: &Shared) -> Able {
    let seals = || shared.limits.recipients.is_empty() || says(hello, capability::SEAL);
    Able {
        attaches: says(hello, capability::ATTACH),
        records: says(hello, capability::RECORD) && seals(),
        records_input: says(hello, capability::RECORD_INPUT),
        joins: says(hello, capability::JOIN),
    }
}

fn agreed_version(hello: &Hello) -> Result<u16, Refused> {
    let theirs = (hello.oldest.unwrap_or(0), hello.newest.unwrap_or(0));
    version::agree((version::OLDEST, version::PROTOCOL), theirs).ok_or_else(|| {
        let (who, which) = if theirs.1 < version::OLDEST {
            ("your version is too old", "upgrade it")
        } else {
            ("this relay is too old for your version", "upgrade the relay")
        };
        Refused::new(
            Code::Version,
            format!(
                "{who}: it speaks protocol {} to {}, the relay {} to {}",
                theirs.0,
                theirs.1,
                version::OLDEST,
                version::PROTOCOL
            ),
            which,
        )
    })
}

fn device_may_connect(record: &DeviceRecord, certificate: &PeerCertificate) -> Result<(), Refused> {
    match record.status {
        DeviceStatus::Active => {}
        DeviceStatus::Quarantined => {
            return Err(Refused::new(
                Code::Quarantined,
                "this device is quarantined",
                "an administrator can run: belay device activate",
            ));
        }
        DeviceStatus::Decommissioned => {
            return Err(Refused::new(
                Code::Decommissioned,
                "this device was decommissioned",
                "enrol it again with a new token to use it",
            ));
        }
    }
    if record.has_key(&certificate.key_digest) {
        Ok(())
    } else {
        Err(Refused::new(
            Code::ForeignCertificate,
            "the certificate's key is not the device's any more",
            "use its newest certificate, or enrol it again",
        ))
    }
}

/// An agent that says nothing of sessions ends them with its line, so it has none.
fn sessions(hello: &Hello) -> Result<BTreeSet<SessionId>, Refused> {
    let named = hello.sessions.as_deref().unwrap_or_default();
    if named.len() > DEVICE_SESSIONS {
        let cause = format!("it names {} sessions; a device has {DEVICE_SESSIONS}", named.len());
        return Err(Refused::new(Code::Protocol, cause, ""));
    }
    Ok(named.iter().copied().collect())
}

/// As often as the device wants to be asked, within bounds.
fn ask_every(hello: &Hello) -> Duration {
    match hello.ask_seconds {
        Some(seconds) => Duration::from_secs(seconds.into()).clamp(ASK_LEAST, ASK_MOST),
        None => Probing::default().every,
    }
}

fn client_clock(hello: &Hello, now: UnixTime) -> Result<(), Refused> {
    let theirs = hello.clock.unwrap_or(now);
    let off = theirs.distance(now);
    if off <= MAX_CLOCK_SKEW {
        return Ok(());
    }
    let way = if theirs > now { "ahead" } else { "behind" };
    Err(Refused::new(
        Code::Clock,
        format!("your clock is {} {way} of the relay's", span(off)),
        "set this machine's clock, then try again",
    ))
}

fn not_yet_valid(certificate: &PeerCertificate, now: UnixTime) -> Refused {
    Refused::new(
        Code::NotYetValid,
        format!("the certificate is good in {} only", span(certificate.not_before.distance(now))),
        "log in or enrol again, and check the relay's clock",
    )
}

pub(super) fn store_unavailable() -> Refused {
    Refused::new(
        Code::Store,
        "the relay's store cannot be used now",
        "try again; if it stays so, tell the relay's operator to look at its disk",
    )
}

fn reported(hello: Hello) -> Reported {
    let text = |text: Option<String>| {
        let mut text = printable(&text.unwrap_or_default());
        text.truncate(text.floor_char_boundary(MAX_REPORTED_TEXT));
        text
    };
    Reported {
        hostname: text(hello.hostname),
        platform: text(hello.platform),
        software: text(hello.software),
    }
}

/// A span in its largest whole unit.
pub(super) fn span(time: Duration) -> String {
    let s = time.as_secs();
    match s {
        0..120 => format!("{s} s"),
        120..7_200 => format!("{} min", s / 60),
        7_200..172_800 => format!("{} h", s / 3_600),
        _ => format!("{} days", s / 86_400),
    }
}
