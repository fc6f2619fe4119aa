//! One simulated device: its handshake, its greeting, its line.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use belay_proto::version;
use belay_proto::wire::control::{Control, Hello, HelloAnswer};
use belay_proto::wire::open::{Accepted, Deliver, DeliverAnswer};
use belay_tunnel::carrier::quic::{Dialler, Role};
use belay_tunnel::carrier::{Carrier, RecvHalf, SendHalf, splice};
use belay_tunnel::framed::{self, Messages};
use belay_tunnel::pki::{RelayVerifier, TlsKey};
use belay_tunnel::{clock, tls};
use rustls::pki_types::CertificateDer;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::Member;

/// What it calls itself.
pub(super) const SOFTWARE: &str = concat!("belay-fleet/", env!("CARGO_PKG_VERSION"));

/// Where and whom a fleet dials.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) name: String,
    pub(super) verifier: Arc<RelayVerifier>,
    /// For handshake, greeting and first probe together.
    pub(super) patience: Duration,
}

/// Why a line ended.
pub(super) struct Lost {
    /// What it is counted under.
    pub(super) why: String,
    /// When the relay said to dial again.
    pub(super) told_to_wait: Option<Duration>,
}

impl From<String> for Lost {
    fn from(why: String) -> Self {
        Self { why, told_to_wait: None }
    }
}

impl From<&str> for Lost {
    fn from(why: &str) -> Self {
        why.to_owned().into()
    }
}

/// A line that was welcomed.
pub(super) struct Line {
    carrier: Carrier,
    send: SendHalf,
    recv: Messages<RecvHalf>,
}

/// Dials and greets. The error's first line is the reason it is counted under.
pub(super) async fn connect(dialler: &Dialler, target: &Target, member: &Member) -> Result<Line> {
    let attempt = async {
        let key = TlsKey::from_pem(&member.key)?;
        let certificate = CertificateDer::from(member.certificate.to_vec());
        let own = (vec![certificate], key.to_der());
        let tls = tls::client(Arc::clone(&target.verifier) as _, Some(own), &[version::ALPN])?;
        let dialler = dialler.with_identity(Role::Device, tls)?;
        let carrier = dialler.dial(target.address, &target.name).await.context("handshake")?;
        greet(carrier, member).await
    };
    timeout(target.patience, attempt).await.context("no welcome in time")?
}

async fn greet(carrier: Carrier, member: &Member) -> Result<Line> {
    let (mut send, recv) = carrier.open().await.context("control stream")?;
    let hello = Hello {
        newest: Some(version::PROTOCOL),
        oldest: Some(version::OLDEST),
        clock: Some(clock::now()),
        software: Some(SOFTWARE.to_owned()),
        hostname: Some(member.name.to_string()),
        platform: Some("linux/simulated".to_owned()),
        capabilities: None,
        name: Some(member.name.to_string()),
        sessions: None,
        run: None,
        ask_seconds: None,
    };
    framed::write(&mut send, &hello).await.context("Hello")?;
    let mut recv = Messages::new(recv);
    let answer = recv.next::<HelloAnswer>().await.context("answer to Hello")?;
    let answer = answer.context("the relay closed the line instead of answering Hello")?;
    if let Some(refused) = answer.refused {
        let told = refused.to_string();
        return Err(anyhow::Error::new(refused).context(format!("refused: {told}")));
    }
    answer.welcome.context("an empty answer to Hello")?;
    Ok(Line { carrier, send, recv })
}

impl Line {
    /// Holds the line until it ends; says why. `probed` is called for each probe answered.
    /// The first must come before `deadline`.
    pub(super) async fn hold(mut self, deadline: Instant, mut probed: impl FnMut()) -> Lost {
        let mut sessions = JoinSet::new();
        let mut waiting = true;
        loop {
            tokio::select! {
                stream = self.carrier.accept() => match stream {
                    Ok((send, recv)) => {
                        sessions.spawn(echo(send, recv));
                    }
                    Err(error) => return error.to_string().into(),
                },
                Some(ended) = sessions.join_next(), if !sessions.is_empty() => {
                    if let Err(error) = ended && error.is_panic() {
                        return "a session's task panicked".into();
                    }
                }
                () = tokio::time::sleep_until(deadline), if waiting => {
                    return "no probe in time".into();
                }
                message = self.recv.next::<Control>() => {
                    let message = match message {
                        Ok(Some(message)) => message,
                        Ok(None) => return "the relay closed the line".into(),
                        Err(error) => return belay_proto::error_line::one_line(&error).into(),
                    };
                    if let Some(refused) = message.goodbye {
                        let why = format!("the relay said: {refused}");
                        return Lost { why, told_to_wait: refused.told_to_wait() };
                    }
                    if let Some(ping) = message.ping {
                        let pong = Control { pong: Some(ping), ..Control::default() };
                        if let Err(error) = framed::write(&mut self.send, &pong).await {
                            return belay_proto::error_line::one_line(&error).into();
                        }
                        waiting = false;
                        probed();
                    }
                }
            }
        }
    }
}

/// Takes any session and sends its bytes back.
async fn echo(mut send: SendHalf, mut recv: RecvHalf) {
    let taken = async {
        framed::read::<Deliver, _>(&mut recv).await?;
        let answer = DeliverAnswer { accepted: Some(Accepted {}), refused: None };
        framed::write(&mut send, &answer).await
    };
    // Either error means that the relay gave the session up, which is its right.
    if taken.await.is_ok() {
        drop(splice(recv, send, |_| {}).await);
    }
}
