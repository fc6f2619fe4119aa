//! What a worker tells goes to the device's own log, under the engineer's name.

use crate::session_dir::Record;
use crate::worker::WorkerEvent;

pub(super) fn tell(record: &Record, event: &WorkerEvent) {
    let (session, user, login) = (record.session, &record.user_name, &record.login);
    match event {
        WorkerEvent::Started { uid, pid, .. } => {
            tracing::debug!(%session, %user, %login, uid, pid, "worker started");
        }
        WorkerEvent::Authenticated { fingerprint, key_id, serial, .. } => {
            tracing::info!(%session, %user, %login, fingerprint, key_id, serial, "authenticated");
        }
        WorkerEvent::Refused { reason } => {
            tracing::warn!(%session, %user, %login, reason, "refused");
        }
        WorkerEvent::ChannelOpened { channel, kind, detail } => {
            let kind = kind.map_or("unknown", |kind| kind.word());
            tracing::info!(%session, %user, %login, channel, kind, detail, "channel open");
        }
        WorkerEvent::ChannelRefused { channel, kind, detail, reason } => {
            let kind = kind.map_or("unknown", |kind| kind.word());
            tracing::warn!(%session, %user, %login, channel, kind, detail, reason, "channel refused");
        }
        WorkerEvent::ChannelClosed { channel, kind, detail, exit, signal, bytes_in, bytes_out } => {
            let kind = kind.map_or("unknown", |kind| kind.word());
            tracing::info!(
                %session, %user, %login, channel, kind, detail, exit, signal, bytes_in, bytes_out,
                "channel closed"
            );
        }
        WorkerEvent::PtyOpened { channel, tty, pid } => {
            tracing::debug!(%session, %user, %login, channel, tty, pid, "terminal open");
        }
        WorkerEvent::PtyClosed { channel, tty, pid } => {
            tracing::debug!(%session, %user, %login, channel, tty, pid, "terminal closed");
        }
        WorkerEvent::GuestJoined { terminal, user: guest, session: theirs, may_type } => {
            tracing::info!(%session, %user, %login, terminal, guest, theirs, may_type, "guest joined");
        }
        WorkerEvent::GuestLeft { terminal, user: guest, session: theirs } => {
            tracing::info!(%session, %user, %login, terminal, guest, theirs, "guest left");
        }
        WorkerEvent::Recorded(recorded) => {
            tracing::trace!(%session, ?recorded, "recorded");
        }
        WorkerEvent::Ended { reason } => {
            tracing::debug!(%session, %user, %login, reason, "worker ended");
        }
    }
}
