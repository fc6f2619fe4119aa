//! The far end of a supervised session: an engineer's SSH client over the resume layer, and the
//! doors, keys and orders of one test.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use belay_agent::worker::door::{self, Errand};
use belay_agent::worker::{Worker, WorkerEvent, WorkerOrder, spawn};
use belay_proto::wire::open::ResumeWindows;
use belay_tunnel::stream::{self, Attacher, Carried, Joined, Reader, Writer, join};
use russh::client::{self, AuthResult, Handle, Handler};
use russh::keys::{Certificate, PrivateKey};
use russh::{Channel, ChannelMsg, client::Msg};
use ssh_key::certificate::{Builder, CertType};
use ssh_key::private::Ed25519Keypair;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::rig::{AGENT, PATIENCE};

const CA: u8 = 1;
const HOST: u8 = 2;
const ENGINEER: u8 = 3;

pub(crate) const WINDOWS: ResumeWindows = ResumeWindows { interactive: 600, other: 600 };

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
}

/// A certificate of the authority's for the engineer's key, good from and until so many seconds
/// from now.
pub(crate) fn certificate(from: i64, until: i64) -> Certificate {
    let now = i64::try_from(belay_tunnel::clock::now().0).unwrap();
    let at = |offset: i64| u64::try_from(now + offset).unwrap();
    let mut builder =
        Builder::new(vec![1; 16], key(ENGINEER).public_key(), at(from), at(until)).unwrap();
    builder.cert_type(CertType::User).unwrap();
    builder.valid_principal("ada").unwrap();
    builder.key_id("ada@laptop").unwrap();
    builder.extension("permit-pty", "").unwrap();
    builder.extension("permit-port-forwarding", "").unwrap();
    builder.sign(&key(CA)).unwrap()
}

pub(crate) fn order() -> WorkerOrder {
    let host_key = key(HOST).to_openssh(ssh_key::LineEnding::LF).unwrap();
    WorkerOrder {
        session: uuid::Uuid::from_u128(7),
        user: "ada".into(),
        login: us(),
        actions: vec!["exec".into(), "shell".into()],
        host_key: host_key.as_bytes().to_vec().into(),
        host_certificate: None,
        user_cas: vec![key(CA).public_key().to_openssh().unwrap()],
        clock_correction: 0,
        expires_at: u64::MAX,
        obligations: vec![],
        env: vec![("SITE".into(), "oslo".into())],
        windows: WINDOWS,
        recipients: vec![],
        joins: None,
    }
}

/// The account these tests run as.
fn us() -> String {
    nix::unistd::User::from_uid(nix::unistd::Uid::current()).unwrap().unwrap().name
}

/// A worker, and where its door is.
pub(crate) struct Device {
    _dir: TempDir,
    pub(crate) door: PathBuf,
    pub(crate) worker: Worker,
    _ward: Ward,
}

/// Ends a worker with its test: by itself it outlives whoever started it.
pub(crate) struct Ward(u32);

impl Ward {
    pub(crate) fn of(worker: &Worker) -> Self {
        Self(worker.pid().expect("it was just started"))
    }
}

impl Drop for Ward {
    fn drop(&mut self) {
        // Its number may be another's by now.
        let ours = std::fs::read_link(format!("/proc/{}/exe", self.0));
        if ours.is_ok_and(|exe| exe == Path::new(AGENT)) {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0).unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
        }
    }
}

impl Device {
    pub(crate) async fn start(order: &WorkerOrder) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let door = dir.path().join("door");
        let worker = start_at(order, &door).await;
        let ward = Ward::of(&worker);
        Self { _dir: dir, door, worker, _ward: ward }
    }

    /// Starts one, and waits until it is the login user.
    pub(crate) async fn started(order: &WorkerOrder) -> Self {
        let mut device = Self::start(order).await;
        assert!(matches!(device.next().await, WorkerEvent::Started { .. }));
        device
    }

    pub(crate) async fn next(&mut self) -> WorkerEvent {
        next(&mut self.worker.control).await.expect("an event")
    }

    /// Whether the worker's process runs.
    pub(crate) fn runs(&self) -> bool {
        self.worker.pid().is_some_and(runs)
    }
}

pub(crate) async fn start_at(order: &WorkerOrder, door: &Path) -> Worker {
    let listener = UnixListener::bind(door).unwrap();
    spawn(order, Path::new(AGENT), listener).await.unwrap()
}

pub(crate) async fn next(line: &mut belay_agent::worker::ControlLine) -> Option<WorkerEvent> {
    timeout(PATIENCE, line.next()).await.unwrap().unwrap()
}

/// Waits for the event that is wanted, past others.
pub(crate) async fn past(
    line: &mut belay_agent::worker::ControlLine,
    mut wanted: impl FnMut(&WorkerEvent) -> bool,
) -> WorkerEvent {
    loop {
        let event = next(line).await.expect("the event that is waited for");
        if wanted(&event) {
            return event;
        }
    }
}

pub(crate) fn runs(pid: u32) -> bool {
    // A zombie has no program any more.
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}

pub(crate) async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let wait = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// The engineer's end of the session's stream.
pub(crate) struct Laptop {
    pub(crate) attacher: Attacher,
    stream: Option<Joined>,
}

impl Laptop {
    pub(crate) fn new() -> Self {
        let (send, recv, attacher) = stream::session(stream::Config::default());
        Self { attacher, stream: Some(join(send, recv)) }
    }

    /// Attaches to a worker. Aborting the task cuts the attachment, whatever is under way.
    pub(crate) async fn attach(&self, door: &Path) -> JoinHandle<Carried> {
        let socket = door::connect(door, Errand::Attach).await.unwrap();
        let (read, write) = socket.into_split();
        let attacher = self.attacher.clone();
        tokio::spawn(async move { attacher.carry(Reader::new(read), Writer::new(write)).await })
    }

    /// SSH over it; `false` when the certificate was not taken.
    pub(crate) async fn log_in(&mut self, certificate: Certificate) -> (Handle<Trusting>, bool) {
        Self::log_in_over(self.bytes(), certificate).await
    }

    /// The session's bytes, once.
    pub(crate) fn bytes(&mut self) -> Joined {
        self.stream.take().unwrap()
    }

    /// The same over anything that leads there.
    pub(crate) async fn log_in_over<S>(
        stream: S,
        certificate: Certificate,
    ) -> (Handle<Trusting>, bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let config = client::Config { inactivity_timeout: None, ..client::Config::default() };
        let connecting = client::connect_stream(Arc::new(config), stream, Trusting);
        let mut handle = timeout(PATIENCE, connecting).await.unwrap().unwrap();
        let asked = handle.authenticate_openssh_cert(us(), Arc::new(key(ENGINEER)), certificate);
        let answer = timeout(PATIENCE, asked).await.unwrap().unwrap();
        (handle, matches!(answer, AuthResult::Success))
    }

    /// A worker, a first attachment, and an engineer who is in.
    pub(crate) async fn arrive(device: &Device) -> (Self, Handle<Trusting>, JoinHandle<Carried>) {
        let mut laptop = Self::new();
        let attachment = laptop.attach(&device.door).await;
        let (handle, taken) = laptop.log_in(certificate(-60, 600)).await;
        assert!(taken, "the certificate was not taken");
        (laptop, handle, attachment)
    }
}

pub(crate) struct Trusting;

impl Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

/// A command that runs.
pub(crate) async fn exec(handle: &Handle<Trusting>, command: &str) -> Channel<Msg> {
    let channel = timeout(PATIENCE, handle.channel_open_session()).await.unwrap().unwrap();
    channel.exec(true, command).await.unwrap();
    channel
}

/// All that comes out, and the exit status.
pub(crate) async fn output(channel: &mut Channel<Msg>) -> (Vec<u8>, Option<u32>) {
    let (mut out, mut status) = (Vec::new(), None);
    let read = async {
        while let Some(message) = channel.wait().await {
            #[allow(clippy::wildcard_enum_match_arm, reason = "tests")]
            match message {
                ChannelMsg::Data { data } => out.extend_from_slice(&data),
                ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
                _ => {}
            }
        }
    };
    timeout(PATIENCE, read).await.unwrap();
    (out, status)
}

/// Says a line to a channel that echoes, and waits until it is back.
pub(crate) async fn echo(channel: &mut Channel<Msg>, line: &str) {
    channel.data(line.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    let read = async {
        while heard.len() < line.len() {
            let message = channel.wait().await.expect("the channel is open");
            if let ChannelMsg::Data { data } = message {
                heard.extend_from_slice(&data);
            }
        }
    };
    timeout(PATIENCE, read).await.unwrap_or_else(|_| panic!("no echo of {line}"));
    assert_eq!(String::from_utf8_lossy(&heard), line);
}
