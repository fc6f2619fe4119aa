//! Asking the relay for more of a recording, and how the session stands, for as long as it takes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use belay_proto::api::{Session, path};
use belay_proto::ids::SessionId;
use bytes::Bytes;
use tokio::time::sleep;

use crate::api::{Api, path_of};
use crate::failure::Failure;
use crate::home::Home;

/// Between two attempts to reach a relay that is away.
const PAUSE: Duration = Duration::from_secs(1);

/// Between two looks at how the session stands.
const LOOK_EVERY: Duration = Duration::from_secs(3);

type Pending<T> = Pin<Box<dyn Future<Output = Result<T, Failure>>>>;

/// News of a recording.
pub(super) enum News {
    /// More of the file; nothing, when nothing came for a while.
    Bytes(Bytes),
    /// How the session stands.
    Session(Box<Session>),
    /// The relay could not be asked. It is asked again.
    Away(Failure),
}

/// Where news come from.
pub(super) struct Feed {
    home: Home,
    session: SessionId,
    from: usize,
    bytes: Pending<Bytes>,
    look: Pending<Session>,
}

impl Feed {
    /// From the recording's first byte.
    pub(super) fn new(home: Home, api: Arc<Api>, session: SessionId) -> Self {
        let bytes = more(Ok(Arc::clone(&api)), session, 0, Duration::ZERO);
        let look = look(Ok(api), session);
        Self { home, session, from: 0, bytes, look }
    }

    /// The next news. Cancel-safe.
    ///
    /// # Errors
    /// What no waiting mends.
    pub(super) async fn next(&mut self) -> Result<News, Failure> {
        tokio::select! {
            bytes = &mut self.bytes => match bytes {
                Ok(bytes) => {
                    self.from += bytes.len();
                    self.bytes = more(self.api(), self.session, self.from, Duration::ZERO);
                    Ok(News::Bytes(bytes))
                }
                Err(failure) if will_pass(&failure) => {
                    self.bytes = more(self.api(), self.session, self.from, PAUSE);
                    Ok(News::Away(failure))
                }
                Err(failure) => Err(failure),
            },
            looked = &mut self.look => {
                self.look = look(self.api(), self.session);
                match looked {
                    Ok(session) => Ok(News::Session(Box::new(session))),
                    Err(failure) if will_pass(&failure) => Ok(News::Away(failure)),
                    Err(failure) => Err(failure),
                }
            }
        }
    }

    /// Of the login as it is now: somebody may have logged in again.
    fn api(&self) -> Result<Arc<Api>, Failure> {
        Api::of_home(&self.home).map(Arc::new)
    }
}

fn more(
    api: Result<Arc<Api>, Failure>,
    session: SessionId,
    from: usize,
    pause: Duration,
) -> Pending<Bytes> {
    let path = path_of(path::RECORDING_LIVE, &session.to_string());
    let path = path_of(&path, &from.to_string());
    Box::pin(async move {
        sleep(pause).await;
        api?.bytes(&path).await
    })
}

fn look(api: Result<Arc<Api>, Failure>, session: SessionId) -> Pending<Session> {
    let path = path_of(path::SESSION, &session.to_string());
    Box::pin(async move {
        sleep(LOOK_EVERY).await;
        api?.get(&path).await
    })
}

/// Whether it is worth asking again: the network or the relay may be back.
fn will_pass(failure: &Failure) -> bool {
    matches!(
        failure.token(),
        "relay-unreachable"
            | "relay-not-found"
            | "relay-silent"
            | "relay-lost"
            | "network"
            | "relay-draining"
            | "store-unavailable"
            | "busy"
            | "login-expired"
            | "certificate-expired"
    )
}
