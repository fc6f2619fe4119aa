//! Somebody who answers TLS in the relay's place, as a company's inspection does.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use belay_tunnel::pki::{CertificateAuthority, ClientVerifier, Identity, TlsKey};
use belay_tunnel::{clock, tls};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection};

use super::Listener;
use crate::world::World;

/// Where it listens.
const PORT: u16 = 8443;

/// Its certificates are of a CA of its own, of this name.
pub const ISSUER: &str = "Belay CA of inspection.lab";

#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Running. Everything the laptop sends to the relay's TCP port ends here.
#[derive(Debug)]
pub struct Interceptor {
    _listener: Listener,
}

impl Interceptor {
    /// Starts it on the laptop's way to the relay.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(world: &World) -> Result<Self> {
        tls::install_provider();
        let (ca, _) = CertificateAuthority::generate("inspection.lab", clock::now())?;
        let key = TlsKey::generate()?;
        let identity = Identity::Relay { name: "relay.lab".into() };
        let life = Duration::from_secs(3600);
        let leaf = ca.issue_for_request(&key.request_der()?, &identity, clock::now(), life)?;
        let key = tls::relay_key(leaf, ca.certificate().clone(), &key)?;
        let verifier = ClientVerifier::optional(ca.certificate().clone());
        let resolver = Arc::new(Always(Arc::new(key)));
        let config = Arc::new(tls::server(verifier, resolver, &[b"http/1.1"])?);

        let (here, relay) = (world.lab.address("internet"), world.lab.address("relay"));
        let listener =
            Listener::start(world.lab.ns("internet"), (here, PORT).into(), move |socket| {
                // Whoever does not believe it breaks off, which is the point.
                drop(answer(socket, &config));
            })?;
        world.lab.ns("internet").nft(&format!(
            "table ip inspection {{ chain take {{ type nat hook prerouting priority dstnat;
               iifname to-laptop ip daddr {relay} tcp dport 443 dnat to {here}:{PORT}
             }}; }}"
        ))?;
        Ok(Self { _listener: listener })
    }
}

fn answer(mut socket: TcpStream, config: &Arc<ServerConfig>) -> Result<()> {
    let mut tls = ServerConnection::new(Arc::clone(config))?;
    while tls.is_handshaking() {
        tls.complete_io(&mut socket).context("handshake")?;
    }
    Ok(())
}
