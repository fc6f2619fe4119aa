//! One authenticated SSH connection to a device.

use std::borrow::Cow;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use belay_proto::names::Login as LoginName;
use belay_proto::refusal::Code;
use belay_tunnel::stream::join;
use russh::client::{AuthResult, Config, Handle, connect_stream};
use russh::{Preferred, SshId, cipher, compression, kex, mac};
use ssh_key::Algorithm;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::events::{Events, Shared, State, TrustNow};
use super::host_cert::HostTrust;
use crate::device_ref::DeviceRef;
use crate::failure::Failure;
use crate::home::{Home, Login, SshIdentity};
use crate::kept::{Answer, Entry, Kept, Session};
use crate::line::Line;
use crate::stdio::Sink;

/// Key exchange and authentication: five round trips and a worker's start.
const CONNECT_WITHIN: Duration = Duration::from_secs(40);

/// Bytes in flight to us on the channel: 1.3 Gbit/s at 100 ms.
const WINDOW: u32 = 16 * 1024 * 1024;

/// Largest packet of channel data; each costs one seal, one tag and one pass through the library.
const PACKET: u32 = 65_535;

/// Our last words only have to reach the carrier.
const HANG_UP_WITHIN: Duration = Duration::from_millis(20);

/// How long the keeper may take to say why the session ended under the handshake.
const LAST_WORDS: Duration = Duration::from_secs(1);

const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
];
const CIPHERS: &[cipher::Name] =
    &[cipher::AES_256_GCM, cipher::AES_128_GCM, cipher::CHACHA20_POLY1305];
/// Named for the record only: every cipher above authenticates by itself.
const MACS: &[mac::Name] = &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM];

fn config() -> Config {
    Config {
        client_id: SshId::Standard(Cow::Borrowed(concat!(
            "SSH-2.0-belay_",
            env!("CARGO_PKG_VERSION")
        ))),
        window_size: WINDOW,
        maximum_packet_size: PACKET,
        preferred: Preferred {
            kex: Cow::Borrowed(KEX),
            // Certificates only: a bare key could not be judged.
            key: Cow::Borrowed(&[]),
            host_key_certificates: Cow::Borrowed(&[Algorithm::Ed25519]),
            cipher: Cow::Borrowed(CIPHERS),
            mac: Cow::Borrowed(MACS),
            compression: Cow::Borrowed(&[compression::NONE]),
        },
        inactivity_timeout: None,
        // Whether the device is there, the line below knows; and a session outlives its line.
        keepalive_interval: None,
        nodelay: true,
        ..Config::default()
    }
}

/// An authenticated connection.
pub struct Connected {
    pub(super) handle: Handle<Events>,
    pub(super) shared: Arc<Shared>,
    pub(super) out: Arc<Sink>,
    pub(super) err: Arc<Sink>,
    /// The handle has been waited for and must not be again.
    pub(super) over: bool,
}

impl Connected {
    /// Ends the connection in order: the device is told, and the stream is finished, not reset.
    /// Nothing is waited for but our own words.
    pub async fn hang_up(mut self) {
        let hanging_up = async {
            let told = self.handle.disconnect(russh::Disconnect::ByApplication, "", "").await;
            if told.is_ok() && !self.over {
                (&mut self.handle).await.ok();
            }
        };
        // Either way it is over: on a line that takes nothing it cannot even be said.
        timeout(HANG_UP_WITHIN, hanging_up).await.ok();
    }
}

/// Opens a session over the line, or takes one over from another client, and opens SSH inside it.
///
/// # Errors
/// The relay's refusal, the device's, or what is wrong with its certificate.
pub async fn connect(
    home: &Home,
    line: Line,
    login: &Login,
    (device, account, entry): (&DeviceRef, &LoginName, Entry),
    out: Arc<Sink>,
    err: Arc<Sink>,
) -> Result<(Connected, Kept), Failure> {
    let identity = login.ssh_identity()?;
    let cas = login.ssh_host_cas()?;
    let home = home.clone();
    let of = (device, account);
    let Session { send, recv, mut kept } = match entry {
        Entry::New(glass) => Session::open(home, line, of, glass).await?,
        Entry::TakenOver(session) => Session::take_over(home, line, of, session).await?,
        Entry::Joining(join, glass) => Session::join(home, line, of, (join, glass)).await?,
    };
    let asked = device.to_string();
    let (line, answer) = (kept.first_line(), kept.answer());
    let trust: TrustNow = Box::new(move || HostTrust {
        cas: cas.clone(),
        names: names(&asked, &answer),
        now: line.relay_time(),
    });
    let shaken = handshake(join(send, recv), identity, account, trust, (out, err));
    match shaken.await {
        Ok(connected) => Ok((connected, kept)),
        // A refusal of the relay's shows inside as a stream that ended.
        Err(failure) => match timeout(LAST_WORDS, kept.end()).await {
            Ok(Err(refused)) => Err(refused),
            Ok(Ok(())) | Err(_) => Err(failure),
        },
    }
}

/// SSH over any stream: key exchange, the host's certificate, our own.
pub(super) async fn handshake<S>(
    stream: S,
    identity: SshIdentity,
    account: &LoginName,
    trust: TrustNow,
    (out, err): (Arc<Sink>, Arc<Sink>),
) -> Result<Connected, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shared = Arc::new(Shared::default());
    let events = Events {
        shared: Arc::clone(&shared),
        trust,
        out: Arc::clone(&out),
        err: Arc::clone(&err),
        first_kex: true,
    };
    let connecting = async {
        let mut handle = connect_stream(Arc::new(config()), stream, events).await?;
        let result = handle
            .authenticate_openssh_cert(account.as_str(), identity.key, identity.certificate)
            .await?;
        Ok::<_, russh::Error>((handle, result))
    };
    match timeout(CONNECT_WITHIN, connecting).await {
        Ok(Ok((handle, AuthResult::Success))) => {
            Ok(Connected { handle, shared, out, err, over: false })
        }
        Ok(Ok((_, AuthResult::Failure { .. }))) => Err(not_connected(&shared.state(), None)),
        Ok(Err(error)) => Err(not_connected(&shared.state(), Some(&error))),
        Err(_) => Err(Failure::new(
            Code::DeviceSilent.token(),
            "the device took the session and did not finish its opening",
        )
        .remedy("try again; run: belay devices")),
    }
}

/// What was asked for, and what the relay says it stands for: a device that was renamed still
/// shows its old name and its id.
fn names(asked: &str, answer: &Answer) -> Vec<String> {
    let mut names = vec![asked.to_owned()];
    if let Some(opened) = &*answer.lock().unwrap_or_else(PoisonError::into_inner) {
        names.push(opened.device.to_string());
    }
    names
}

fn not_connected(state: &State, error: Option<&russh::Error>) -> Failure {
    if let Some(host) = &state.host {
        return Failure::new("host-not-proved", host.to_string())
            .remedy("nothing was sent to it; tell your administrator");
    }
    if state.loose_kex {
        return Failure::new("host-not-proved", "the device does not do strict key exchange")
            .remedy("upgrade its agent");
    }
    if let Some(said) = state.goodbye.as_ref().or(state.banner.as_ref()) {
        return Failure::new(Code::DeviceRefused.token(), format!("the device refused: {said}"));
    }
    match error {
        Some(error) => {
            Failure::new("line-lost", format!("the session broke while it was opened: {error}"))
                .remedy("try again; run: belay doctor")
        }
        None => {
            Failure::new(Code::DeviceRefused.token(), "the device did not take your certificate")
                .remedy("run: belay login")
        }
    }
}
