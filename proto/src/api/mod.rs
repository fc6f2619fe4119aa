//! The HTTPS interface's requests and answers: JSON over HTTP/1.1, under `/v1/`.
//!
//! Who asks is proved by the TLS client certificate; only [`path::ENROL`] and [`path::LOGIN`] are
//! open to those who have none, and they carry a secret. An error is an [`ApiError`] with a
//! matching HTTP status. Requests are read strictly: an unknown field is refused.

mod evidence;
mod join;
mod log;
mod recording;
mod retention;
mod search;
mod session;

pub use evidence::{
    Evidence, EvidenceRequest, LogProven, LogSession, LogSessionRequest, MAX_SESSION_PAGE,
    SessionFacts,
};
pub use join::{Guest, Joins};
pub use log::{
    LogCheckpoint, LogConsistencyRequest, LogEntries, LogEntriesRequest, LogInclusionRequest,
    LogProof,
};
pub use recording::Recording;
pub use retention::{Hold, HoldRelease, HoldRequest, Reason, RecordingDeleted};
pub use search::{
    MAX_SEALED_PAGE, MAX_SEARCH_HITS, MAX_SEARCH_TEXT, SealedPage, SealedRecording, SealedRequest,
    SearchAnswer, SearchHit, SearchRequest,
};
pub use session::{
    KillRequest, Killed, MAX_SESSIONS, Session, SessionOver, SessionsPage, SessionsRequest,
};

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, UserId};
use crate::names::{DeviceName, LabelKey, LabelValue, UserName};
use crate::policy::Role;
use crate::time::UnixTime;

/// Where to ask.
pub mod path {
    /// POST [`super::EnrolRequest`] → [`super::EnrolAnswer`]. No client certificate.
    pub const ENROL: &str = "/v1/enrol";
    /// POST [`super::LoginRequest`] → [`super::LoginAnswer`]. No client certificate.
    pub const LOGIN: &str = "/v1/login";
    /// GET → [`super::WhoAmI`].
    pub const WHOAMI: &str = "/v1/whoami";
    /// GET → list of [`super::Device`] the caller's roles cover.
    pub const DEVICES: &str = "/v1/devices";
    /// PATCH [`super::DeviceChange`] → [`super::Device`]; `{device}` is a name or UUID.
    pub const DEVICE: &str = "/v1/devices/{device}";
    /// POST [`super::TokenRequest`] → [`super::TokenAnswer`].
    pub const TOKENS: &str = "/v1/tokens";
    /// GET → list of open [`super::Session`]: the caller's own, those they may join, and everybody's
    /// for who manages people or reads evidence.
    pub const SESSIONS: &str = "/v1/sessions";
    /// GET → [`super::Session`], open or not.
    pub const SESSION: &str = "/v1/sessions/{session}";
    /// POST [`super::SessionsRequest`] → [`super::SessionsPage`]: ended ones too: the
    /// caller's own, and everybody's for the same people. That everybody's are read is recorded, so that this is no GET.
    pub const SESSIONS_ALL: &str = "/v1/sessions/all";
    /// POST [`super::KillRequest`] → [`super::Killed`]: ends a session for good. Its own user may,
    /// and who has the right to end sessions.
    pub const SESSION_KILL: &str = "/v1/sessions/{session}/kill";
    /// GET → list of [`super::Recording`], the newest first.
    pub const RECORDINGS: &str = "/v1/recordings";
    /// GET → bytes of a recording's file ([`crate::recording::file`]) from a place on, as many as
    /// the relay likes to give at once; none at its end.
    pub const RECORDING: &str = "/v1/recordings/{session}/{from}";
    /// POST [`super::Reason`] → [`super::RecordingDeleted`].
    pub const RECORDING_DELETE: &str = "/v1/recordings/{session}/delete";
    /// GET → list of [`super::Hold`], those in force first; POST [`super::HoldRequest`] →
    /// [`super::Hold`].
    pub const HOLDS: &str = "/v1/holds";
    /// POST [`super::Reason`] → [`super::Hold`]; `{hold}` is its number.
    pub const HOLD_RELEASE: &str = "/v1/holds/{hold}/release";
    /// GET → the same bytes; where there are none yet the answer waits for them, for some 20 s at
    /// most, and is empty then.
    pub const RECORDING_LIVE: &str = "/v1/recordings/{session}/{from}/live";
    /// POST [`super::UserRequest`] → [`super::UserAnswer`]; GET → list of [`super::User`].
    pub const USERS: &str = "/v1/users";
    /// PATCH [`super::UserChange`] → [`super::UserChanged`]; `{user}` is a name.
    pub const USER: &str = "/v1/users/{user}";
    /// GET → [`super::LogCheckpoint`]. Whoever may read evidence, as below.
    pub const LOG_CHECKPOINT: &str = "/v1/audit/checkpoint";
    /// POST [`super::LogEntriesRequest`] → [`super::LogEntries`]. A reading is recorded, so that these
    /// are no GET.
    pub const LOG_ENTRIES: &str = "/v1/audit/entries";
    /// POST [`super::LogConsistencyRequest`] → [`super::LogProof`].
    pub const LOG_CONSISTENCY: &str = "/v1/audit/consistency";
    /// POST [`super::LogInclusionRequest`] → [`super::LogProof`].
    pub const LOG_INCLUSION: &str = "/v1/audit/inclusion";
    /// POST [`super::LogSessionRequest`] → [`super::LogSession`].
    pub const LOG_SESSION: &str = "/v1/audit/session";
    /// POST [`super::EvidenceRequest`] → [`super::Evidence`]. That it was asked for is recorded.
    pub const EVIDENCE: &str = "/v1/evidence";
    /// POST [`super::SearchRequest`] → [`super::SearchAnswer`]. That it was asked is recorded.
    pub const SEARCH: &str = "/v1/search";
    /// POST [`super::SealedRequest`] → [`super::SealedPage`]. That it was asked is recorded.
    pub const SEARCH_SEALED: &str = "/v1/search/sealed";
}

/// What is refused with that has no path here. A client reads it to learn that a relay is older.
pub const NO_SUCH_PATH: &str = "there is nothing at this path";

/// Longest request body in bytes. The largest, enrolment, is under 4 KiB.
pub const MAX_BODY: usize = 64 * 1024;

/// Longest reason that is given for an act, in bytes: with who did it, it is one line.
pub const MAX_REASON: usize = 500;

/// What went wrong, for programs and for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// [`crate::refusal::Code::token`].
    pub code: String,
    /// What went wrong.
    pub cause: String,
    /// What to do; may be empty.
    #[serde(default)]
    pub remedy: String,
}

/// A device asks to become one of this relay's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// The token's secret, hexadecimal.
    pub secret: String,
    /// Certificate request, PEM (RFC 2986, RFC 7468).
    pub csr: String,
    /// SSH host public key, OpenSSH one-line form.
    pub ssh_host_key: String,
    /// The name it would like; its host name otherwise.
    pub name: Option<String>,
    /// Host name. Device-supplied.
    pub hostname: String,
    /// `linux/aarch64`. Device-supplied.
    pub platform: String,
    /// `belay-agent/0.1.0`. Device-supplied.
    pub software: String,
    /// The device's wall clock.
    pub clock: UnixTime,
}

/// Everything a device keeps from its enrolment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnrolAnswer {
    /// Its identity for life.
    pub device: DeviceId,
    /// Its name for now.
    pub name: DeviceName,
    /// Its certificate, PEM.
    pub certificate: String,
    /// The deployment CA's certificate, PEM.
    pub ca: String,
    /// Its SSH host certificate, OpenSSH one-line form.
    pub ssh_host_certificate: String,
    /// SSH user CA public keys, OpenSSH one-line form.
    pub ssh_user_cas: Vec<String>,
    /// Grant verification keys, Ed25519, hexadecimal.
    pub grant_keys: Vec<String>,
    /// The relay's wall clock.
    pub clock: UnixTime,
}

/// A person asks for the day's certificates.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// How they prove who they are.
    pub proof: LoginProof,
    /// Certificate request, PEM.
    pub csr: String,
    /// SSH public key to certify, OpenSSH one-line form.
    pub ssh_key: String,
    /// The client's wall clock.
    pub clock: UnixTime,
}

/// Code once, password after.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LoginProof {
    /// The one-time code of a new user (or one whose password was reset), and the password they
    /// choose with it.
    Code {
        /// The code's secret, hexadecimal.
        secret: String,
        /// The password from now on.
        new_password: String,
    },
    /// Name and password.
    Password {
        /// The user.
        user: String,
        /// Their password.
        password: String,
    },
}

impl std::fmt::Debug for LoginProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Code { .. } => "Code(***)",
            Self::Password { .. } => "Password(***)",
        })
    }
}

/// Shortest password taken, in characters (NIST SP 800-63B-4 §3.1.1.2 asks for 15 where it is the
/// only factor).
pub const MIN_PASSWORD: usize = 15;

/// Longest password taken, in bytes: a bound on what Argon2 is fed before anybody is known.
pub const MAX_PASSWORD: usize = 1024;

/// The day's certificates.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoginAnswer {
    /// Who the relay says this is.
    pub user: UserName,
    /// Its id.
    pub user_id: UserId,
    /// X.509 certificate, PEM.
    pub certificate: String,
    /// SSH user certificate, OpenSSH one-line form.
    pub ssh_certificate: String,
    /// The deployment CA's certificate, PEM.
    pub ca: String,
    /// SSH host CA public keys, OpenSSH one-line form.
    pub ssh_host_cas: Vec<String>,
    /// When both certificates end.
    pub expires: UnixTime,
    /// The relay's wall clock.
    pub clock: UnixTime,
}

/// The caller.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WhoAmI {
    /// Name.
    pub user: UserName,
    /// Id.
    pub user_id: UserId,
    /// What they may do.
    pub roles: Vec<Role>,
    /// End of the certificate they came with.
    pub expires: UnixTime,
    /// The relay's wall clock.
    pub clock: UnixTime,
    /// `belay-relay/0.1.0`
    pub software: String,
}

/// A device's standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceStatus {
    /// May hold a line and be opened.
    Active,
    /// Held back until decided: no line. Can be made active again.
    Quarantined,
    /// Gone for good; its certificate opens nothing again.
    Decommissioned,
}

impl DeviceStatus {
    /// The word in the store and in output.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Quarantined => "quarantined",
            Self::Decommissioned => "decommissioned",
        }
    }

    /// The status of a word.
    pub fn from_token(token: &str) -> Option<Self> {
        [Self::Active, Self::Quarantined, Self::Decommissioned]
            .into_iter()
            .find(|status| status.token() == token)
    }
}

/// One device as the relay knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Device {
    /// Id.
    pub id: DeviceId,
    /// Name.
    pub name: DeviceName,
    /// Standing.
    pub status: DeviceStatus,
    /// Labels.
    pub labels: BTreeMap<LabelKey, LabelValue>,
    /// When it enrolled.
    pub enrolled: UnixTime,
    /// Whether it answers now.
    pub online: bool,
    /// Its line, when it holds one.
    pub line: Option<Line>,
    /// When it last answered a probe.
    pub last_seen: Option<UnixTime>,
    /// Why the last line ended.
    pub last_end: Option<String>,
    /// Device-supplied host name, made printable.
    pub hostname: String,
    /// Device-supplied platform, made printable.
    pub platform: String,
    /// Device-supplied agent version, made printable.
    pub software: String,
    /// Two machines were seen alive with its key, and nobody has decided yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clone: Option<Twin>,
}

/// Two machines with one device's key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Twin {
    /// Since when that is known.
    pub since: UnixTime,
    /// Where the newer one, which is refused, came from last.
    pub address: String,
}

/// A live line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    /// Since when.
    pub since: UnixTime,
    /// `quic`
    pub carrier: String,
    /// Where it comes from, as the relay sees it.
    pub address: String,
    /// Last probe's round trip in milliseconds.
    pub round_trip_ms: Option<f64>,
    /// Sessions open over it.
    pub sessions: u32,
    /// How far the device's clock is off, in seconds, positive when it is ahead.
    pub clock_ahead_s: i64,
    /// How often the device is asked whether it is there, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_every_s: Option<u32>,
    /// Bytes on the wire since the line came up, both ways, with IP and UDP headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// How many that makes in 30 days, once that can be said: the line's beginning not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_a_month: Option<u64>,
}

/// A change to one device; absent fields stay.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceChange {
    /// New name.
    pub name: Option<DeviceName>,
    /// Labels to set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set_labels: BTreeMap<LabelKey, LabelValue>,
    /// Labels to take off.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub remove_labels: BTreeSet<LabelKey>,
    /// New standing.
    pub status: Option<DeviceStatus>,
    /// Why, for the record.
    pub reason: Option<String>,
}

/// Asks for an enrolment token.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Seconds it is good for.
    pub lives_s: u64,
    /// How many devices it takes in.
    pub uses: u32,
    /// What their names must look like: `*` stands for any run of characters. One without `*` is
    /// the name itself.
    pub name: Option<String>,
    /// Labels they get.
    #[serde(default)]
    pub labels: BTreeMap<LabelKey, LabelValue>,
}

/// Longest life of a token.
pub const MAX_TOKEN_LIFE_S: u64 = 90 * 24 * 3600;

/// Most devices one token takes in.
pub const MAX_TOKEN_USES: u32 = 100_000;

/// The token. Shown once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenAnswer {
    /// [`crate::token::Invitation`] as text.
    pub token: String,
    /// When it ends.
    pub expires: UnixTime,
}

/// Adds a person.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserRequest {
    /// Name.
    pub name: UserName,
    /// What they may do.
    pub roles: Vec<Role>,
}

/// The new person's way in. Shown once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserAnswer {
    /// Id.
    pub id: UserId,
    /// [`crate::token::Invitation`] as text.
    pub login_code: String,
    /// When the code ends.
    pub expires: UnixTime,
}

/// One person.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct User {
    /// Id.
    pub id: UserId,
    /// Name.
    pub name: UserName,
    /// What they may do.
    pub roles: Vec<Role>,
    /// Disabled people open nothing.
    pub disabled: bool,
}

/// A change to one person; absent fields stay.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserChange {
    /// New roles, all of them.
    pub roles: Option<Vec<Role>>,
    /// Disable or enable. Disabling cuts their sessions at once.
    pub disabled: Option<bool>,
    /// Make a new one-time code; the password stays until it is used.
    #[serde(default)]
    pub new_code: bool,
}

/// What a change of a person gives back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserChanged {
    /// As they are now.
    pub user: User,
    /// The new code, when one was asked for.
    pub login_code: Option<String>,
}
