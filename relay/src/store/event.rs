//! One line of the relay's memory: a decision or an event, stored once, never changed.

use std::net::{IpAddr, SocketAddr};

use belay_proto::error_line::printable;
use belay_proto::ids::{DeviceId, SessionId, UserId};
use belay_proto::names::Login;
use belay_proto::refusal::{Code, Refused};
use belay_proto::time::UnixTime;

use belay_tunnel::clock;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $token:literal,)*) => {
        /// What happened. Words are never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum EventKind { $($(#[$doc])* $variant,)* }

        impl EventKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word in the store.
            pub const fn token(self) -> &'static str {
                match self { $(Self::$variant => $token,)* }
            }
        }
    };
}

kinds! {
    /// The deployment was made.
    Initialised = "initialised",
    /// The relay started.
    RelayStarted = "relay-started",
    /// The relay stopped in order.
    RelayStopped = "relay-stopped",
    /// A connection ended before anybody was known: TLS, certificate or `Hello`.
    PeerRefused = "peer-refused",
    /// So many more of such events were not recorded one by one.
    Suppressed = "suppressed",
    /// A request of a known person was refused.
    RequestRefused = "request-refused",
    /// An enrolment token was made.
    TokenCreated = "token-created",
    /// A device enrolled.
    Enrolled = "enrolled",
    /// A device was not taken in.
    EnrolRefused = "enrol-refused",
    /// A person got the day's certificates.
    LoggedIn = "logged-in",
    /// A person did not.
    LoginRefused = "login-refused",
    /// A one-time login code was made.
    CodeCreated = "code-created",
    /// A person was added.
    UserAdded = "user-added",
    /// Roles or standing of a person changed.
    UserChanged = "user-changed",
    /// Name or labels of a device changed.
    DeviceChanged = "device-changed",
    /// A device's standing changed.
    DeviceStatus = "device-status",
    /// A device's line was admitted.
    LineUp = "line-up",
    /// A device's line was not admitted.
    LineRefused = "line-refused",
    /// A device's line ended.
    LineDown = "line-down",
    /// A device opens lines far too often; said once a minute.
    LineFlapping = "line-flapping",
    /// Two machines were alive with one device's key.
    CloneSuspected = "clone-suspected",
    /// A device got a new certificate.
    Renewed = "renewed",
    /// A device did not get a new certificate.
    RenewRefused = "renew-refused",
    /// A client's connection was admitted.
    ClientUp = "client-up",
    /// A client's connection was not admitted.
    ClientRefused = "client-refused",
    /// A session was granted and opened.
    SessionOpened = "session-opened",
    /// Somebody opens a session that need not be recorded where sessions must be, and says why.
    BreakGlass = "break-glass",
    /// A grant for a session was made: it is on its way to the device.
    GrantIssued = "grant-issued",
    /// A session was refused, or not given back.
    SessionRefused = "session-refused",
    /// A session lost its stream; it is still open.
    SessionDetached = "session-detached",
    /// Its client is back.
    SessionResumed = "session-resumed",
    /// Another client of its person has it from now on, on a fresh stream.
    SessionTakenOver = "session-taken-over",
    /// Somebody else joins one of its terminals, with a session of their own.
    SessionJoined = "session-joined",
    /// Somebody ends a session for good, and says why. It is closed after this.
    SessionKilled = "session-killed",
    /// A session ended.
    SessionClosed = "session-closed",
    /// Earlier records were brought under the audit log's tree, which is signed from now on.
    LogBegun = "log-begun",
    /// No record stood in this place when the log was begun.
    RecordMissing = "record-missing",
    /// The first of a session's recording is here.
    RecordingStarted = "recording-started",
    /// The last of it is.
    RecordingEnded = "recording-ended",
    /// Somebody reads evidence: the audit log, or recordings.
    EvidenceRead = "evidence-read",
    /// A recording is deleted: the tombstone, written before the file goes.
    RecordingDeleted = "recording-deleted",
    /// More of a deleted recording came, and was not kept; said once.
    RecordingLate = "recording-late",
    /// An export of this log has not caught up for long; said once.
    ExportBehind = "export-behind",
    /// It has again.
    ExportCaughtUp = "export-caught-up",
    /// A witness does not cosign what the relay signed: it knows another history.
    WitnessRefused = "witness-refused",
    /// Entries up to one lose their text, by rule; their hashes stay.
    LogPruned = "log-pruned",
    /// What concerns a session, a device or a person must not be deleted from now on.
    HoldPlaced = "hold-placed",
    /// It may be again.
    HoldReleased = "hold-released",
}

/// What is to be recorded.
#[derive(Debug, Clone)]
pub struct Event {
    pub(super) at: UnixTime,
    pub(super) kind: EventKind,
    pub(super) user: Option<UserId>,
    pub(super) device: Option<DeviceId>,
    pub(super) session: Option<SessionId>,
    pub(super) login: Option<Login>,
    pub(super) code: Option<&'static str>,
    pub(super) detail: Option<String>,
    pub(super) source: Option<IpAddr>,
}

impl Event {
    /// An event of this kind, now.
    pub fn new(kind: EventKind) -> Self {
        Self {
            at: clock::now(),
            kind,
            user: None,
            device: None,
            session: None,
            login: None,
            code: None,
            detail: None,
            source: None,
        }
    }

    /// Its kind.
    pub const fn kind(&self) -> EventKind {
        self.kind
    }

    /// Where it came from, when that was said.
    pub const fn from_address(&self) -> Option<IpAddr> {
        self.source
    }

    /// Whom it concerns or who did it.
    #[must_use]
    pub fn user(mut self, user: UserId) -> Self {
        self.user = Some(user);
        self
    }

    /// Which device it concerns.
    #[must_use]
    pub fn device(mut self, device: DeviceId) -> Self {
        self.device = Some(device);
        self
    }

    /// Which session it belongs to.
    #[must_use]
    pub fn session(mut self, session: SessionId) -> Self {
        self.session = Some(session);
        self
    }

    /// The account asked for.
    #[must_use]
    pub fn login(mut self, login: Login) -> Self {
        self.login = Some(login);
        self
    }

    /// Why it was refused.
    #[must_use]
    pub fn code(mut self, code: Code) -> Self {
        self.code = Some(code.token());
        self
    }

    /// Why it was refused, with the line the peer was told as the detail.
    #[must_use]
    pub fn refused(self, refused: &Refused) -> Self {
        let line = refused.cause();
        self.code(refused.code()).detail(&line)
    }

    /// More, for a reader. Control characters are replaced; bounded.
    #[must_use]
    pub fn detail(mut self, detail: &str) -> Self {
        self.detail = Some(printable(detail));
        self
    }

    /// The peer's address.
    #[must_use]
    pub fn source(mut self, peer: SocketAddr) -> Self {
        self.source = Some(peer.ip().to_canonical());
        self
    }
}

/// A recorded event, as read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Place in the order of recording.
    pub seq: i64,
    /// When.
    pub at: UnixTime,
    /// [`EventKind::token`].
    pub kind: String,
    /// Who.
    pub user: Option<UserId>,
    /// On which device.
    pub device: Option<DeviceId>,
    /// In which session.
    pub session: Option<SessionId>,
    /// As which account.
    pub login: Option<String>,
    /// [`Code::token`] of a refusal.
    pub code: Option<String>,
    /// More.
    pub detail: Option<String>,
    /// The peer's address.
    pub source: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_word() {
        for (i, a) in EventKind::ALL.iter().enumerate() {
            for b in EventKind::ALL.iter().skip(i + 1) {
                assert_ne!(a.token(), b.token());
            }
        }
    }
}
