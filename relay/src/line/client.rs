//! One person's client: its control stream, and the sessions it opens or takes up again.

use std::sync::Arc;
use std::time::Duration;

use belay_proto::refusal::Refused;
use belay_proto::wire::control::{Control as Message, Ended};
use belay_tunnel::carrier::Carrier;
use belay_tunnel::framed;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Shared;
use super::admit::{AdmittedClient, Control};
use super::session::{self, Caller};

/// Streams one client may have open at once beside its control stream.
const CLIENT_STREAMS: u32 = 65;

/// Words about ended sessions waiting to be sent. A client that does not read them loses them;
/// its streams are reset all the same.
const NOTICES: usize = 16;

/// How long a control message may take to be taken from us.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);

/// How long streams may take to record their end: the store's own patience, and some.
const SESSIONS_END: Duration = Duration::from_secs(30);

/// Holds an admitted client's connection until it ends. Its sessions' streams end with it, and the
/// sessions wait for it on the device.
pub(super) async fn hold(carrier: Carrier, admitted: AdmittedClient, shared: &Arc<Shared>) {
    let AdmittedClient { user, mut control } = admitted;
    carrier.admit(CLIENT_STREAMS, u32::MAX);
    let guard = shared.registry.insert_client(user.id);
    let peer = carrier.remote_address();
    tracing::debug!(user = %user.name, %peer, "client connected");
    let (notices, mut waiting) = mpsc::channel(NOTICES);
    let mut sessions = JoinSet::new();
    let told = loop {
        tokio::select! {
            reason = guard.ended() => break Some(reason),
            stream = carrier.accept() => {
                let Ok((send, recv)) = stream else { break None };
                let caller = Caller {
                    user: user.clone(),
                    carrier: carrier.clone(),
                    address: carrier.remote_address(),
                    notices: notices.clone(),
                };
                let shared = Arc::clone(shared);
                sessions.spawn(async move { session::serve(send, recv, caller, &shared).await });
            }
            Some(ended) = sessions.join_next(), if !sessions.is_empty() => {
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!(user = %user.name, %error, "a session's task panicked");
                }
            }
            Some(ended) = waiting.recv() => {
                if tell(&mut control, Message { ended: Some(ended), ..Message::default() })
                    .await
                    .is_err()
                {
                    break None;
                }
            }
            message = control.recv.next::<Message>() => match message {
                Ok(Some(Message { ping: Some(number), .. })) => {
                    let pong = Message { pong: Some(number), ..Message::default() };
                    if tell(&mut control, pong).await.is_err() {
                        break None;
                    }
                }
                Ok(Some(_)) => {}
                // A client may close its control stream and keep its sessions; one that breaks the
                // protocol may not.
                Ok(None) => {
                    finish_sessions(&carrier, &mut sessions, &guard).await;
                    break None;
                }
                Err(_) => break None,
            }
        }
    };
    match told {
        Some(refused) => goodbye(&carrier, &mut control, &refused).await,
        None => super::hang_up(&carrier),
    }
    // With the carrier gone every stream ends by itself, and records that it did.
    let ended = timeout(SESSIONS_END, async { while sessions.join_next().await.is_some() {} });
    if ended.await.is_err() {
        tracing::error!(user = %user.name, open = sessions.len(), "sessions outlived their client");
    }
    tracing::debug!(user = %user.name, %peer, "client gone");
}

async fn finish_sessions(
    carrier: &Carrier,
    sessions: &mut JoinSet<()>,
    guard: &super::registry::ClientGuard,
) {
    loop {
        tokio::select! {
            ended = sessions.join_next() => if ended.is_none() { return },
            _ = guard.ended() => return,
            _ = carrier.closed() => return,
        }
    }
}

async fn tell(control: &mut Control, message: Message) -> Result<(), ()> {
    match timeout(WRITE_DEADLINE, framed::write(&mut control.send, &message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(()),
    }
}

async fn goodbye(carrier: &Carrier, control: &mut Control, refused: &Refused) {
    let message = Message { goodbye: Some(refused.clone()), ..Message::default() };
    if tell(control, message).await.is_ok() {
        control.send.finish();
        let read = timeout(Duration::from_secs(1), control.send.stopped()).await;
        tracing::trace!(read = read.is_ok(), "said goodbye");
    }
    super::admit::close(carrier, refused);
}

/// A word about a session that was cut.
pub(super) fn notice(session: belay_proto::ids::SessionId, reason: &Refused) -> Ended {
    Ended { session, reason: reason.clone() }
}
