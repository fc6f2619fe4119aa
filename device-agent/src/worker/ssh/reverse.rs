//! Listeners on the device whose connections go to the client: `-R`, and the
//! forwarded ssh-agent.
//!
//! As sshd with `GatewayPorts no`: TCP listens on loopback only, whatever
//! address was asked for. Ports below 1024 are the kernel's to give.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use russh::Channel;
use russh::server::{Handle, Msg};
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Shared;
use super::forward::forget;
use super::relay::relay;
use crate::worker::gate::{Admitted, Denied, Gate, Request};
use crate::worker::limits::CHANNELS_MAX;

/// Stands for the channel where a request has none.
pub(super) const NO_CHANNEL: u32 = u32::MAX;

/// A listener; dropping it closes it.
pub(super) struct Listening {
    _stop: DropGuard,
}

/// Where connections come from and how the client is told of them.
#[derive(Clone)]
pub(super) enum Origin {
    /// The address and port as the client knows them.
    Tcp(String, u32),
    Socket(String),
    Agent,
}

enum Listener {
    Tcp(TcpListener, Option<TcpListener>),
    Unix { listener: UnixListener, _litter: Litter },
}

/// What is removed from the file system when a listener ends.
pub(super) enum Litter {
    Directory { _owned: TempDir },
    Socket(PathBuf),
}

impl Drop for Litter {
    fn drop(&mut self) {
        if let Self::Socket(path) = self
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::debug!(%error, path = %path.display(), "a socket stays behind");
        }
    }
}

/// Binds `port` (0 for any) on loopback; returns the port it got.
pub(super) async fn listen_tcp(
    shared: &Arc<Shared>,
    gate: &Arc<Gate>,
    leave: Admitted,
    address: &str,
    port: u32,
) -> io::Result<(Listening, u32)> {
    let port = u16::try_from(port).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let got = v4.local_addr()?.port();
    // A device without IPv6 has one listener.
    let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, got)).await.ok();
    let origin = Origin::Tcp(address.to_owned(), got.into());
    Ok((listen(shared, gate, leave, Listener::Tcp(v4, v6), origin), got.into()))
}

/// Binds a Unix socket only its owner may use; one that exists is not replaced.
pub(super) fn listen_socket(
    shared: &Arc<Shared>,
    gate: &Arc<Gate>,
    leave: Admitted,
    path: &str,
) -> io::Result<Listening> {
    let listener = UnixListener::bind(path)?;
    let litter = Litter::Socket(path.into());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listen(
        shared,
        gate,
        leave,
        Listener::Unix { listener, _litter: litter },
        Origin::Socket(path.into()),
    ))
}

/// Opens the socket of a forwarded agent, in a directory of its own that only
/// the login user may enter.
pub(super) fn listen_agent(
    shared: &Arc<Shared>,
    gate: &Arc<Gate>,
    leave: Admitted,
) -> io::Result<(Listening, String)> {
    let private = std::fs::Permissions::from_mode(0o700);
    let directory = tempfile::Builder::new().prefix("belay-").permissions(private).tempdir()?;
    let path = directory.path().join("agent");
    let listener = UnixListener::bind(&path)?;
    let listener = Listener::Unix { listener, _litter: Litter::Directory { _owned: directory } };
    Ok((listen(shared, gate, leave, listener, Origin::Agent), path.display().to_string()))
}

fn listen(
    shared: &Arc<Shared>,
    gate: &Arc<Gate>,
    leave: Admitted,
    listener: Listener,
    origin: Origin,
) -> Listening {
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let (shared_again, gate) = (shared.clone(), gate.clone());
    shared.spawn(async move {
        tokio::select! {
            () = accept(&shared_again, &gate, &listener, &origin) => {}
            () = stopped.cancelled() => {}
        }
        drop(leave);
    });
    Listening { _stop: stop.drop_guard() }
}

async fn accept(shared: &Arc<Shared>, gate: &Arc<Gate>, listener: &Listener, origin: &Origin) {
    // A flood of connections waits here, not in the SSH connection.
    let slots = Arc::new(Semaphore::new(CHANNELS_MAX / 2));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a listener cannot accept");
                // Out of descriptors: others must close first.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let (shared_again, gate, origin) = (shared.clone(), gate.clone(), origin.clone());
        shared.spawn(async move {
            let _slot = slot;
            if let Err(error) = connect(&shared_again, &gate, &origin, socket, peer).await {
                tracing::info!(%error, "a connection was not forwarded");
            }
        });
    }
}

impl Listener {
    /// The connection and where it comes from.
    async fn accept(&self) -> io::Result<(OwnedFd, (String, u32))> {
        match self {
            Self::Tcp(v4, v6) => {
                let (stream, peer) = match v6 {
                    Some(v6) => tokio::select! {
                        accepted = v4.accept() => accepted?,
                        accepted = v6.accept() => accepted?,
                    },
                    None => v4.accept().await?,
                };
                stream.set_nodelay(true)?;
                Ok((stream.into_std()?.into(), (peer.ip().to_string(), peer.port().into())))
            }
            Self::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                Ok((stream.into_std()?.into(), (String::new(), 0)))
            }
        }
    }
}

async fn connect(
    shared: &Shared,
    gate: &Gate,
    origin: &Origin,
    socket: OwnedFd,
    peer: (String, u32),
) -> Result<(), Denied> {
    let from = match origin {
        Origin::Tcp(address, port) => format!("{address}:{port} from {}:{}", peer.0, peer.1),
        Origin::Socket(path) => path.clone(),
        Origin::Agent => String::new(),
    };
    let request = match origin {
        Origin::Tcp(..) | Origin::Socket(_) => Request::Reverse(&from),
        Origin::Agent => Request::Agent,
    };
    let leave = gate.admit(NO_CHANNEL, request).await?;
    let Some(handle) = shared.handle.get() else { return Ok(()) };
    let channel = open(handle, origin, &peer)
        .await
        .map_err(|error| Denied::because(format!("the client took no connection: {error}")))?;
    let id = channel.id().number();
    // Made when the client confirmed; see `Handler::channel_open_confirmation`.
    let (_, client) = channel.split();
    let Some(entry) = shared.registry.find(id) else {
        drop(client.close().await);
        return Err(Denied::because("too many channels are open"));
    };
    tracing::debug!(kind = leave.kind().word(), channel = id, "connection forwarded to the client");
    let relayed = relay(socket, &client, &entry, &leave).await;
    forget(shared, id);
    relayed.map_err(|error| Denied::because(error.to_string()))
}

async fn open(
    handle: &Handle,
    origin: &Origin,
    peer: &(String, u32),
) -> Result<Channel<Msg>, russh::Error> {
    match origin {
        Origin::Tcp(address, port) => {
            handle.channel_open_forwarded_tcpip(address, *port, &peer.0, peer.1).await
        }
        Origin::Socket(path) => handle.channel_open_forwarded_streamlocal(path).await,
        Origin::Agent => handle.channel_open_agent().await,
    }
}
