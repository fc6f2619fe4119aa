//! One line: dialled, or found by looking again, and greeted. Holding it is [`super::hold`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use belay_proto::limits::HELLO_DEADLINE;
use belay_proto::refusal::Refused;
use belay_proto::version;
use belay_proto::wire::control::{
    Control, Hello, HelloAnswer, Renew, Renewed, Welcome, capability,
};
use belay_tunnel::address::RelayAddress;
use belay_tunnel::carrier::picker::{self, BadSetting, Kind, Unreached, Wanted};
use belay_tunnel::carrier::quic::Role;
use belay_tunnel::carrier::{Carrier, RecvHalf, ResetCode, SendHalf};
use belay_tunnel::clock;
use belay_tunnel::framed::{self, MessageError, Messages};
use belay_tunnel::pki::{PeerCertificate, PeerCertificateError, RelayVerifier, TlsKey};
use belay_tunnel::tls::{self, TlsError};
use tokio::time::{Instant, timeout};

use super::mapping::Mapping;
use super::sessions::Departures;
use super::{Agent, certificate, renewal};
use crate::enrol::{SOFTWARE, hostname, platform};
use crate::state::StateError;

/// There is no line.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Setting(#[from] BadSetting),
    #[error(transparent)]
    Unreached(#[from] Unreached),
    #[error("the relay at {0} did not answer within {secs} s", secs = HELLO_DEADLINE.as_secs())]
    Silent(SocketAddr),
    #[error("the relay ended the connection: {0}")]
    Closed(String),
    #[error("the relay does not accept this device's certificate; enrol it again with a new token")]
    NotOurs,
    #[error("the relay did not greet")]
    Greeting(#[source] MessageError),
    #[error("the relay refused this device: {0}")]
    Refused(Refused),
    #[error("the relay's greeting is empty; upgrade the agent")]
    Empty,
    #[error("this device's own certificate")]
    Certificate(#[from] PeerCertificateError),
    #[error("the certificate had expired; it is renewed now")]
    RenewedFirst,
    #[error("the expired certificate could not be renewed: {0}")]
    NotRenewed(String),
}

impl LineError {
    /// Whether the relay has spoken, or we ourselves are at fault: asking again at once is useless.
    pub(super) const fn is_an_answer(&self) -> bool {
        match self {
            Self::State(_)
            | Self::Tls(_)
            | Self::Setting(_)
            | Self::NotOurs
            | Self::Refused(_)
            | Self::Empty
            | Self::Certificate(_)
            | Self::RenewedFirst
            | Self::NotRenewed(_) => true,
            Self::Unreached(_) | Self::Silent(_) | Self::Closed(_) | Self::Greeting(_) => false,
        }
    }

    /// When the relay said to dial again.
    pub(super) fn told_to_wait(&self) -> Option<Duration> {
        match self {
            Self::Refused(refused) => refused.told_to_wait(),
            Self::State(_)
            | Self::Tls(_)
            | Self::Setting(_)
            | Self::Unreached(_)
            | Self::Silent(_)
            | Self::Closed(_)
            | Self::NotOurs
            | Self::Greeting(_)
            | Self::Empty
            | Self::Certificate(_)
            | Self::RenewedFirst
            | Self::NotRenewed(_) => None,
        }
    }
}

/// An admitted line.
pub(super) struct Line {
    pub(super) carrier: Carrier,
    pub(super) send: SendHalf,
    pub(super) recv: Messages<RecvHalf>,
    pub(super) welcome: Welcome,
    /// Sessions that end after the greeting listed them.
    pub(super) departures: Departures,
    /// Since its handshake.
    began: Instant,
    /// What keeps its NAT's mapping, when this end does.
    pub(super) mapping: Option<Mapping>,
    key: TlsKey,
}

impl Line {
    /// Dials and greets.
    pub(super) async fn connect(agent: &Agent, relay: &RelayAddress) -> Result<Self, LineError> {
        Self::over(agent, Self::dial(agent, relay).await?).await
    }

    /// Dials only.
    pub(super) async fn dial(agent: &Agent, relay: &RelayAddress) -> Result<Carrier, LineError> {
        dial(&wanted(agent, relay)?).await
    }

    /// Greets over this carrier. A relay that welcomes it ends the line before it.
    pub(super) async fn over(agent: &Agent, carrier: Carrier) -> Result<Self, LineError> {
        let (key, began) = (agent.state.key()?, Instant::now());
        let departures = agent.sessions.watch();
        let mapping = Mapping::of(&carrier, agent);
        let ask = mapping.as_ref().map(Mapping::ask_seconds);
        let greeted = timeout(HELLO_DEADLINE, greet(agent, &carrier, ask)).await;
        let Ok(greeted) = greeted else {
            agent.history.silenced(Kind::of(&carrier), began.elapsed());
            return Err(LineError::Silent(carrier.remote_address()));
        };
        let (send, recv, welcome) = greeted?;
        agent.told_time(welcome.clock);
        agent.history.welcomed(Kind::of(&carrier));
        // An older relay asks as often as it likes, and what it sends keeps the mapping.
        let mapping = mapping.filter(|_| welcome.probe_seconds == ask);
        let line = Self { carrier, send, recv, welcome, departures, began, mapping, key };
        if line.welcome.renew_only == Some(true) {
            return Err(line.renew_first(agent).await);
        }
        agent.status.up(line.carrier.kind(), welcome_behind(&line.welcome));
        tracing::info!(
            relay = %line.carrier.remote_address(),
            carrier = line.carrier.kind(),
            version = line.welcome.version,
            "line up"
        );
        Ok(line)
    }

    /// It went silent: what that says of its carrier is kept in mind.
    pub(super) fn silenced(&self, agent: &Agent) {
        agent.history.silenced(Kind::of(&self.carrier), self.began.elapsed());
    }

    /// The relay takes nothing but a renewal. After it, the next attempt is a good one.
    async fn renew_first(mut self, agent: &Agent) -> LineError {
        let exchange = async {
            self.ask_renewal(agent).await.map_err(|error| error.to_string())?;
            loop {
                match self.recv.next::<Control>().await {
                    Ok(Some(Control { renewed: Some(renewed), .. })) => {
                        self.keep(agent, &renewed);
                        return Ok(());
                    }
                    Ok(Some(Control { goodbye: Some(refused), .. })) => {
                        return Err(refused.to_string());
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => return Err("the relay closed the line".to_owned()),
                    Err(error) => return Err(belay_proto::error_line::one_line(&error)),
                }
            }
        };
        let outcome = timeout(HELLO_DEADLINE, exchange).await;
        self.carrier.close(ResetCode::GONE, "");
        match outcome {
            Ok(Ok(())) => LineError::RenewedFirst,
            Ok(Err(why)) => LineError::NotRenewed(why),
            Err(_) => LineError::NotRenewed("no answer".to_owned()),
        }
    }

    /// Whether the relay takes recordings.
    pub(super) fn takes_recordings(&self) -> bool {
        let named = self.welcome.capabilities.iter().flatten();
        named.into_iter().any(|capability| capability == capability::RECORD)
    }

    pub(super) fn renewal_due(&self, agent: &Agent) -> Duration {
        let certificate = agent
            .state
            .certificate()
            .ok()
            .and_then(|certificate| PeerCertificate::from_der(&certificate).ok());
        match certificate {
            Some(certificate) => renewal::due_in(&certificate, agent.now()),
            None => renewal::AGAIN,
        }
    }

    pub(super) async fn ask_renewal(&mut self, agent: &Agent) -> Result<(), MessageError> {
        let request = match self.key.request_der() {
            Ok(request) => request,
            Err(error) => {
                tracing::error!(%error, "cannot ask for a new certificate");
                return Ok(());
            }
        };
        tracing::info!(device = %agent.enrolment.device, "asking for a new certificate");
        let renew = Renew { csr: request.into(), ssh_host_key: None };
        framed::write(&mut self.send, &Control { renew: Some(renew), ..Control::default() }).await
    }

    /// Keeps a renewed certificate, when it is for this very device and key.
    pub(super) fn keep(&self, agent: &Agent, renewed: &Renewed) {
        let kept = certificate::keep(agent, &self.key, renewed);
        match kept {
            Ok(until) => tracing::info!(until = until.0, "certificate renewed"),
            Err(error) => tracing::error!(%error, "cannot use the renewed certificate"),
        }
    }
}

fn welcome_behind(welcome: &Welcome) -> i64 {
    welcome.clock.correction_from(clock::now())
}

/// What to dial, as who this device is now.
pub(super) fn wanted(agent: &Agent, relay: &RelayAddress) -> Result<Wanted, LineError> {
    let own = (vec![agent.state.certificate()?], agent.state.key()?.to_der());
    let verifier = RelayVerifier::pinned(agent.state.ca()?, agent.state.relay_time());
    let config = tls::client(verifier, Some(own), &[version::ALPN])?;
    let history = Arc::clone(&agent.history);
    Ok(Wanted::from_environment(relay.clone(), config, Role::Device, history)?)
}

async fn dial(wanted: &Wanted) -> Result<Carrier, LineError> {
    let dialled = picker::dial(wanted).await?;
    for attempt in &dialled.attempts {
        tracing::debug!(%attempt, "dialled");
    }
    if let Some((cause, remedy)) = picker::remark(&dialled.attempts) {
        tracing::info!(remedy, "{cause}");
    }
    Ok(dialled.carrier)
}

fn capabilities(agent: &Agent) -> Vec<String> {
    let mut all = vec![capability::ATTACH.to_owned(), capability::JOIN.to_owned()];
    if agent.spool.is_some() {
        let recording = [capability::RECORD, capability::SEAL, capability::RECORD_INPUT];
        all.extend(recording.map(str::to_owned));
    }
    all
}

async fn greet(
    agent: &Agent,
    carrier: &Carrier,
    ask_seconds: Option<u32>,
) -> Result<(SendHalf, Messages<RecvHalf>, Welcome), LineError> {
    let closed = |error: belay_tunnel::carrier::CarrierError| {
        if error.refuses_certificate() {
            return LineError::NotOurs;
        }
        LineError::Closed(match error.peer_said() {
            Some((_, said)) if !said.is_empty() => said,
            _ => error.to_string(),
        })
    };
    let (mut send, recv) = carrier.open().await.map_err(closed)?;
    // Read anew: the relay may have given this device another name on the last line.
    let name = agent.state.enrolment()?.name;
    let hello = Hello {
        newest: Some(version::PROTOCOL),
        oldest: Some(version::OLDEST),
        clock: Some(clock::now()),
        software: Some(SOFTWARE.to_owned()),
        hostname: Some(hostname()),
        platform: Some(platform()),
        capabilities: Some(capabilities(agent)),
        name: Some(name.to_string()),
        sessions: Some(agent.sessions.all()),
        run: agent.run,
        ask_seconds,
    };
    framed::write(&mut send, &hello).await.map_err(LineError::Greeting)?;
    let mut recv = Messages::new(recv);
    match recv.next::<HelloAnswer>().await {
        Ok(Some(HelloAnswer { welcome: Some(welcome), .. })) => Ok((send, recv, welcome)),
        Ok(Some(HelloAnswer { refused: Some(refused), .. })) => Err(LineError::Refused(refused)),
        Ok(_) => Err(LineError::Empty),
        // A relay that refuses in the handshake says so in how it closes.
        Err(error) => match timeout(Duration::from_millis(500), carrier.closed()).await {
            Ok(why) => Err(closed(why)),
            Err(_) => Err(LineError::Greeting(error)),
        },
    }
}
