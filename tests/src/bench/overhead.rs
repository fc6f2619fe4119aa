//! What the resume layer costs: the same bytes over the same carriers with it and without it.
//!
//! A client's and a device's carrier to a relay that passes a stream from one to the other, all in
//! this process, over QUIC on loopback. Nothing else is there: no SSH, no worker, no disk.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use belay_proto::ids::{DeviceId, UserId};
use belay_proto::time::UnixTime;
use belay_proto::version::ALPN;
use belay_tunnel::carrier::quic::{self, Dialler, Role};
use belay_tunnel::carrier::{Carrier, RecvHalf, SendHalf, splice};
use belay_tunnel::pki::{CertificateAuthority, ClientVerifier, Identity, RelayVerifier, TlsKey};
use belay_tunnel::{clock, stream, tls};
use bytes::Bytes;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::stats::Samples;

/// Given to the sender at once, with the layer and without.
const PIECE: usize = 64 * 1024;

/// Pieces taken at once by the receiver.
const BATCH: usize = 64;

/// Streams and bytes in flight that the relay lets an admitted peer have.
const STREAMS: u32 = 4;
const WINDOW: u32 = 16 * 1024 * 1024;

const NAME: &str = "127.0.0.1";

/// Times of `mebibytes` without the layer and with it, in turns.
///
/// # Errors
/// When a carrier cannot be had or breaks.
pub fn measure(mebibytes: usize, turns: usize) -> Result<[Samples; 2]> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let path = Path::new().await?;
        let mut all = [Samples::default(), Samples::default()];
        // One turn more, to warm up.
        for turn in 0..=turns {
            let times = [path.without(mebibytes).await?, path.with_the_layer(mebibytes).await?];
            if turn > 0 {
                all.iter_mut().zip(times).for_each(|(samples, took)| samples.push(took));
            }
        }
        Ok(all)
    })
}

#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Both carriers, each with its two ends.
struct Path {
    client: Carrier,
    device: Carrier,
    client_at_relay: Carrier,
    device_at_relay: Carrier,
}

/// One stream through the relay.
struct Through {
    to_device: SendHalf,
    from_device: RecvHalf,
    to_client: SendHalf,
    from_client: RecvHalf,
    relay: JoinSet<()>,
}

impl Path {
    async fn new() -> Result<Self> {
        let (ca, _) = CertificateAuthority::generate(NAME, clock::now())?;
        let certify = |identity: &Identity| -> Result<_> {
            let key = TlsKey::generate()?;
            let life = Duration::from_secs(3600);
            let leaf = ca.issue_for_request(&key.request_der()?, identity, clock::now(), life)?;
            Ok((leaf, key))
        };
        let (leaf, key) = certify(&Identity::Relay { name: NAME.into() })?;
        let certified = Arc::new(tls::relay_key(leaf, ca.certificate().clone(), &key)?);
        let verifier = ClientVerifier::required(ca.certificate().clone());
        let server = tls::server(verifier, Arc::new(Always(certified)), &[ALPN])?;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (endpoint, _) = quic::listen(any, server, 8, &[7; 64])?;
        let address = endpoint.local_addr().context("the relay's address")?;
        let dial = async |role, identity: Identity| -> Result<(Carrier, Carrier)> {
            let (leaf, key) = certify(&identity)?;
            let verifier = RelayVerifier::pinned(ca.certificate().clone(), UnixTime(0));
            let tls = tls::client(verifier, Some((vec![leaf], key.to_der())), &[])?;
            let dialler = Dialler::new(role, tls, address)?;
            let accepted = async {
                let incoming = endpoint.accept().await.context("the relay is gone")?;
                Ok::<_, anyhow::Error>(quic::accepted(incoming.await?))
            };
            let dialled = async { Ok(dialler.dial(address, NAME).await?) };
            let (dialled, accepted) = tokio::try_join!(dialled, accepted)?;
            accepted.admit(STREAMS, WINDOW);
            Ok((dialled, accepted))
        };
        let id = UserId::from_uuid(Uuid::now_v7());
        let user = Identity::User { id, name: "bench".parse()? };
        let (client, client_at_relay) = dial(Role::Client, user).await?;
        let id = DeviceId::from_uuid(Uuid::now_v7());
        let (device, device_at_relay) = dial(Role::Device, Identity::Device(id)).await?;
        Ok(Self { client, device, client_at_relay, device_at_relay })
    }

    async fn stream(&self) -> Result<Through> {
        // The peer learns of a stream with its first byte.
        let first = || Bytes::from_static(b"!");
        let (mut to_device, from_device) = self.client.open().await?;
        to_device.send(first()).await?;
        let (back, ahead) = self.client_at_relay.accept().await?;
        let (mut on, behind) = self.device_at_relay.open().await?;
        on.send(first()).await?;
        let (to_client, mut from_client) = self.device.accept().await?;
        let mut relay = JoinSet::new();
        // An end that broke shows at the receiver.
        relay.spawn(async move { drop(splice(ahead, on, |_| ()).await) });
        relay.spawn(async move { drop(splice(behind, back, |_| ()).await) });
        let mut both = 0;
        let mut pieces = [Bytes::new(), Bytes::new()];
        while both < 2 {
            let count = from_client.receive(&mut pieces).await?.context("an early end")?;
            both += pieces.iter().take(count).map(Bytes::len).sum::<usize>();
        }
        ensure!(both == 2, "more than was sent");
        Ok(Through { to_device, from_device, to_client, from_client, relay })
    }

    async fn without(&self, mebibytes: usize) -> Result<Duration> {
        let mut through = self.stream().await?;
        let began = Instant::now();
        let (sender, receiver) = (&mut through.to_device, &mut through.from_client);
        let sent = async {
            let piece = piece();
            for _ in 0..pieces_of(mebibytes) {
                sender.send(piece.clone()).await?;
            }
            sender.finish();
            Ok::<_, anyhow::Error>(())
        };
        let received = async {
            let (mut all, mut pieces) = (0, [const { Bytes::new() }; BATCH]);
            while let Some(count) = receiver.receive(&mut pieces).await? {
                all +=
                    pieces.iter_mut().take(count).map(|p| std::mem::take(p).len()).sum::<usize>();
            }
            Ok(all)
        };
        let ((), all) = tokio::try_join!(sent, received)?;
        ensure!(all == mebibytes << 20, "{all} bytes arrived");
        let took = began.elapsed();
        through.to_client.finish();
        let mut rest = [Bytes::new()];
        while through.from_device.receive(&mut rest).await?.is_some() {}
        while through.relay.join_next().await.is_some() {}
        Ok(took)
    }

    async fn with_the_layer(&self, mebibytes: usize) -> Result<Duration> {
        let Through { to_device, from_device, to_client, from_client, mut relay } =
            self.stream().await?;
        let began = Instant::now();
        let (mut sender, _back, client) = stream::session(stream::Config::default());
        let (mut answering, mut receiver, device) = stream::session(stream::Config::default());
        let mut carrying = JoinSet::new();
        carrying.spawn(async move { drop(client.carry(from_device, to_device).await) });
        carrying.spawn(async move { drop(device.carry(from_client, to_client).await) });
        let sent = async {
            let piece = piece();
            for _ in 0..pieces_of(mebibytes) {
                sender.send(&mut piece.clone()).await?;
            }
            sender.finish();
            Ok::<_, anyhow::Error>(())
        };
        let received = async {
            let (mut all, mut pieces) = (0, [const { Bytes::new() }; BATCH]);
            while let Some(count) = receiver.receive(&mut pieces).await? {
                all +=
                    pieces.iter_mut().take(count).map(|p| std::mem::take(p).len()).sum::<usize>();
            }
            Ok(all)
        };
        let ((), all) = tokio::try_join!(sent, received)?;
        ensure!(all == mebibytes << 20, "{all} bytes arrived");
        let took = began.elapsed();
        answering.finish();
        while carrying.join_next().await.is_some() {}
        while relay.join_next().await.is_some() {}
        Ok(took)
    }
}

fn piece() -> Bytes {
    vec![7; PIECE].into()
}

const fn pieces_of(mebibytes: usize) -> usize {
    (mebibytes << 20) / PIECE
}
