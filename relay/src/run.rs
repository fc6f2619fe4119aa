//! `belay-relay run`: puts the rooms together, runs them, and takes them down in order.
//!
//! First everything that can fail is done (configuration, keys, store, both sockets), then the
//! tasks start. On the first stop signal nothing new is taken, sessions that nobody could take up again
//! get `drain_seconds`, then all ends; whoever is still connected is told why.

use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use belay_proto::refusal::{Code, Refused};
use belay_proto::version::ALPN;
use belay_tunnel::carrier::quic;
use belay_tunnel::pki::ClientVerifier;
use belay_tunnel::{clock, tls};
use rustls::server::ResolvesServerCert;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Api;
use crate::audit::witness::Witness;
use crate::audit::{Strangers, cosigner};
use crate::ca::{Authority, RelayCertificate};
use crate::config::Config;
use crate::export;
use crate::line::{
    Door, Flapping, Limits, Listener, Registry, Shared, tell_left_lines, watch_changes,
};
use crate::listen::https;
use crate::recordings::Recordings;
use crate::retention::Keeper;
use crate::store::{Event, EventKind, Store};

/// QUIC first packets that may wait to be looked at: a burst of a fleet that comes back. Each holds
/// 16 KiB, most of it key schedules, so 8 MiB together. Those beyond are dropped, and sent again by
/// whoever meant them.
const HALF_OPEN: usize = 512;

/// How long last words may take to reach whoever is connected.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Runs a relay until `stop`, then drains. `ready` hears the bound address.
///
/// # Errors
/// Whatever keeps it from starting, or a part that ended by itself.
pub async fn run(
    config: Config,
    stop: CancellationToken,
    ready: impl FnOnce(SocketAddr),
) -> anyhow::Result<()> {
    let authority = Arc::new(Authority::load(&config.data, config.address.host())?);
    let certificate = RelayCertificate::new(Arc::clone(&authority), clock::now())?;
    let cosigners = cosigner::prepare(&config.audit)?;
    let exports = export::prepare(&config.exports, config.address.host())?;
    let tcp = StdTcpListener::bind(config.listen)
        .with_context(|| format!("cannot listen on TCP {}", config.listen))?;
    tcp.set_nonblocking(true).context("cannot use the TCP socket")?;
    // Port 0 in a test: UDP takes the port TCP was given.
    let listen = tcp.local_addr().context("cannot use the TCP socket")?;
    let resolver: Arc<dyn ResolvesServerCert> = certificate.clone();
    let ca = || authority.ca().clone();
    let web_tls =
        tls::server(ClientVerifier::optional(ca()), Arc::clone(&resolver), &[b"http/1.1"])?;
    let web_tls = Arc::new(web_tls);
    let quic_tls = tls::server(ClientVerifier::required(ca()), resolver, &[ALPN])?;
    let (endpoint, resets) = quic::listen(listen, quic_tls, HALF_OPEN, authority.quic_reset_key())?;
    let every = config.audit.checkpoint_every;
    let witness = config.audit.checkpoints_to.as_deref();
    let witness = witness.map(|path| Witness::new(path, every)).transpose()?;
    let store = Store::open(&config.data).await?;
    store.record(Event::new(EventKind::RelayStarted).detail(crate::SOFTWARE)).await?;

    let recordings = Recordings::open(&config.data).context("cannot make DATA/recordings")?;

    let left = store.take_left_lines().await?;
    let strangers = Arc::new(Strangers::new(store.clone()));
    let registry = Arc::new(Registry::default());
    let (end, background) = (CancellationToken::new(), CancellationToken::new());
    let shared = Arc::new(Shared {
        store: store.clone(),
        authority: Arc::clone(&authority),
        recordings: Arc::clone(&recordings),
        registry: Arc::clone(&registry),
        strangers: Arc::clone(&strangers),
        flapping: Flapping::default(),
        limits: Limits::of(&config),
        draining: stop.clone(),
        stop: end.clone(),
        tasks: TaskTracker::new(),
    });
    let api = Api::new(
        &config,
        store.clone(),
        Arc::clone(&authority),
        Arc::clone(&registry) as Arc<dyn crate::presence::Presence>,
        (Arc::clone(&strangers), Arc::clone(&recordings)),
    )?;
    let keeper = Keeper::new(store.clone(), recordings, config.recordings_keep_days)
        .pruning(config.audit_keep_days, &config.exports);
    let keepers = TaskTracker::new();
    let door = Door::new(Arc::clone(&shared));
    keepers.spawn(Listener::new(endpoint.clone(), door.clone()).run());
    keepers.spawn(watch_changes(store.changes(), Arc::clone(&shared)));
    keepers.spawn({
        let (registry, cancel) = (Arc::clone(&registry), background.clone());
        let door = door.clone();
        async move {
            let told = tell_left_lines(left, resets, &door, &registry);
            if cancel.run_until_cancelled(told).await.is_none() {
                tracing::debug!("stopped before every device was told");
            }
        }
    });
    keepers.spawn({
        let (certificate, cancel) = (Arc::clone(&certificate), background.clone());
        async move { certificate.keep_fresh(cancel).await }
    });
    keepers.spawn({
        let (strangers, cancel) = (Arc::clone(&strangers), background.clone());
        async move { strangers.sum_up(cancel).await }
    });
    keepers.spawn({
        let (store, cancel) = (store.clone(), background.clone());
        async move { store.keep_swept(cancel).await }
    });
    keepers.spawn(keeper.run(background.clone()));
    for cosigner in cosigners {
        keepers.spawn(cosigner.keep(store.clone(), background.clone()));
    }
    for export in exports {
        keepers.spawn(export.run(store.clone(), background.clone()));
    }
    keepers.spawn(Arc::clone(&api.search).keep(store.clone(), background.clone()));
    if let Some(witness) = witness {
        keepers.spawn(witness.keep(store.clone(), background.clone()));
    }
    let tcp = tokio::net::TcpListener::from_std(tcp).context("cannot use the TCP socket")?;
    let web = https::serve((api, door), web_tls, config.https, tcp, stop.clone(), config.drain);
    tracing::info!(%listen, name = config.address.host(), "relay running");
    ready(listen);

    // Serves until `stop`, then drains by itself.
    web.await;
    drain(&shared, &config).await;
    end_all(&shared, &endpoint).await;
    keepers.close();
    background.cancel();
    keepers.wait().await;
    store.record(Event::new(EventKind::RelayStopped)).await?;
    store.close().await;
    tracing::info!("relay stopped");
    Ok(())
}

/// Where nobody may come back to a session, lets running ones end by themselves for as long as the
/// configuration says. Where everybody may, the sooner the relay is back the better.
async fn drain(shared: &Shared, config: &Config) {
    let open = shared.registry.session_count();
    if open == 0 || shared.limits.windows.all_may_come_back() {
        return;
    }
    tracing::info!(sessions = open, seconds = config.drain.as_secs(), "draining");
    let quiet = async {
        let mut look = tokio::time::interval(Duration::from_millis(100));
        while shared.registry.session_count() > 0 {
            look.tick().await;
        }
    };
    if tokio::time::timeout(shared.limits.drain, quiet).await.is_err() {
        let open = shared.registry.session_count();
        tracing::warn!(sessions = open, "ending sessions that did not end in time");
    }
}

/// Tells everybody, then ends everything.
async fn end_all(shared: &Shared, endpoint: &quinn::Endpoint) {
    shared.tasks.close();
    let reason = Refused::new(Code::Draining, "this relay is shutting down", "connect again");
    shared.registry.end_all(&reason);
    if tokio::time::timeout(LAST_WORDS, shared.tasks.wait()).await.is_err() {
        tracing::debug!("some connections did not take the last word");
    }
    shared.stop.cancel();
    endpoint.close(quinn::VarInt::from_u32(u32::from(Code::Draining.number())), b"shutting down");
    shared.tasks.wait().await;
    if tokio::time::timeout(LAST_WORDS, endpoint.wait_idle()).await.is_err() {
        tracing::debug!("some peers did not acknowledge the end");
    }
}
