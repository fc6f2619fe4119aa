//! A peer that speaks the wire itself, to say what no honest program says: with a person's or a
//! device's real certificate, from inside a node of the lab.

use std::fs;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use belay_proto::ids::SessionId;
use belay_proto::time::UnixTime;
use belay_proto::version;
use belay_proto::wire::control::{Hello, HelloAnswer};
use belay_proto::wire::open::{Open, OpenAnswer, Resume, kind};
use belay_tunnel::carrier::quic::{Dialler, Role};
use belay_tunnel::carrier::{Carrier, RecvHalf, SendHalf};
use belay_tunnel::framed::{self, Messages};
use belay_tunnel::pki::{RelayVerifier, TlsKey};
use belay_tunnel::{clock, tls};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::{DEVICE, World};

/// Whose certificate the peer shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// The administrator's.
    Admin,
    /// Another person's.
    Person(&'static str),
    /// Device `demo`'s.
    Device,
}

/// A dialled connection, not greeted yet.
pub struct RawPeer {
    /// The connection.
    pub carrier: Carrier,
    _dialler: Dialler,
}

/// The Hello of an honest peer of this build.
pub fn honest_hello() -> Hello {
    Hello {
        newest: Some(version::PROTOCOL),
        oldest: Some(version::OLDEST),
        clock: Some(clock::now()),
        software: Some("raw/0".to_owned()),
        ..Hello::default()
    }
}

impl World {
    /// Runs async work on a thread inside a node, with a runtime of its own.
    ///
    /// # Errors
    /// Of the work.
    pub fn inside<T: Send, F>(&self, node: &str, work: impl FnOnce() -> F + Send) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        self.lab.ns(node).run(|| {
            tls::install_provider();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(work())
        })?
    }

    /// The relay's socket address.
    pub fn relay_address(&self) -> SocketAddr {
        (self.lab.address("relay"), 443).into()
    }

    /// Key, certificate and CA of somebody.
    ///
    /// # Errors
    /// When their files cannot be read.
    pub fn credentials(&self, who: Identity) -> Result<Credentials> {
        let of_person = |user: &str| {
            let home = self.home(user);
            (home.join("tls.pem"), home.join("tls.pem"), home.join("ca.pem"))
        };
        let (key, certificate, ca) = match who {
            Identity::Admin => of_person("admin"),
            Identity::Person(user) => of_person(user),
            Identity::Device => {
                let state = self.device_state(DEVICE);
                (state.join("key.pem"), state.join("certificate.pem"), state.join("ca.pem"))
            }
        };
        let pem = |path| -> Result<CertificateDer<'static>> {
            Ok(CertificateDer::from_pem_slice(&fs::read(path)?)?)
        };
        Ok(Credentials {
            key: TlsKey::from_pem(&fs::read_to_string(key)?)?,
            certificate: pem(certificate)?,
            ca: pem(ca)?,
            role: match who {
                Identity::Admin | Identity::Person(_) => Role::Client,
                Identity::Device => Role::Device,
            },
            relay: self.relay_address(),
        })
    }
}

impl World {
    /// Asks for a session to be given back, as whoever holds these credentials.
    ///
    /// # Errors
    /// When the relay does not answer.
    pub fn resume_by_hand(&self, user: &'static str, session: SessionId) -> Result<OpenAnswer> {
        let credentials = self.credentials(Identity::Person(user))?;
        self.inside("laptop", || async {
            let peer = credentials.dial().await?;
            let (answer, _send, _recv) = peer.greet(&honest_hello()).await?;
            anyhow::ensure!(answer.welcome.is_some(), "{answer:?}");
            let (mut send, mut recv) = peer.carrier.open().await?;
            let resume = Some(Resume { session, wait_seconds: None, anew: None, stream: None });
            let open = Open {
                device: Some(DEVICE.to_owned()),
                kind: Some(kind::SSH.to_owned()),
                login: Some("root".parse()?),
                resume,
                join: None,
            };
            framed::write(&mut send, &open).await?;
            Ok(framed::read(&mut recv).await?)
        })
    }
}

/// What a raw peer dials with.
pub struct Credentials {
    key: TlsKey,
    certificate: CertificateDer<'static>,
    ca: CertificateDer<'static>,
    role: Role,
    relay: SocketAddr,
}

impl Credentials {
    /// The same, dialling somewhere else.
    ///
    /// # Errors
    /// When the key cannot be copied.
    pub fn aimed_at(&self, relay: SocketAddr) -> Result<Self> {
        Ok(Self {
            key: TlsKey::from_pem(&self.key.to_pem())?,
            certificate: self.certificate.clone(),
            ca: self.ca.clone(),
            role: self.role,
            relay,
        })
    }

    /// Dials. Call it inside a node.
    ///
    /// # Errors
    /// When there is no connection.
    pub async fn dial(&self) -> Result<RawPeer> {
        let own = (vec![self.certificate.clone()], self.key.to_der());
        let verifier = RelayVerifier::pinned(self.ca.clone(), UnixTime(0));
        let config = tls::client(verifier, Some(own), &[version::ALPN])?;
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let dialler = Dialler::new(self.role, config, any)?;
        let carrier = dialler.dial(self.relay, "relay.lab").await.context("dialling")?;
        Ok(RawPeer { carrier, _dialler: dialler })
    }
}

impl RawPeer {
    /// Says Hello and returns the answer, with the control stream.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn greet(
        &self,
        hello: &Hello,
    ) -> Result<(HelloAnswer, SendHalf, Messages<RecvHalf>)> {
        let (mut send, recv) = self.carrier.open().await?;
        framed::write(&mut send, hello).await?;
        let mut recv = Messages::new(recv);
        let answer = recv.next().await?.context("no answer to Hello")?;
        Ok((answer, send, recv))
    }
}
