//! What the SSH library calls back: output of the session, its end, and the questions it asks.
//!
//! Output goes straight from the library's buffer to the descriptor, without a channel in between;
//! a reader that is slow slows this connection and through it the device, and nobody else.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use belay_proto::error_line::printable;
use russh::client::{DisconnectReason, Handler, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::{ChannelId, Names, Sig};
use tokio::sync::Notify;

use super::host_cert::{HostCertError, HostTrust};
use crate::stdio::Sink;

/// SSH_EXTENDED_DATA_STDERR (RFC 4254 §5.2).
const STDERR: u32 = 1;

/// How the remote side ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// With a status.
    Status(u32),
    /// By a signal, named as in RFC 4254 §6.10.
    Signal(String),
}

/// What has happened so far.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The device is not who it should be.
    pub(super) host: Option<HostCertError>,
    /// No strict key exchange.
    pub(super) loose_kex: bool,
    /// What the device said before it let us in or not.
    pub(super) banner: Option<String>,
    /// What it said when it hung up.
    pub(super) goodbye: Option<String>,
    /// How the remote command ended.
    pub(super) ended: Option<Ended>,
    /// Requests answered so far, in order: taken or refused.
    pub(super) replies: Vec<bool>,
    /// The channel or the connection is over.
    pub(super) closed: bool,
    /// Our own output broke.
    pub(super) output: Option<io::ErrorKind>,
}

/// Shared between the library's task and ours.
#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

/// Longest list of replies kept: we ask for two.
const MAX_REPLIES: usize = 16;

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_waiters();
    }

    /// Waits until `reached` says so.
    pub(super) async fn until(&self, reached: impl Fn(&State) -> bool) {
        loop {
            let changed = self.changed.notified();
            if reached(&self.state()) {
                return;
            }
            changed.await;
        }
    }
}

/// Names and time to judge the host by, known only when the relay has answered.
pub(super) type TrustNow = Box<dyn Fn() -> HostTrust + Send + Sync>;

/// The handler.
pub(super) struct Events {
    pub(super) shared: Arc<Shared>,
    pub(super) trust: TrustNow,
    pub(super) out: Arc<Sink>,
    pub(super) err: Arc<Sink>,
    pub(super) first_kex: bool,
}

impl Events {
    async fn deliver(&self, sink: &Sink, data: &[u8]) {
        if let Err(error) = sink.push(data).await {
            self.shared.change(|state| state.output = Some(error.kind()));
        }
    }
}

impl Handler for Events {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        shown: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        match (self.trust)().judge(shown) {
            Ok(()) => Ok(true),
            Err(error) => {
                self.shared.change(|state| state.host = Some(error));
                Ok(false)
            }
        }
    }

    async fn kex_done(
        &mut self,
        _: Option<&[u8]>,
        names: &Names,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        // Without it, messages can be dropped unseen from the front (CVE-2023-48795).
        if std::mem::take(&mut self.first_kex) && !names.strict_kex() {
            self.shared.change(|state| state.loose_kex = true);
            return Err(russh::Error::KexInit);
        }
        Ok(())
    }

    async fn auth_banner(&mut self, banner: &str, _: &mut Session) -> Result<(), russh::Error> {
        self.shared.change(|state| state.banner = Some(printable(banner.trim())));
        Ok(())
    }

    async fn data(
        &mut self,
        _: ChannelId,
        data: &[u8],
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.deliver(&self.out, data).await;
        Ok(())
    }

    async fn extended_data(
        &mut self,
        _: ChannelId,
        kind: u32,
        data: &[u8],
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        if kind == STDERR {
            self.deliver(&self.err, data).await;
        }
        Ok(())
    }

    async fn exit_status(
        &mut self,
        _: ChannelId,
        status: u32,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.shared.change(|state| state.ended = Some(Ended::Status(status)));
        Ok(())
    }

    async fn exit_signal(
        &mut self,
        _: ChannelId,
        signal: Sig,
        _: bool,
        _: &str,
        _: &str,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        let name = match signal {
            Sig::Custom(name) => name,
            Sig::ABRT
            | Sig::ALRM
            | Sig::FPE
            | Sig::HUP
            | Sig::ILL
            | Sig::INT
            | Sig::KILL
            | Sig::PIPE
            | Sig::QUIT
            | Sig::SEGV
            | Sig::TERM
            | Sig::USR1 => format!("{signal:?}"),
        };
        self.shared.change(|state| state.ended = Some(Ended::Signal(name)));
        Ok(())
    }

    async fn channel_success(&mut self, _: ChannelId, _: &mut Session) -> Result<(), russh::Error> {
        self.shared.change(|state| replied(state, true));
        Ok(())
    }

    async fn channel_failure(&mut self, _: ChannelId, _: &mut Session) -> Result<(), russh::Error> {
        self.shared.change(|state| replied(state, false));
        Ok(())
    }

    async fn channel_close(&mut self, _: ChannelId, _: &mut Session) -> Result<(), russh::Error> {
        self.shared.change(|state| state.closed = true);
        Ok(())
    }

    async fn disconnected(
        &mut self,
        reason: DisconnectReason<russh::Error>,
    ) -> Result<(), russh::Error> {
        let goodbye = match &reason {
            DisconnectReason::ReceivedDisconnect(info) if info.message.is_empty() => None,
            DisconnectReason::ReceivedDisconnect(info) => Some(printable(&info.message)),
            DisconnectReason::Error(_) => None,
        };
        self.shared.change(|state| {
            state.closed = true;
            state.goodbye = goodbye;
        });
        match reason {
            DisconnectReason::ReceivedDisconnect(_) => Ok(()),
            DisconnectReason::Error(error) => Err(error),
        }
    }
}

fn replied(state: &mut State, taken: bool) {
    if state.replies.len() < MAX_REPLIES {
        state.replies.push(taken);
    }
}
