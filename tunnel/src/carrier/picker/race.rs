//! The race: every address over QUIC, the fallback a little later, the first handshake wins.
//!
//! Every attempt is a task of one set, which ends with the race.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::attempt::Failure;
use super::{Attempt, Dialled, How, Kind, Trouble, Unreached, Wanted};
use crate::carrier::Carrier;
use crate::carrier::quic::Dialler;
use crate::carrier::websocket;
use crate::proxy::Proxy;

/// The whole race. QUIC repeats its first packet after 1, 3 and 7 s.
const DIAL_WITHIN: Duration = Duration::from_secs(10);

/// Head start of QUIC over the fallback: one and a half round trips of a satellite link would be
/// more, but the fallback takes three there.
pub(super) const QUIC_FIRST: Duration = Duration::from_millis(500);

/// Head start of the fallback over a QUIC that is doubted ([`super::History`]): its three round
/// trips over a slow network. Where only UDP passes, QUIC is still had.
const FALLBACK_FIRST: Duration = Duration::from_secs(3);

/// Head start of an address over the next (RFC 8305 §5, Connection Attempt Delay).
const ADDRESS_FIRST: Duration = Duration::from_millis(250);

/// Addresses tried. A name with more is misconfigured.
pub(super) const MAX_ADDRESSES: usize = 8;

/// The names' part of the race, so that a proxy that needs none has the rest.
const RESOLVE_WITHIN: Duration = Duration::from_secs(4);

type Ran = (How, Option<Carrier>);

/// The attempts, under way and over.
struct Race<'a> {
    wanted: &'a Wanted,
    tries: JoinSet<Ran>,
    under_way: Vec<(Id, Kind, String, Instant)>,
    over: Vec<Attempt>,
    quic_begun: bool,
    fallback_begun: bool,
    addresses: Vec<SocketAddr>,
}

/// Dials the relay over whatever works.
///
/// # Errors
/// [`Unreached`], with every attempt.
pub async fn dial(wanted: &Wanted) -> Result<Dialled, Unreached> {
    let deadline = Instant::now() + DIAL_WITHIN;
    let mut race = Race {
        wanted,
        tries: JoinSet::new(),
        under_way: Vec::new(),
        over: Vec::new(),
        quic_begun: !wanted.choice.allows(Kind::Quic),
        fallback_begun: !wanted.choice.allows(Kind::WebSocket),
        addresses: Vec::new(),
    };
    race.resolve().await;
    let (quic_in, fallback_in) = if wanted.history.doubts_quic() {
        (FALLBACK_FIRST, Duration::ZERO)
    } else if wanted.history.last() == Some(Kind::WebSocket) {
        (Duration::ZERO, Duration::ZERO)
    } else {
        (Duration::ZERO, QUIC_FIRST)
    };
    let (quic_at, fallback_at) = (Instant::now() + quic_in, Instant::now() + fallback_in);
    loop {
        if !race.quic_begun && quic_at <= Instant::now() {
            race.begin_quic();
        }
        if !race.fallback_begun && fallback_at <= Instant::now() {
            race.begin_fallback();
        }
        if race.tries.is_empty() {
            // Nothing is under way any more: its head start is over.
            if !race.quic_begun {
                race.begin_quic();
            } else if !race.fallback_begun {
                race.begin_fallback();
            } else {
                return Err(Unreached::new(&wanted.relay, race.over));
            }
            continue;
        }
        tokio::select! {
            Some(ran) = race.tries.join_next_with_id() => match ran {
                Ok((id, (how, carrier))) => {
                    let kind = race.note(id, how);
                    if let (Some(carrier), Some(kind)) = (carrier, kind) {
                        race.overtaken(How::Overtaken);
                        return Ok(Dialled { carrier, kind, attempts: race.over });
                    }
                }
                Err(error) => {
                    if let Ok(panic) = error.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    }
                }
            },
            () = sleep_until(quic_at), if !race.quic_begun => {}
            () = sleep_until(fallback_at), if !race.fallback_begun => {}
            () = sleep_until(deadline) => {
                race.overtaken(Failure::Silent.told());
                return Err(Unreached::new(&wanted.relay, race.over));
            }
        }
    }
}

impl Race<'_> {
    /// A name that has no address is an attempt that failed; a proxy may still know it.
    async fn resolve(&mut self) {
        let began = Instant::now();
        let found = timeout(RESOLVE_WITHIN, self.wanted.relay.resolve()).await;
        let why = match found {
            Ok(Ok(found)) => {
                self.addresses = found.into_iter().take(MAX_ADDRESSES).collect();
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("cannot find the relay \"{}\": no answer", self.wanted.relay.host()),
        };
        let kind = if self.wanted.choice.allows(Kind::Quic) { Kind::Quic } else { Kind::WebSocket };
        self.over.push(Attempt {
            kind,
            to: self.wanted.relay.to_string(),
            took: began.elapsed(),
            how: How::Failed(Trouble::NotFound, why),
        });
    }

    fn begin_quic(&mut self) {
        self.quic_begun = true;
        for (number, address) in (0..).zip(self.addresses.clone()) {
            let wanted = self.wanted.clone();
            self.begin(Kind::Quic, address.to_string(), async move {
                sleep(ADDRESS_FIRST * number).await;
                quic(&wanted, address).await
            });
        }
    }

    fn begin_fallback(&mut self) {
        self.fallback_begun = true;
        if let Some(proxy) = self.wanted.proxies.towards(self.wanted.relay.host()).cloned() {
            let wanted = self.wanted.clone();
            self.begin(Kind::WebSocket, proxy.to_string(), async move {
                through(&wanted, &proxy).await
            });
            return;
        }
        for (number, address) in (0..).zip(self.addresses.clone()) {
            let wanted = self.wanted.clone();
            self.begin(Kind::WebSocket, address.to_string(), async move {
                sleep(ADDRESS_FIRST * number).await;
                direct(&wanted, address).await
            });
        }
    }

    fn begin(
        &mut self,
        kind: Kind,
        to: String,
        attempt: impl Future<Output = Result<Carrier, Failure>> + Send + 'static,
    ) {
        let task = self.tries.spawn(async move {
            match attempt.await {
                Ok(carrier) => (How::Won, Some(carrier)),
                Err(failure) => (failure.told(), None),
            }
        });
        self.under_way.push((task.id(), kind, to, Instant::now()));
    }

    fn note(&mut self, id: Id, how: How) -> Option<Kind> {
        let at = self.under_way.iter().position(|(other, ..)| *other == id)?;
        let (_, kind, to, began) = self.under_way.swap_remove(at);
        // The relay is there and has no place: it has none over TCP either, and a herd that comes
        // back would only cost it two handshakes for each device.
        self.fallback_begun |= matches!(how, How::Failed(Trouble::Busy, _));
        self.over.push(Attempt { kind, to, took: began.elapsed(), how });
        Some(kind)
    }

    /// All that are still under way end so.
    fn overtaken(&mut self, how: How) {
        let ended = self.under_way.drain(..).map(|(_, kind, to, began)| Attempt {
            kind,
            to,
            took: began.elapsed(),
            how: how.clone(),
        });
        self.over.extend(ended);
    }
}

pub(super) async fn quic(wanted: &Wanted, address: SocketAddr) -> Result<Carrier, Failure> {
    let dialler = Dialler::new(wanted.role, wanted.tls.clone(), address)?;
    Ok(dialler.dial(address, wanted.relay.host()).await?)
}

async fn direct(wanted: &Wanted, address: SocketAddr) -> Result<Carrier, Failure> {
    let tcp = TcpStream::connect(address).await.map_err(Failure::Tcp)?;
    Ok(websocket::dial(wanted.role, wanted.tls.clone(), tcp, &wanted.relay).await?)
}

async fn through(wanted: &Wanted, proxy: &Proxy) -> Result<Carrier, Failure> {
    let tcp = proxy.connect(wanted.relay.host(), wanted.relay.port()).await?;
    Ok(websocket::dial(wanted.role, wanted.tls.clone(), tcp, &wanted.relay).await?)
}
