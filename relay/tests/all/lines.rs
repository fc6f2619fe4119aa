//! A whole relay on loopback, and devices and clients that speak to it over QUIC, byte by byte.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use belay_proto::grant::{Grant, SignedGrant};
use belay_proto::ids::{DeviceId, SessionId, UserId};
use belay_proto::policy::Role;
use belay_proto::refusal::{Code, Refused};
use belay_proto::time::UnixTime;
use belay_proto::version;
use belay_proto::wire::control::{Control, Ended, Hello, HelloAnswer, capability};
use belay_proto::wire::frame::decode_payload;
use belay_proto::wire::open::{
    Accepted, Deliver, DeliverAnswer, Join, Open, OpenAnswer, Opened, Resume, kind,
};
use belay_relay::ca::Authority;
use belay_relay::config::{self, Config};
use belay_relay::store::{
    Actor, Decision, Enrolment, LoginCode, NameWish, NewToken, SessionRecord, Store,
};
use belay_tunnel::carrier::quic::{Dialler, Role as Side};
use belay_tunnel::carrier::{Carrier, RecvHalf, SendHalf};
use belay_tunnel::framed::{self, Messages};
use belay_tunnel::pki::{RelayVerifier, TlsKey, requested_key_digest};
use belay_tunnel::{clock, tls};
use rustls_pki_types::{CertificateDer, ServerName};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::stream::Stream;
use crate::support::{Answer, IntoDigest as _, LOCAL, exchange, ssh_key};

/// Longer than anything here should take; what takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// A relay that can be stopped and started again on its data.
pub(crate) struct Site {
    dir: tempfile::TempDir,
    settings: String,
    pub(crate) authority: Authority,
    pub(crate) store: Store,
    pub(crate) admin: UserId,
    relay: Option<Running>,
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(relay) = &self.relay {
            relay.stop.cancel();
        }
    }
}

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

/// Who somebody is on the wire.
pub(crate) struct Identity {
    key: TlsKey,
    certificate: CertificateDer<'static>,
    side: Side,
}

impl Identity {
    /// What it signs with.
    pub(crate) fn key(&self) -> &TlsKey {
        &self.key
    }
}

pub(crate) struct Device {
    pub(crate) carrier: Carrier,
    says: mpsc::UnboundedSender<Control>,
    ended: mpsc::UnboundedReceiver<Ended>,
    pongs: mpsc::UnboundedReceiver<u64>,
    _converses: AbortOnDropHandle<()>,
    _dialler: Dialler,
}

pub(crate) struct Client {
    pub(crate) carrier: Carrier,
    _send: SendHalf,
    control: Messages<RecvHalf>,
    _dialler: Dialler,
}

impl Site {
    pub(crate) async fn start(settings: &str) -> Self {
        tls::install_provider();
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::make(dir.path(), LOCAL, clock::now()).unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let settings = settings.to_owned();
        let admin = person(&store, "root", vec![Role::Administrator]).await;
        let mut site = Self { dir, settings, authority, store, admin, relay: None };
        site.start_relay().await;
        site
    }

    /// The relay's data directory.
    pub(crate) fn data(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub(crate) async fn start_relay(&mut self) {
        let settings = &self.settings;
        let drain = if settings.contains("drain_seconds") { "" } else { "drain_seconds = 0\n" };
        let text = format!("address = \"{LOCAL}:1\"\nlisten = \"{LOCAL}:0\"\n{drain}{settings}");
        std::fs::write(self.dir.path().join(config::FILE), text).unwrap();
        let config = Config::load(self.dir.path()).unwrap();
        let stop = CancellationToken::new();
        let (ready, listening) = tokio::sync::oneshot::channel();
        let ready = move |address| ready.send(address).unwrap();
        let stopping = stop.clone();
        // With a runtime of its own, as the program has: what it leaves behind ends with it.
        let task = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(belay_relay::run::run(config, stopping, ready))
        });
        let address = soon("the relay starts", listening).await.unwrap();
        self.relay = Some(Running { address, stop, task });
    }

    pub(crate) async fn stop_relay(&mut self) {
        let Running { stop, task, .. } = self.relay.take().unwrap();
        stop.cancel();
        timeout(Duration::from_secs(60), task).await.unwrap().unwrap().unwrap();
    }

    pub(crate) async fn add_person(&self, name: &str, roles: Vec<Role>) -> UserId {
        person(&self.store, name, roles).await
    }

    pub(crate) async fn add_device(&self, name: &str) -> (DeviceId, Identity) {
        let key = TlsKey::generate().unwrap();
        let csr = key.request_der().unwrap();
        let ssh = ssh_key().0;
        let token = Uuid::now_v7().into_digest();
        let new = NewToken {
            digest: token,
            expires: clock::now().plus(Duration::from_secs(60)),
            uses: 1,
            pattern: None,
            labels: [("site".parse().unwrap(), "oslo".parse().unwrap())].into(),
        };
        let source = SocketAddr::from(([127, 0, 0, 1], 1));
        self.store.create_token(new, self.admin, source).await.unwrap();
        let enrolment = Enrolment {
            token,
            key_digest: requested_key_digest(&csr).unwrap(),
            wish: NameWish::Exactly(name.parse().unwrap()),
            ssh_host_key: ssh.clone(),
            hostname: name.to_owned(),
            platform: String::new(),
            software: String::new(),
            now: clock::now(),
            certificate_ends: clock::now().plus(Duration::from_secs(3600)),
            source,
            note: String::new(),
        };
        let id = self.store.enrol(enrolment).await.unwrap().id;
        let name = name.parse().unwrap();
        let issued = self.authority.issue_device(id, &name, &csr, &ssh, clock::now()).unwrap();
        (id, Identity { key, certificate: issued.certificate, side: Side::Device })
    }

    pub(crate) async fn dial(&self, who: &Identity) -> (Dialler, Carrier) {
        soon("a handshake", self.dialled(who)).await
    }

    /// Borrows nothing, so that the relay can be stopped meanwhile.
    pub(crate) fn dialled(
        &self,
        who: &Identity,
    ) -> impl Future<Output = (Dialler, Carrier)> + use<> {
        let address = self.relay.as_ref().unwrap().address;
        let own = (vec![who.certificate.clone()], who.key.to_der());
        let verifier = RelayVerifier::pinned(self.authority.ca().clone(), UnixTime(0));
        let config = tls::client(verifier, Some(own), &[version::ALPN]).unwrap();
        let dialler = Dialler::new(who.side, config, address).unwrap();
        async move {
            let carrier = dialler.dial(address, LOCAL).await.unwrap();
            (dialler, carrier)
        }
    }

    pub(crate) async fn line(
        &self,
        (_, who): &(DeviceId, Identity),
        sessions: &[SessionId],
    ) -> Device {
        self.try_line(who, sessions).await.unwrap()
    }

    pub(crate) async fn try_line(
        &self,
        who: &Identity,
        sessions: &[SessionId],
    ) -> Result<Device, Refused> {
        let can = Some(vec![capability::ATTACH.to_owned()]);
        self.try_line_of(who, sessions, can).await
    }

    /// A device whose agent names no capabilities.
    pub(crate) async fn old_line(&self, device: &(DeviceId, Identity)) -> Device {
        self.try_line_of(&device.1, &[], None).await.unwrap()
    }

    /// A device whose agent records.
    pub(crate) async fn recording_line(
        &self,
        device: &(DeviceId, Identity),
        sessions: &[SessionId],
    ) -> Device {
        self.capable_line(device, sessions, &[capability::ATTACH, capability::RECORD]).await
    }

    /// A device whose agent can do this.
    pub(crate) async fn capable_line(
        &self,
        device: &(DeviceId, Identity),
        sessions: &[SessionId],
        capabilities: &[&str],
    ) -> Device {
        let can = capabilities.iter().map(ToString::to_string).collect();
        self.try_line_of(&device.1, sessions, Some(can)).await.unwrap()
    }

    async fn try_line_of(
        &self,
        who: &Identity,
        sessions: &[SessionId],
        capabilities: Option<Vec<String>>,
    ) -> Result<Device, Refused> {
        let (dialler, carrier) = self.dial(who).await;
        let (send, control) = greet(&carrier, Some(sessions.to_vec()), capabilities).await?;
        let (says, saying) = mpsc::unbounded_channel();
        let (told, ended) = mpsc::unbounded_channel();
        let (answered, pongs) = mpsc::unbounded_channel();
        let (up, is_up) = tokio::sync::oneshot::channel();
        let converses = tokio::spawn(converse(send, control, saying, (told, answered), up));
        soon("the line is up", is_up).await.unwrap();
        let _converses = AbortOnDropHandle::new(converses);
        Ok(Device { carrier, says, ended, pongs, _converses, _dialler: dialler })
    }

    fn person(&self, id: UserId, name: &str) -> Identity {
        let key = TlsKey::generate().unwrap();
        let csr = key.request_der().unwrap();
        let name = name.parse().unwrap();
        let ssh = ssh_key().0;
        let issued = self.authority.issue_user(id, &name, &csr, &ssh, clock::now()).unwrap();
        Identity { key, certificate: issued.certificate, side: Side::Client }
    }

    /// A client of this person, over a carrier of its own.
    pub(crate) async fn client(&self, id: UserId, name: &str) -> Client {
        let (dialler, carrier) = self.dial(&self.person(id, name)).await;
        let (send, control) = greet(&carrier, None, None).await.unwrap();
        Client { carrier, _send: send, control, _dialler: dialler }
    }

    pub(crate) async fn root(&self) -> Client {
        self.client(self.admin, "root").await
    }

    pub(crate) async fn session(&self, id: SessionId) -> SessionRecord {
        self.store.session(id).await.unwrap().unwrap()
    }

    /// What was recorded of a session, as far as it is; waits until the last is of this kind. Grants,
    /// which each handing over has one of, are told of apart (`evidence`).
    pub(crate) async fn recorded(&self, id: SessionId, last: &str) -> Vec<Decision> {
        let told = async {
            loop {
                let all = self.store.decisions(0).await.unwrap();
                let own = all.into_iter().filter(|d| d.session == Some(id));
                let told: Vec<_> = own.filter(|d| d.kind != "grant-issued").collect();
                if told.last().is_some_and(|d| d.kind == last) {
                    return told;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon(&format!("{last} is recorded"), told).await
    }

    /// A change by the administrator, over the HTTPS interface: only the relay's own store tells
    /// it of changes.
    pub(crate) async fn patch(&self, path: &str, change: &impl Serialize) {
        let answer = self.administer("PATCH", path, Some(change)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// A request by the administrator.
    pub(crate) async fn administer(
        &self,
        method: &'static str,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Answer {
        let body = body.map(|body| serde_json::to_string(body).unwrap());
        self.ask((self.admin, "root"), method, path, body.as_deref()).await
    }

    /// A person asks the HTTPS interface of the relay that runs.
    pub(crate) async fn ask(
        &self,
        who: (UserId, &str),
        method: &'static str,
        path: &str,
        body: Option<&str>,
    ) -> Answer {
        self.asking(who, method, path.to_owned(), body.map(str::to_owned)).await
    }

    /// The same, of nothing that is borrowed.
    pub(crate) fn asking(
        &self,
        (id, name): (UserId, &str),
        method: &'static str,
        path: String,
        body: Option<String>,
    ) -> impl Future<Output = Answer> + Send + use<> {
        let address = self.relay.as_ref().unwrap().address;
        let who = self.person(id, name);
        let own = (vec![who.certificate], who.key.to_der());
        let verifier = RelayVerifier::pinned(self.authority.ca().clone(), UnixTime(0));
        let config = tls::client(verifier, Some(own), &[b"http/1.1"]).unwrap();
        async move {
            let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
            let name = ServerName::try_from(LOCAL).unwrap();
            let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
            exchange(tls, method, &path, body.as_deref(), "").await.unwrap()
        }
    }
}

async fn person(store: &Store, name: &str, roles: Vec<Role>) -> UserId {
    let code = LoginCode { digest: Uuid::now_v7().into_digest(), expires: clock::now() };
    store.add_user(name.parse().unwrap(), roles, code, Actor::Machine).await.unwrap()
}

async fn greet(
    carrier: &Carrier,
    sessions: Option<Vec<SessionId>>,
    capabilities: Option<Vec<String>>,
) -> Result<(SendHalf, Messages<RecvHalf>), Refused> {
    let (mut send, recv) = carrier.open().await.unwrap();
    let hello = Hello {
        newest: Some(version::PROTOCOL),
        oldest: Some(version::OLDEST),
        clock: Some(clock::now()),
        sessions,
        capabilities,
        ..Hello::default()
    };
    framed::write(&mut send, &hello).await.unwrap();
    let mut recv = Messages::new(recv);
    let answer = soon("an answer to Hello", recv.next::<HelloAnswer>()).await.unwrap().unwrap();
    match answer.refused {
        Some(refused) => Err(refused),
        None => Ok((send, recv)),
    }
}

/// A device's control stream: answers probes, says what it is given to say, and tells what it is
/// to end. Nothing comes before the line is up.
async fn converse(
    mut send: SendHalf,
    mut control: Messages<RecvHalf>,
    mut saying: mpsc::UnboundedReceiver<Control>,
    (told, answered): (mpsc::UnboundedSender<Ended>, mpsc::UnboundedSender<u64>),
    up: tokio::sync::oneshot::Sender<()>,
) {
    let mut up = Some(up);
    loop {
        let message = tokio::select! {
            Some(message) = saying.recv() => message,
            message = control.next::<Control>() => {
                let Ok(Some(message)) = message else { return };
                if let Some(up) = up.take() {
                    up.send(()).unwrap();
                }
                if let Some(ended) = message.ended {
                    told.send(ended).ok();
                }
                if let Some(pong) = message.pong {
                    answered.send(pong).ok();
                }
                let Some(ping) = message.ping else { continue };
                Control { pong: Some(ping), ..Control::default() }
            }
        };
        if framed::write(&mut send, &message).await.is_err() {
            return;
        }
    }
}

/// The next of these messages that is about a session's end.
async fn next_ended(control: &mut Messages<RecvHalf>) -> Option<Ended> {
    loop {
        match control.next::<Control>().await {
            Ok(Some(Control { ended: Some(ended), .. })) => return Some(ended),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}

impl Device {
    /// The next session that is delivered, its grant read but not answered.
    pub(crate) async fn delivered(&self) -> (Grant, Stream) {
        let (send, mut recv) = soon("a session is delivered", self.carrier.accept()).await.unwrap();
        let deliver: Deliver = framed::read(&mut recv).await.unwrap();
        let signed: SignedGrant = decode_payload(&deliver.grant).unwrap();
        (decode_payload(&signed.grant).unwrap(), Stream { send, recv })
    }

    /// The next one, taken.
    pub(crate) async fn takes(&self) -> (Grant, Stream) {
        let (grant, mut stream) = self.delivered().await;
        let answer = DeliverAnswer { accepted: Some(Accepted {}), refused: None };
        framed::write(&mut stream.send, &answer).await.unwrap();
        (grant, stream)
    }

    /// The next one, refused.
    pub(crate) async fn refuses(&self, code: Code, cause: &str) -> Grant {
        let (grant, mut stream) = self.delivered().await;
        let refused = Some(Refused::new(code, cause, ""));
        let answer = DeliverAnswer { accepted: None, refused };
        framed::write(&mut stream.send, &answer).await.unwrap();
        stream.send.finish();
        grant
    }

    pub(crate) fn says_ended(&self, session: SessionId, cause: &str) {
        let reason = Refused::new(Code::Internal, cause, "");
        let ended = Some(Ended { session, reason });
        self.says.send(Control { ended, ..Control::default() }).unwrap();
    }

    /// Waits until the relay has taken in all that this device said.
    pub(crate) async fn is_heard(&mut self) {
        self.says.send(Control { ping: Some(1), ..Control::default() }).unwrap();
        assert_eq!(soon("the relay answers", self.pongs.recv()).await, Some(1));
    }

    /// What it is told to end next; `None` when its line ended first.
    pub(crate) async fn told_to_end(&mut self) -> Option<Ended> {
        soon("the device is told", self.ended.recv()).await
    }

    pub(crate) async fn vanish(self) {
        self.carrier.close(belay_tunnel::carrier::ResetCode::GONE, "");
        self.carrier.closed().await;
    }
}

impl Client {
    async fn ask(&self, open: &Open) -> Result<(OpenAnswer, Stream), Refused> {
        let (mut send, mut recv) = self.carrier.open().await.unwrap();
        framed::write(&mut send, open).await.unwrap();
        let answer = timeout(Duration::from_secs(40), framed::read(&mut recv)).await;
        match answer.unwrap() {
            Ok(answer) => Ok((answer, Stream { send, recv })),
            // What a relay that stops says to everybody may come before what it says to one.
            Err(error) => {
                let (code, said) = self.carrier.closed().await.peer_said().unwrap();
                assert_eq!(code.0, u32::from(Code::Draining.number()), "{error}: {said}");
                Err(Refused::new(Code::Draining, said, ""))
            }
        }
    }

    pub(crate) async fn asks(&self, open: &Open) -> Result<(Opened, Stream), Refused> {
        let (answer, stream) = self.ask(open).await?;
        match (answer.opened, answer.refused) {
            (Some(opened), None) => Ok((opened, stream)),
            (None, Some(refused)) => Err(refused),
            (opened, refused) => panic!("{opened:?} {refused:?}"),
        }
    }

    pub(crate) async fn opens(&self, device: &str) -> Result<(Opened, Stream), Refused> {
        self.asks(&Open {
            device: Some(device.to_owned()),
            kind: Some(kind::SSH.to_owned()),
            login: Some("support".parse().unwrap()),
            ..Open::default()
        })
        .await
    }

    /// Asks for a session that joins another.
    pub(crate) async fn joins(&self, join: Join) -> Result<(Opened, Stream), Refused> {
        let open = Open { kind: Some(kind::SSH.to_owned()), ..Open::default() };
        self.joins_as(join, open).await
    }

    /// The same, saying this of the session that is joined.
    pub(crate) async fn joins_as(
        &self,
        join: Join,
        open: Open,
    ) -> Result<(Opened, Stream), Refused> {
        self.asks(&Open { join: Some(join), ..open }).await
    }

    pub(crate) async fn resumes(
        &self,
        session: SessionId,
        wait_seconds: Option<u32>,
    ) -> Result<(Opened, Stream), Refused> {
        self.resumes_as(session, wait_seconds, Open::default()).await
    }

    pub(crate) async fn resumes_as(
        &self,
        session: SessionId,
        wait_seconds: Option<u32>,
        open: Open,
    ) -> Result<(Opened, Stream), Refused> {
        let resume = Resume { session, wait_seconds, anew: None, stream: None };
        self.asks(&Open { resume: Some(resume), ..open }).await
    }

    /// Asks for a session that another client has or had.
    pub(crate) async fn takes_over(&self, session: SessionId) -> Result<(Opened, Stream), Refused> {
        let resume = Resume { session, wait_seconds: None, anew: Some(true), stream: None };
        self.asks(&Open { resume: Some(resume), ..Open::default() }).await
    }

    /// Asks for this stream of a session again.
    pub(crate) async fn resumes_stream(
        &self,
        session: SessionId,
        stream: u32,
    ) -> Result<(Opened, Stream), Refused> {
        let resume = Resume { session, wait_seconds: None, anew: None, stream: Some(stream) };
        self.asks(&Open { resume: Some(resume), ..Open::default() }).await
    }

    /// What it is told of a session's end.
    pub(crate) async fn told(&mut self) -> Ended {
        soon("the client is told", next_ended(&mut self.control)).await.unwrap()
    }

    pub(crate) async fn vanish(self) {
        self.carrier.close(belay_tunnel::carrier::ResetCode::DONE, "");
        self.carrier.closed().await;
    }
}
