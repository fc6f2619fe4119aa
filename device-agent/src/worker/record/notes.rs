//! The session's events as facts of its recording.

use std::collections::BTreeMap;
use std::time::Duration;

use belay_proto::recording::cast::Fact;

use crate::worker::event::{ChannelKind, WorkerEvent};

/// A channel and what it was opened for: a shell has its terminal's leave as well as its own.
pub(super) type Key = (u32, &'static str);

/// What an auditor is told of an event; `opened` remembers since when channels are open.
pub(super) fn fact(
    event: &WorkerEvent,
    at: Duration,
    opened: &mut BTreeMap<Key, Duration>,
) -> Option<Fact> {
    let word = |kind: &Option<ChannelKind>| kind.map_or("unknown", ChannelKind::word);
    match event {
        WorkerEvent::Authenticated { user, fingerprint, key_id, .. } => Some(
            Fact::new("authenticated")
                .text("user", user)
                .text("fingerprint", fingerprint)
                .text("key_id", key_id),
        ),
        WorkerEvent::ChannelOpened { channel, kind, detail } => {
            opened.insert((*channel, word(kind)), at);
            let fact = Fact::new("opened").number("channel", *channel).text("kind", word(kind));
            Some(fact.text("detail", detail))
        }
        WorkerEvent::ChannelRefused { channel, kind, detail, reason } => {
            let fact = Fact::new("refused").number("channel", *channel).text("kind", word(kind));
            Some(fact.text("detail", detail).text("reason", reason))
        }
        WorkerEvent::ChannelClosed { channel, kind, detail, exit, signal, bytes_in, bytes_out } => {
            let mut fact = Fact::new("closed").number("channel", *channel).text("kind", word(kind));
            fact = fact.text("detail", detail);
            if let Some(exit) = exit {
                fact = fact.number("exit", *exit);
            }
            fact = fact.text("signal", signal.as_deref().unwrap_or_default());
            fact = fact.number("bytes_in", *bytes_in).number("bytes_out", *bytes_out);
            if let Some(since) = opened.remove(&(*channel, word(kind))) {
                fact = fact.number("ms", super::millis(at.saturating_sub(since)));
            }
            Some(fact)
        }
        WorkerEvent::PtyOpened { channel, tty, .. } => {
            Some(Fact::new("pty").number("channel", *channel).text("tty", tty))
        }
        WorkerEvent::GuestJoined { terminal, user, session, may_type } => {
            let how = if *may_type { "may type" } else { "looks on" };
            let fact = Fact::new("joined").text("user", user).text("session", session);
            Some(fact.number("terminal", *terminal).text("how", how))
        }
        WorkerEvent::GuestLeft { terminal, user, session } => {
            let fact = Fact::new("left").text("user", user).text("session", session);
            Some(fact.number("terminal", *terminal))
        }
        WorkerEvent::Started { .. }
        | WorkerEvent::Refused { .. }
        | WorkerEvent::PtyClosed { .. }
        | WorkerEvent::Ended { .. }
        | WorkerEvent::Recorded(_) => None,
    }
}
