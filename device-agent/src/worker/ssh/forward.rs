//! Forwards the client opens: `-L`, `-D`, `-W`, to an address or a socket.

use russh::server::{ChannelOpenHandle, Msg};
use russh::{Channel, ChannelOpenFailure};

use super::Shared;
use super::handler::{Handler, prohibited};
use super::relay::relay;
use super::target::{self, TargetError};
use crate::worker::gate::{Denied, Request};

/// What to connect to.
pub(super) enum Target {
    Address(String, u32),
    Socket(String),
}

impl Target {
    fn name(&self) -> String {
        match self {
            Self::Address(host, port) if host.contains(':') => format!("[{host}]:{port}"),
            Self::Address(host, port) => format!("{host}:{port}"),
            Self::Socket(path) => path.clone(),
        }
    }
}

impl Handler {
    /// Asks the gate at once; resolving and connecting is the task's.
    pub(super) async fn open_forward(
        &self,
        channel: Channel<Msg>,
        target: Target,
        reply: ChannelOpenHandle,
    ) {
        let Some(gate) = self.gate.clone() else {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return;
        };
        let id = channel.id().number();
        let name = target.name();
        let leave = match gate.admit(id, Request::Forward(&name)).await {
            Ok(leave) => leave,
            Err(denied) => return reply.reject(prohibited(&denied)).await,
        };
        let entry = match self.shared.registry.open(id) {
            Ok(entry) => entry,
            Err(full) => return reply.reject(short(&full)).await,
        };
        let shared = self.shared.clone();
        self.shared.spawn(async move {
            let (_, client) = channel.split();
            match connect(&target).await {
                Ok(socket) => {
                    reply.accept().await;
                    if let Err(error) = relay(socket, &client, &entry, &leave).await {
                        tracing::warn!(%error, "a forward failed");
                    }
                }
                Err(error) => {
                    tell(&gate, id, &name, &error).await;
                    reply.reject(failure(&error)).await;
                }
            }
            forget(&shared, id);
        });
    }
}

async fn connect(target: &Target) -> Result<std::os::fd::OwnedFd, TargetError> {
    match target {
        Target::Address(host, port) => target::tcp(host, *port).await,
        Target::Socket(path) => target::socket(path).await,
    }
}

async fn tell(gate: &crate::worker::gate::Gate, id: u32, name: &str, error: &TargetError) {
    let denied = Denied::because(error.to_string());
    if let Err(gone) = gate.refuse(id, &Request::Forward(name), &denied).await {
        tracing::warn!(%gone, "a refused forward was not told");
    }
}

/// RFC 4254, section 5.1: prohibited, or connect failed, in our own words.
fn failure(error: &TargetError) -> ChannelOpenFailure {
    match error {
        TargetError::Forbidden(..) => prohibited(error),
        TargetError::Resolve(..) | TargetError::Connect(..) => {
            ChannelOpenFailure::Other { code: 2, reason: error.to_string() }
        }
    }
}

/// `SSH_OPEN_RESOURCE_SHORTAGE`, in our own words.
pub(super) fn short(reason: &impl ToString) -> ChannelOpenFailure {
    ChannelOpenFailure::Other { code: 4, reason: reason.to_string() }
}

pub(super) fn forget(shared: &Shared, id: u32) {
    shared.registry.remove(id);
}
