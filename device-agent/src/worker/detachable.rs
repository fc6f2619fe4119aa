//! A supervised session that outlives what carries it: its clients' streams and
//! its supervisors.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::Context;
use belay_proto::wire::open::ResumeWindows;
use belay_tunnel::stream::{self, Attacher};
use nix::unistd::Uid;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::control::Control;
use super::dock::{Berth, Dock, Harbour};
use super::event::WorkerEvent;
use super::gate::Events;
use super::greeted::Greeted;
use super::limits::{CLOSE_TIMEOUT, CLOSINGS, EVENTS, FAREWELL, LAST_WORDS};
use super::run::Session;
use super::ssh::{self, Because, End};
use super::teller::Teller;
use super::windows;

/// What a supervised worker was given besides its order.
pub(super) struct Moorings {
    /// The door, bound and listening.
    pub(super) listener: OwnedFd,
    /// The first supervisor.
    pub(super) control: Control,
    /// Its user.
    pub(super) owner: Uid,
    pub(super) windows: ResumeWindows,
}

/// Serves the session to its end.
pub(super) async fn serve(session: Session, moorings: Moorings) -> anyhow::Result<()> {
    let listener = std::os::unix::net::UnixListener::from(moorings.listener);
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener).context("the door cannot be watched")?;
    let control = moorings.control.into_async()?;

    let (send, recv, attacher) = stream::session(stream::Config::default());
    let (sender, receiver) = mpsc::channel(EVENTS + CLOSINGS);
    // One waits at most: the newest replaces.
    let (lines, new_lines) = mpsc::channel(1);
    let events = Events::new(sender);
    let harbour = Harbour::new(events.terminals());

    let mut dock =
        Dock::new(listener, moorings.owner, attacher.clone(), lines, Arc::clone(&harbour));
    let standing = {
        let harbour = Arc::clone(&harbour);
        move || harbour.standing()
    };
    let mut teller = Teller::new(receiver, new_lines, harbour.end.clone(), standing);

    let (end, told) = {
        let tell = teller.tell(control);
        tokio::pin!(tell);
        let Session { terms, host_key, host_certificate, account } = session;
        let wire = Greeted::new(send, recv);
        let told_to_end = told_to_end(moorings.windows, Arc::clone(&harbour));
        let host = (host_key, host_certificate);
        let ssh = ssh::serve(wire, None, terms, account, host, events.clone(), told_to_end);
        let end = tokio::select! {
            end = ssh => end,
            never = dock.serve() => match never {},
            // Not before the last event, which is ours to send.
            () = &mut tell => anyhow::bail!("the events have no way out"),
        };
        tracing::info!(reason = %end.reason, "session ended");
        let ended = WorkerEvent::Ended { reason: end.reason.clone() };
        if let Err(denied) = events.send(ended).await {
            tracing::warn!(%denied, "the end was not told");
        }
        drop(events);
        let patience = if end.in_haste { FAREWELL } else { LAST_WORDS };
        let told = tokio::select! {
            (told, ()) = async {
                tokio::join!(timeout(patience, &mut tell), close(&end, &attacher, &harbour))
            } => told.is_ok(),
            never = dock.serve() => match never {},
            // Nobody is waited for any longer.
            signal = ssh::terminated() => {
                tracing::info!(signal, "told to stop");
                false
            }
        };
        (end, told)
    };
    if !told {
        teller.log_unheard();
        anyhow::bail!("no supervisor took the last events");
    }
    anyhow::ensure!(end.clean, end.reason);
    Ok(())
}

/// Why the session has to end from outside of it.
async fn told_to_end(windows: ResumeWindows, harbour: Arc<Harbour>) -> Because {
    let mut end = harbour.end.subscribe();
    let reason = tokio::select! {
        Ok(found) = end.wait_for(Option::is_some) => found.clone().unwrap_or_default(),
        reason = windows::over(windows, Arc::clone(&harbour)) => reason,
    };
    Because { reason, reachable: harbour.is_attached() }
}

/// Lets both ends of the stream get everything. A client that is not there may
/// be on its way back, unless it was the one thing waited for in vain.
async fn close(end: &End, attacher: &Attacher, harbour: &Harbour) {
    let patience = if end.in_haste { FAREWELL } else { CLOSE_TIMEOUT };
    let mut berth = harbour.berth.subscribe();
    let wanted = !end.in_haste || harbour.is_attached();
    let closed = berth.wait_for(|berth| *berth == Berth::Closed);
    if wanted && timeout(patience, closed).await.is_err() {
        tracing::debug!("the client did not take the end of the stream");
    }
    attacher.end(end.reason.as_str());
}
