//! Taking handshakes in: bounded in number and time, addresses validated under load.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use belay_proto::limits::HELLO_DEADLINE;
use belay_proto::recording::Policy;
use belay_proto::refusal::{Code, Refused};
use belay_proto::wire::open::ResumeWindows;
use belay_tunnel::carrier::quic::{self, LineId};
use belay_tunnel::carrier::{Carrier, CarrierError, ResetCode};
use dashmap::DashMap;
use quinn::{Endpoint, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::admit::{self, Admitted};
use super::{Shared, client, device};
use crate::config::Config;

/// What the QUIC side takes at once. Memory costs are measured, see `docs/operations.md`.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections not yet admitted, validated addresses included. Each holds about 40 KiB.
    pub strangers: usize,
    /// Above this many of them an address must be validated first (QUIC Retry, RFC 9000 §8.1.2):
    /// one round trip more for honest peers, nothing kept for spoofed ones.
    pub retry_above: usize,
    /// Connections not yet admitted from one IPv4 address or IPv6 /64.
    pub strangers_per_source: usize,
    /// A TLS handshake's longest time.
    pub handshake: Duration,
    /// Sessions open at once to one device.
    pub sessions_per_device: u32,
    /// Sessions open at once by one person.
    pub sessions_per_user: u32,
    /// How long a session may be without its client.
    pub windows: ResumeWindows,
    /// Whether sessions are recorded.
    pub recording: Policy,
    /// Where they are: what is typed as well.
    pub input: bool,
    /// Whom recordings are sealed to; nobody: they are not.
    pub recipients: Arc<[String]>,
    /// How many other systems get the audit log.
    pub exports: usize,
    /// How long running sessions may go on after the relay was told to stop.
    pub drain: Duration,
}

impl Limits {
    /// Of a configuration.
    pub fn of(config: &Config) -> Self {
        Self {
            strangers: config.quic.strangers,
            retry_above: config.quic.retry_above,
            strangers_per_source: config.quic.strangers_per_source,
            handshake: HANDSHAKE,
            sessions_per_device: config.sessions.per_device,
            sessions_per_user: config.sessions.per_user,
            windows: config.sessions.windows,
            recording: config.sessions.recording,
            input: config.sessions.input,
            recipients: Arc::clone(&config.recipients),
            exports: config.exports.len(),
            drain: config.drain,
        }
    }
}

/// A TLS handshake over QUIC: two flights, each lost twice (RFC 9002 §6.2.2: the first waits 1 s).
const HANDSHAKE: Duration = Duration::from_secs(8);

/// How long the transport keeps a connection that ended before anything was known of its path:
/// three of its probe time-outs (RFC 9000 §10.2), each a second at first (RFC 9002 §6.2.2).
const DRAINING: Duration = Duration::from_secs(3);

/// The places of those not yet admitted, whichever carrier they come over.
#[derive(Clone)]
pub struct Door {
    shared: Arc<Shared>,
    strangers: Arc<Semaphore>,
    sources: Arc<DashMap<IpAddr, usize>>,
}

impl Door {
    /// To what `shared` holds.
    pub fn new(shared: Arc<Shared>) -> Self {
        let strangers = Arc::new(Semaphore::new(shared.limits.strangers));
        Self { shared, strangers, sources: Arc::new(DashMap::new()) }
    }

    /// Whether so many wait to be admitted that nobody need be called: a quarter of the places that
    /// one source may have.
    pub(super) fn is_busy(&self) -> bool {
        self.waiting() > self.shared.limits.strangers_per_source / 4
    }

    /// Those not yet admitted.
    fn waiting(&self) -> usize {
        self.shared.limits.strangers.saturating_sub(self.strangers.available_permits())
    }

    /// A place for one more; `None` when all, or all of its source, are taken.
    pub(crate) fn enter(&self, peer: SocketAddr) -> Option<Entered> {
        let permit = Arc::clone(&self.strangers).try_acquire_owned().ok()?;
        let place = Place::take(&self.sources, peer, self.shared.limits.strangers_per_source)?;
        Some(Entered { shared: Arc::clone(&self.shared), permit, place })
    }
}

/// One stranger's place, from before its handshake until it is admitted or gone.
pub(crate) struct Entered {
    shared: Arc<Shared>,
    permit: OwnedSemaphorePermit,
    place: Place,
}

impl Entered {
    /// Holds a carrier whose handshake is done, to its end. `mover` moves its messages.
    pub(crate) fn hold(self, carrier: Carrier, mover: impl Future<Output = ()> + Send + 'static) {
        let Self { shared, permit, place } = self;
        let tasks = shared.tasks.clone();
        tasks.spawn(mover);
        tasks.spawn(async move {
            let greeting = Box::pin(greeted(carrier.clone(), None, &shared, (permit, place)));
            let life = async {
                if let Some(line) = greeting.await {
                    line.hold(&shared).await;
                }
            };
            tokio::select! {
                () = life => {}
                () = shared.stop.cancelled() => {
                    let code = ResetCode(u32::from(Code::Draining.number()));
                    carrier.close(code, "shutting down");
                }
            }
        });
    }
}

/// Accepts QUIC carriers until told to stop.
pub struct Listener {
    endpoint: Endpoint,
    door: Door,
}

impl Listener {
    /// Listens on an endpoint made by [`quic::listen`].
    pub const fn new(endpoint: Endpoint, door: Door) -> Self {
        Self { endpoint, door }
    }

    /// Runs until `shared.stop`.
    pub async fn run(self) {
        loop {
            let incoming = tokio::select! {
                incoming = self.endpoint.accept() => incoming,
                () = self.door.shared.stop.cancelled() => None,
            };
            match incoming {
                Some(incoming) => self.take(incoming),
                None => return,
            }
        }
    }

    fn take(&self, incoming: Incoming) {
        let shared = Arc::clone(&self.door.shared);
        if shared.draining.is_cancelled() {
            // It repeats its first packet, and finds the relay that follows.
            incoming.ignore();
            return;
        }
        let waiting = self.door.waiting();
        if !incoming.remote_address_validated() && waiting >= shared.limits.retry_above {
            if let Err(error) = incoming.retry() {
                error.into_incoming().ignore();
            }
            return;
        }
        let Some(Entered { permit, place, .. }) = self.door.enter(incoming.remote_address()) else {
            incoming.refuse();
            return;
        };
        // Boxed, so that its memory is gone once the line is up: then only the waiting is left,
        // for months, of very many devices.
        let receiving = Box::pin(receive(incoming, Arc::clone(&shared), permit, place));
        self.door.shared.tasks.spawn(async move {
            let life = async {
                if let Some(line) = receiving.await {
                    line.hold(&shared).await;
                }
            };
            tokio::select! {
                () = life => {}
                () = shared.stop.cancelled() => {}
            }
        });
    }
}

/// One stranger's place in its source's share.
struct Place {
    sources: Arc<DashMap<IpAddr, usize>>,
    source: IpAddr,
}

impl Place {
    fn take(sources: &Arc<DashMap<IpAddr, usize>>, peer: SocketAddr, share: usize) -> Option<Self> {
        let source = network_of(peer.ip());
        let mut taken = sources.entry(source).or_insert(0);
        if *taken >= share {
            return None;
        }
        *taken += 1;
        Some(Self { sources: Arc::clone(sources), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sources.remove_if_mut(&self.source, |_, taken| {
            *taken = taken.saturating_sub(1);
            *taken == 0
        });
    }
}

/// An IPv6 host owns a whole /64 (RFC 4291 §2.5.1), so that counts as one source.
fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// From a first packet to a device's line; a client's whole stay.
async fn receive(
    incoming: Incoming,
    shared: Arc<Shared>,
    permit: OwnedSemaphorePermit,
    place: Place,
) -> Option<device::Line> {
    let peer = incoming.remote_address();
    match handshake(incoming, &shared, peer).await {
        Some((carrier, id)) => greeted(carrier, id, &shared, (permit, place)).await,
        None => {
            remembered(&shared).await;
            None
        }
    }
}

/// From the end of a handshake to a device's line; a client's whole stay.
async fn greeted(
    carrier: Carrier,
    id: Option<LineId>,
    shared: &Arc<Shared>,
    place: (OwnedSemaphorePermit, Place),
) -> Option<device::Line> {
    match admitted(&carrier, shared).await {
        Some(Admitted::Device(admitted)) => {
            drop(place);
            device::begin(carrier, id, admitted, shared).await
        }
        Some(Admitted::Client(admitted)) => {
            drop(place);
            client::hold(carrier, admitted, shared).await;
            None
        }
        None => {
            remembered(shared).await;
            None
        }
    }
}

/// The transport remembers a connection that led nowhere a while, so it keeps its place: else who
/// comes and goes at once, without end, would be bounded by nothing.
async fn remembered(shared: &Shared) {
    tokio::select! {
        () = tokio::time::sleep(DRAINING) => {}
        () = shared.draining.cancelled() => {}
    }
}

/// Who it is; `None` when it is nobody, which is told and recorded by then.
async fn admitted(carrier: &Carrier, shared: &Arc<Shared>) -> Option<Admitted> {
    match tokio::time::timeout(HELLO_DEADLINE, admit::admit(carrier, shared)).await {
        Ok(admitted) => admitted,
        Err(_) => {
            let refused = Refused::new(Code::Protocol, "no Hello came in time", "");
            shared.strangers.refused(carrier.remote_address(), &refused).await;
            admit::close(carrier, &refused);
            None
        }
    }
}

async fn handshake(
    incoming: Incoming,
    shared: &Shared,
    peer: SocketAddr,
) -> Option<(Carrier, Option<LineId>)> {
    let (connecting, id) = match quic::accept(incoming) {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::debug!(%peer, %error, "a first packet led nowhere");
            return None;
        }
    };
    match tokio::time::timeout(shared.limits.handshake, connecting).await {
        Ok(Ok(connection)) => Some((quic::accepted(connection), id)),
        Ok(Err(error)) => {
            if let Some(refused) = handshake_refusal(&CarrierError::from(error)) {
                shared.strangers.refused(peer, &refused).await;
            }
            None
        }
        Err(_) => {
            tracing::debug!(%peer, "a handshake did not finish in time");
            None
        }
    }
}

/// What a failed handshake says about the peer; `None` when it only went away.
fn handshake_refusal(error: &CarrierError) -> Option<Refused> {
    // RFC 8446 §6: the alerts we send about a certificate, and no_application_protocol.
    const NO_COMMON_ALPN: u8 = 120;
    const CERTIFICATE_ALERTS: std::ops::RangeInclusive<u8> = 42..=51;
    const CERTIFICATE_REQUIRED: u8 = 116;
    match error.alert()? {
        NO_COMMON_ALPN => Some(Refused::new(Code::Version, "the peer speaks no belay/1", "")),
        CERTIFICATE_REQUIRED => {
            Some(Refused::new(Code::ForeignCertificate, "the peer showed no certificate", ""))
        }
        alert if CERTIFICATE_ALERTS.contains(&alert) => Some(Refused::new(
            Code::ForeignCertificate,
            format!("the peer's certificate is not one of this relay's ({error})"),
            "",
        )),
        alert => Some(Refused::new(
            Code::Protocol,
            format!("the TLS handshake failed (alert {alert})"),
            "",
        )),
    }
}
