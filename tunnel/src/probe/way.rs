//! One carrier tried by itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::carrier::picker::{Attempt, Choice, Kind, Trouble, Unreached, Wanted, dial};
use crate::carrier::{Carrier, ResetCode};
use crate::pki::Witness;
use crate::tls;

/// How long the datagrams' size may take to be found: each step is a round trip, and each that is
/// too large costs three losses.
const SIZE_WITHIN: Duration = Duration::from_secs(4);

/// How long its last word may take: the relay may judge our certificate after our own side of the
/// handshake is done (RFC 8446 §4.4.2.4).
const VERDICT_WITHIN: Duration = Duration::from_millis(300);

/// How long somebody in between may take to show a certificate.
const WITNESS_WITHIN: Duration = Duration::from_secs(5);

/// What came of it.
pub(super) enum Way {
    /// It was not to be tried: why.
    NotTried(String),
    /// It works.
    Works(Working),
    /// It does not.
    Fails(Failing),
}

pub(super) struct Working {
    pub(super) to: String,
    pub(super) took: Duration,
    pub(super) round_trip: Duration,
    /// Largest datagram, over QUIC.
    pub(super) size: Option<u16>,
}

pub(super) struct Failing {
    pub(super) unreached: Unreached,
    /// Who issued the certificate that somebody showed in the relay's place.
    pub(super) instead: Option<String>,
}

/// Tries one.
pub(super) async fn tried(wanted: &Wanted, kind: Kind) -> Way {
    if !wanted.choice.allows(kind) {
        return Way::NotTried(format!("not tried: BELAY_CARRIER excludes {kind}"));
    }
    let alone = Wanted { choice: Choice::Only(kind), history: Arc::default(), ..wanted.clone() };
    let began = Instant::now();
    match dial(&alone).await {
        Ok(dialled) => {
            let took = began.elapsed();
            let to = dialled.attempts.last().map(|a| a.to.clone()).unwrap_or_default();
            judged(&alone, dialled.carrier, (to, took)).await
        }
        Err(unreached) => fails(&alone, kind, unreached).await,
    }
}

async fn judged(wanted: &Wanted, carrier: Carrier, (to, took): (String, Duration)) -> Way {
    let patience = VERDICT_WITHIN + 2 * carrier.round_trip();
    if let Ok(end) = timeout(patience, carrier.closed()).await {
        let kind = Kind::of(&carrier);
        let attempt = Attempt::ended(kind, to, took, &end);
        return Way::Fails(Failing {
            unreached: Unreached::new(&wanted.relay, vec![attempt]),
            instead: None,
        });
    }
    let size = size(&carrier).await;
    let round_trip = carrier.round_trip();
    carrier.close(ResetCode::DONE, "");
    carrier.drain(VERDICT_WITHIN).await;
    Way::Works(Working { to, took, round_trip, size })
}

/// The largest datagram, once it has stopped growing.
async fn size(carrier: &Carrier) -> Option<u16> {
    let deadline = Instant::now() + SIZE_WITHIN;
    let (mut last, mut since) = (carrier.path_mtu()?, Instant::now());
    loop {
        let quiet = Duration::from_millis(500) + 8 * carrier.round_trip();
        if since.elapsed() >= quiet || Instant::now() >= deadline {
            return Some(last);
        }
        sleep(Duration::from_millis(50)).await;
        let now = carrier.path_mtu()?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}

async fn fails(wanted: &Wanted, kind: Kind, unreached: Unreached) -> Way {
    let asked = kind == Kind::WebSocket && unreached.finds(Trouble::NotTheRelay);
    let instead =
        if asked { timeout(WITNESS_WITHIN, witnessed(wanted)).await.ok().flatten() } else { None };
    Way::Fails(Failing { unreached, instead })
}

async fn witnessed(wanted: &Wanted) -> Option<String> {
    let relay = &wanted.relay;
    let tcp = match wanted.proxies.towards(relay.host()) {
        Some(proxy) => proxy.connect(relay.host(), relay.port()).await.ok()?,
        None => TcpStream::connect((relay.host(), relay.port())).await.ok()?,
    };
    let witness = Witness::new();
    let config = tls::client(witness.clone(), None, &[b"http/1.1"]).ok()?;
    let connector = TlsConnector::from(Arc::new(config));
    // It never succeeds: a witness refuses every certificate.
    let refused = connector.connect(relay.server_name().ok()?, tcp).await;
    tracing::trace!(refused = refused.is_err(), "asked who answers");
    witness.issuer()
}
