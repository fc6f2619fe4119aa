//! One line: dialled, greeted, held to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use belay_proto::limits::HELLO_DEADLINE;
use belay_proto::refusal::Refused;
use belay_proto::time::UnixTime;
use belay_proto::version;
use belay_proto::wire::control::{Control, Hello, HelloAnswer, Renamed, Renew, Renewed, Welcome};
use belay_tunnel::address::{NotFound, RelayAddress};
use belay_tunnel::carrier::quic::{Dialler, QuicError, Role};
use belay_tunnel::carrier::{Carrier, RecvHalf, ResetCode, SendHalf};
use belay_tunnel::clock;
use belay_tunnel::framed::{self, MessageError, Messages};
use belay_tunnel::pki::{PeerCertificate, PeerCertificateError, RelayVerifier, TlsKey};
use belay_tunnel::tls::{self, TlsError};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::{Agent, renewal, session};
use crate::enrol::{SOFTWARE, hostname, platform};
use crate::state::StateError;

/// One address's handshake: four tries of QUIC's, whose first waits a second.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(8);

/// Probes the relay may miss before this end takes the line for dead.
const PROBES_MISSED: u32 = 2;

/// How long running sessions may hand over their last bytes when the agent stops.
const DRAIN: Duration = Duration::from_secs(2);

/// There is no line.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Address(#[from] NotFound),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Quic(#[from] QuicError),
    #[error("the relay at {0} did not answer within {secs} s", secs = HANDSHAKE_WITHIN.as_secs())]
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

/// An admitted line.
pub(super) struct Line {
    carrier: Carrier,
    dialler: Dialler,
    send: SendHalf,
    recv: Messages<RecvHalf>,
    welcome: Welcome,
    key: TlsKey,
}

impl Line {
    /// Dials and greets.
    pub(super) async fn connect(agent: &Agent, relay: &RelayAddress) -> Result<Self, LineError> {
        let key = agent.state.key()?;
        let own = (vec![agent.state.certificate()?], key.to_der());
        let verifier = RelayVerifier::pinned(agent.state.ca()?, agent.state.relay_time());
        let config = tls::client(verifier, Some(own), &[version::ALPN])?;
        let (dialler, carrier) = dial(relay, config).await?;
        let greeted = timeout(HELLO_DEADLINE, greet(agent, &carrier)).await;
        let (send, recv, welcome) =
            greeted.map_err(|_| LineError::Silent(carrier.remote_address()))??;
        agent.told_time(welcome.clock);
        let line = Self { carrier, dialler, send, recv, welcome, key };
        if line.welcome.renew_only == Some(true) {
            return Err(line.renew_first(agent).await);
        }
        agent.status.up(welcome_behind(&line.welcome));
        tracing::info!(
            relay = %line.carrier.remote_address(),
            carrier = line.carrier.kind(),
            version = line.welcome.version,
            "line up"
        );
        Ok(line)
    }

    /// Serves the line until it ends; says why.
    pub(super) async fn hold(mut self, agent: &Arc<Agent>) -> String {
        let mut sessions = JoinSet::new();
        let patience = Duration::from_secs(u64::from(self.welcome.probe_seconds.unwrap_or(25)))
            .max(Duration::from_secs(1))
            * (PROBES_MISSED + 1);
        let mut heard = Instant::now();
        let mut renew_at = Instant::now() + self.renewal_due(agent);
        let why = loop {
            tokio::select! {
                stream = self.carrier.accept() => match stream {
                    Ok((send, recv)) => {
                        sessions.spawn(session::serve(send, recv, Arc::clone(agent)));
                    }
                    Err(error) => break match error.peer_said() {
                        Some((_, said)) if !said.is_empty() => format!("the relay said: {said}"),
                        _ => error.to_string(),
                    },
                },
                Some(ended) = sessions.join_next(), if !sessions.is_empty() => {
                    if let Err(error) = ended && error.is_panic() {
                        tracing::error!(%error, "a session's task panicked");
                    }
                }
                message = self.recv.next::<Control>() => {
                    heard = Instant::now();
                    let message = match message {
                        Ok(Some(message)) => message,
                        Ok(None) => break "the relay closed the line".to_owned(),
                        Err(error) => break belay_proto::error_line::one_line(&error),
                    };
                    if let Some(refused) = message.goodbye {
                        break format!("the relay said: {refused}");
                    }
                    if let Some(renewed) = message.renewed {
                        self.keep(agent, &renewed);
                        renew_at = Instant::now() + self.renewal_due(agent);
                    }
                    if let Some(renamed) = message.renamed {
                        take_name(agent, &renamed);
                    }
                    if let Some(ping) = message.ping {
                        let pong = Control { pong: Some(ping), ..Control::default() };
                        if framed::write(&mut self.send, &pong).await.is_err() {
                            break "the line broke".to_owned();
                        }
                    }
                }
                () = tokio::time::sleep_until(heard + patience) => {
                    break format!("nothing from the relay for {} s", patience.as_secs());
                }
                () = tokio::time::sleep_until(renew_at) => {
                    renew_at = Instant::now() + renewal::AGAIN;
                    if self.ask_renewal(agent).await.is_err() {
                        break "the line broke".to_owned();
                    }
                }
                () = agent.stop.cancelled() => break "the agent was stopped".to_owned(),
            }
        };
        if agent.stop.is_cancelled() {
            self.send.finish();
            if timeout(DRAIN, async { while sessions.join_next().await.is_some() {} })
                .await
                .is_err()
            {
                tracing::info!(open = sessions.len(), "ending sessions");
            }
        }
        sessions.shutdown().await;
        self.carrier.close(ResetCode::GONE, "");
        self.dialler.drain(DRAIN).await;
        why
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

    fn renewal_due(&self, agent: &Agent) -> Duration {
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

    async fn ask_renewal(&mut self, agent: &Agent) -> Result<(), MessageError> {
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
    fn keep(&self, agent: &Agent, renewed: &Renewed) {
        let kept = keep_certificate(agent, &self.key, renewed);
        match kept {
            Ok(until) => tracing::info!(until = until.0, "certificate renewed"),
            Err(error) => tracing::error!(%error, "cannot use the renewed certificate"),
        }
    }
}

fn keep_certificate(agent: &Agent, key: &TlsKey, renewed: &Renewed) -> anyhow::Result<UnixTime> {
    let certificate = PeerCertificate::from_der(&renewed.certificate)?;
    let request = key.request_der()?;
    anyhow::ensure!(
        renewed.device == agent.enrolment.device
            && certificate.identity == belay_tunnel::pki::Identity::Device(agent.enrolment.device)
            && certificate.key_digest == belay_tunnel::pki::requested_key_digest(&request)?,
        "it is for another device or key"
    );
    let pem = belay_tunnel::pki::certificate_to_pem(&renewed.certificate);
    agent.state.set_certificate(&pem)?;
    if let Some(line) = &renewed.ssh_host_certificate {
        agent.state.set_host_certificate(line)?;
    }
    Ok(certificate.not_after)
}

fn take_name(agent: &Agent, renamed: &Renamed) {
    let kept = agent.state.set_host_certificate(&renamed.ssh_host_certificate).and_then(|()| {
        let enrolment = agent.state.enrolment()?;
        agent
            .state
            .set_enrolment(&crate::state::Enrolment { name: renamed.name.clone(), ..enrolment })
    });
    match kept {
        Ok(()) => tracing::info!(name = %renamed.name, "this device has another name now"),
        Err(error) => tracing::error!(%error, "cannot keep this device's new name"),
    }
}

fn welcome_behind(welcome: &Welcome) -> i64 {
    welcome.clock.correction_from(clock::now())
}

async fn dial(
    relay: &RelayAddress,
    config: rustls::ClientConfig,
) -> Result<(Dialler, Carrier), LineError> {
    let mut last = None;
    for address in relay.resolve().await? {
        let dialler = Dialler::new(Role::Device, config.clone(), address)?;
        match timeout(HANDSHAKE_WITHIN, dialler.dial(address, relay.host())).await {
            Ok(Ok(carrier)) => return Ok((dialler, carrier)),
            Ok(Err(error)) => last = Some(LineError::from(error)),
            Err(_) => last = Some(LineError::Silent(address)),
        }
    }
    Err(last.unwrap_or(LineError::Empty))
}

async fn greet(
    agent: &Agent,
    carrier: &Carrier,
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
        capabilities: None,
        name: Some(name.to_string()),
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
