//! What a worker tells its supervisor while it runs.
//!
//! Supervisor and worker may be of different versions (an upgrade leaves
//! sessions running), so a frame is a map with optional fields, and an event
//! the reader does not know decodes as `None`.

use minicbor::{Decode, Encode};

/// What a channel was admitted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum ChannelKind {
    #[n(0)]
    Shell,
    #[n(1)]
    Exec,
    #[n(2)]
    Sftp,
    /// From the client to a target the device reaches (`-L`, `-D`, `-W`).
    #[n(3)]
    Forward,
    /// A listener on the device (`-R`), or a connection to it.
    #[n(4)]
    Reverse,
    #[n(5)]
    Agent,
    /// A terminal, asked for before a shell or a command.
    #[n(6)]
    Terminal,
    #[n(7)]
    X11,
    /// Any other request, refused.
    #[n(8)]
    Other,
    /// A terminal that was opened on an earlier connection.
    #[n(9)]
    Attach,
    /// A terminal of another session.
    #[n(10)]
    Join,
}

impl ChannelKind {
    /// The word for logs and messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::Exec => "exec",
            Self::Sftp => "sftp",
            Self::Forward => "forward",
            Self::Reverse => "reverse",
            Self::Agent => "agent",
            Self::Terminal => "terminal",
            Self::X11 => "x11",
            Self::Other => "other",
            Self::Attach => "attach",
            Self::Join => "join",
        }
    }
}

/// One event, in the order it happened.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub enum WorkerEvent {
    /// The worker runs as the login user. `uid` is 0 for any name of uid 0.
    #[n(0)]
    Started {
        #[n(0)]
        login: String,
        #[n(1)]
        uid: u32,
        #[n(2)]
        pid: u32,
    },
    /// A certificate was verified: this user holds the session from now on.
    #[n(1)]
    Authenticated {
        #[n(0)]
        user: String,
        /// `SHA256:…` of the key that signed.
        #[n(1)]
        fingerprint: String,
        #[n(2)]
        key_id: String,
        #[n(3)]
        serial: u64,
    },
    /// The session was refused, before SSH or because nobody authenticated: one
    /// line with cause and remedy, fit to be shown to the engineer.
    #[n(2)]
    Refused {
        #[n(0)]
        reason: String,
    },
    /// The gate let something through.
    #[n(3)]
    ChannelOpened {
        #[n(0)]
        channel: u32,
        #[n(1)]
        kind: Option<ChannelKind>,
        /// Command, target or socket; empty for a shell.
        #[n(2)]
        detail: String,
    },
    /// The gate refused something.
    #[n(4)]
    ChannelRefused {
        #[n(0)]
        channel: u32,
        #[n(1)]
        kind: Option<ChannelKind>,
        #[n(2)]
        detail: String,
        #[n(3)]
        reason: String,
    },
    /// An admitted channel is over.
    #[n(5)]
    ChannelClosed {
        #[n(0)]
        channel: u32,
        #[n(1)]
        kind: Option<ChannelKind>,
        #[n(2)]
        detail: String,
        /// Exit status of a program that ended by itself.
        #[n(3)]
        exit: Option<i32>,
        /// Name of the signal that ended it, without `SIG`.
        #[n(4)]
        signal: Option<String>,
        /// Bytes from the client.
        #[n(5)]
        bytes_in: u64,
        /// Bytes to the client.
        #[n(6)]
        bytes_out: u64,
    },
    /// A terminal was opened: what utmp and wtmp want to know.
    #[n(6)]
    PtyOpened {
        #[n(0)]
        channel: u32,
        /// Path of the terminal, such as `/dev/pts/3`.
        #[n(1)]
        tty: String,
        #[n(2)]
        pid: u32,
    },
    #[n(7)]
    PtyClosed {
        #[n(0)]
        channel: u32,
        #[n(1)]
        tty: String,
        #[n(2)]
        pid: u32,
    },
    /// The last event of a session.
    #[n(8)]
    Ended {
        #[n(0)]
        reason: String,
    },
    /// A few seconds of the session's recording.
    #[n(9)]
    Recorded(#[n(0)] Recorded),
    /// Somebody of another session is in a terminal of this one from now on.
    #[n(10)]
    GuestJoined {
        /// Its number in this session.
        #[n(0)]
        terminal: u32,
        #[n(1)]
        user: String,
        /// The guest's own session.
        #[n(2)]
        session: String,
        /// Or only looks on.
        #[n(3)]
        may_type: bool,
    },
    /// They are not any more.
    #[n(11)]
    GuestLeft {
        #[n(0)]
        terminal: u32,
        #[n(1)]
        user: String,
        #[n(2)]
        session: String,
    },
}

/// A segment of the session's recording, before the supervisor signs it.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Recorded {
    /// Counts from 0. Told again with the same number when the supervisor died before it had heard.
    #[n(0)]
    pub number: u64,
    #[n(1)]
    pub track: u32,
    #[n(2)]
    pub first_ms: u64,
    #[n(3)]
    pub last_ms: u64,
    #[n(4)]
    pub compressed: Option<bool>,
    /// The recording ends with it.
    #[n(5)]
    pub end: Option<bool>,
    #[n(6)]
    pub payload: minicbor::bytes::ByteVec,
    #[n(7)]
    pub sealed: Option<bool>,
    /// The recording's key, wrapped for its auditors.
    #[n(8)]
    pub key: Option<minicbor::bytes::ByteVec>,
}

impl std::fmt::Debug for Recorded {
    /// What was shown has no place in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "segment {} of track {}, {} bytes", self.number, self.track, self.payload.len())
    }
}

/// Longest text of an event; longer ones are cut with `…`, so that no command
/// line of the peer makes a frame too long.
const TEXT_MAX: usize = 4096;

/// `text` cut to what an event may carry.
pub(crate) fn bounded(text: &str) -> String {
    if text.len() <= TEXT_MAX {
        return text.to_owned();
    }
    let mut cut: String = text
        .char_indices()
        .take_while(|(at, c)| at + c.len_utf8() <= TEXT_MAX)
        .map(|(_, c)| c)
        .collect();
    cut.push('…');
    cut
}

/// How a session stands, whenever a supervisor or a visitor comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Standing {
    /// Whether there is an attachment: a stream to the client.
    #[n(0)]
    pub attached: Option<bool>,
    /// For how many seconds there has been none; absent before the first.
    #[n(1)]
    pub detached_s: Option<u64>,
    /// Terminals, also those whose program has ended and nobody was told how.
    #[n(2)]
    pub terminals: Option<u32>,
    /// Whether the session outlives the streams it has had. Absent from a worker that has one only.
    #[n(3)]
    pub goes_on: Option<bool>,
    /// Its last stream is over for good, and its terminals wait for another client.
    #[n(4)]
    pub waits: Option<bool>,
}

/// One frame of a worker's on its control socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Told {
    #[n(0)]
    pub(super) event: Option<WorkerEvent>,
    /// Counts events. Told again until it is heard ([`super::word::Word::heard`]).
    #[n(1)]
    pub(super) number: Option<u64>,
    /// First on each control connection after the first, and the answer to a visit.
    #[n(2)]
    pub(super) standing: Option<Standing>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]
    use belay_proto::wire::frame::decode_payload;

    use super::*;

    fn decoded(bytes: &[u8]) -> Told {
        decode_payload(bytes).unwrap()
    }

    #[test]
    fn events_survive_the_wire() {
        let closed = WorkerEvent::ChannelClosed {
            channel: 3,
            kind: Some(ChannelKind::Exec),
            detail: "true".into(),
            exit: Some(7),
            signal: None,
            bytes_in: 1,
            bytes_out: 2,
        };
        let told = Told { event: Some(closed), number: Some(9), standing: None };
        assert_eq!(decoded(&minicbor::to_vec(&told).unwrap()), told);
    }

    #[test]
    fn an_event_of_a_later_version_is_skipped() {
        // {0: {99: {}}}: the map encoding of an enum variant numbered 99.
        let event = WorkerEvent::Ended { reason: "x".into() };
        let told = Told { event: Some(event), number: Some(1), standing: None };
        let mut unknown = minicbor::to_vec(&told).unwrap();
        let variant = unknown.iter().position(|byte| *byte == 8).unwrap();
        unknown.splice(variant..=variant, [0x18, 99]);
        assert_eq!(decoded(&unknown), Told { event: None, ..told });
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let cut = bounded(&"é".repeat(TEXT_MAX));
        assert!(cut.len() <= TEXT_MAX + '…'.len_utf8() && cut.ends_with('…'));
    }
}
