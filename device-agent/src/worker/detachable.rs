//! A supervised session that outlives what carries it: its clients' streams and
//! its supervisors.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::Context;
use belay_proto::error_line::one_line;
use belay_proto::recording::Policy;
use belay_proto::wire::open::ResumeWindows;
use belay_tunnel::stream::Attacher;
use nix::unistd::Uid;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::control::Control;
use super::dock::{Berth, Dock, Fresh, Harbour};
use super::event::WorkerEvent;
use super::gate::Events;
use super::greeted::{Fate, Greeted, Leave, Parting};
use super::limits::{CLOSE_TIMEOUT, CLOSINGS, EVENTS, FAREWELL, LAST_WORDS, RECORD_LAST};
use super::record::{Permits, Recorder, Scribe};
use super::run::{Input, Session};
use super::ssh::{self, Because, End, Serving};
use super::teller::Teller;
use super::terminals::Terminals;
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
pub(super) async fn serve(mut session: Session, moorings: Moorings) -> anyhow::Result<()> {
    let listener = std::os::unix::net::UnixListener::from(moorings.listener);
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener).context("the door cannot be watched")?;
    let control = moorings.control.into_async()?;

    let first = Fresh::new();
    let (sender, receiver) = mpsc::channel(EVENTS + CLOSINGS);
    // One waits at most: the newest replaces.
    let (lines, new_lines) = mpsc::channel(1);
    let recorder = match session.input {
        Input::Recorded => Recorder::with_input(session.recording),
        Input::Unrecorded => Recorder::new(session.recording),
    };
    let required = session.recording == Policy::Required;
    let permits = Permits::new();
    let scribe = Scribe::new(&recorder, permits.clone(), session.sealer.take());
    let events = Events::new(sender, recorder.clone());
    // Whom nobody may come back to leaves no terminal behind.
    let whose = (session.terms.user.as_str(), session.joins.is_none());
    let terminals = Terminals::new(events.clone(), moorings.windows.interactive > 0, whose);
    let harbour = Harbour::new(terminals.count());

    let attacher = first.attacher.clone();
    let inside = (Arc::clone(&harbour), Arc::clone(&terminals));
    let mut dock = Dock::new(listener, moorings.owner, attacher, lines, inside);
    let standing = {
        let harbour = Arc::clone(&harbour);
        move || harbour.standing()
    };
    let mut teller = Teller::new(receiver, new_lines, harbour.end.clone(), permits, standing);

    let (end, told) = {
        let tell = teller.tell(control);
        tokio::pin!(tell);
        let scribing = scribe.write(events.clone());
        tokio::pin!(scribing);
        let mut written = false;
        let connections = Connections {
            session: Arc::new(session),
            terminals,
            events: events.clone(),
            harbour: Arc::clone(&harbour),
            windows: moorings.windows,
        };
        let (end, attacher) = {
            let serving = connections.serve(first);
            tokio::pin!(serving);
            loop {
                tokio::select! {
                    end = &mut serving => break end,
                    never = dock.serve() => match never {},
                    // Not before the last event, which is ours to send.
                    () = &mut tell => anyhow::bail!("the events have no way out"),
                    // Only where nothing is recorded, or no more of it can be.
                    wrote = &mut scribing, if !written => {
                        written = true;
                        if let Err(stopped) = wrote {
                            let error = one_line(&stopped);
                            tracing::error!(error, required, "the recording stops");
                            if required {
                                harbour.end.send_replace(Some(UNRECORDED.to_owned()));
                            }
                        }
                    }
                }
            }
        };
        drop(connections);
        tracing::info!(reason = %end.reason, "session ended");
        recorder.end(&end.reason);
        let last_words = async {
            // The end of the recording comes before the end of the session.
            if !written {
                match timeout(RECORD_LAST, &mut scribing).await {
                    Ok(Ok(())) => {}
                    Ok(Err(stopped)) => {
                        let error = one_line(&stopped);
                        tracing::error!(error, "the recording has no end");
                    }
                    Err(_) => tracing::warn!("the recording's end was not taken"),
                }
            }
            let ended = WorkerEvent::Ended { reason: end.reason.clone() };
            if let Err(denied) = events.send(ended).await {
                tracing::warn!(%denied, "the end was not told");
            }
        };
        let patience = if end.in_haste { FAREWELL } else { LAST_WORDS };
        let told = tokio::select! {
            (told, ()) = async {
                let telling = async {
                    tokio::join!(last_words, &mut tell);
                };
                tokio::join!(timeout(patience, telling), close(&end, &attacher, &harbour))
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

/// The session's SSH connections, one after another, and the terminals that outlive them.
struct Connections {
    session: Arc<Session>,
    terminals: Arc<Terminals>,
    events: Events,
    harbour: Arc<Harbour>,
    windows: ResumeWindows,
}

impl Connections {
    /// Serves one client after another until the session ends. Says how, and on which stream.
    async fn serve(&self, first: Fresh) -> (End, Attacher) {
        let mut stream = first;
        let (end, attacher) = loop {
            let attacher = stream.attacher.clone();
            let parting = Arc::new(Parting::default());
            let end = self.connection(stream, Arc::clone(&parting)).await;
            if parting.fate(&self.terminals) == Fate::Over {
                break (end, attacher);
            }
            if let Some(next) = self.harbour.take_fresh() {
                attacher.end("another client has the session");
                stream = next;
                continue;
            }
            if !parting.is_closed() {
                attacher.end(end.reason.as_str());
            }
            tracing::info!(reason = %end.reason, "the terminals wait for another client");
            self.harbour.wait();
            match self.somebody_else().await {
                Ok(next) => stream = next,
                Err(reason) => break (End::from_outside(reason), attacher),
            }
        };
        self.harbour.is_over();
        self.terminals.over(&end.reason);
        self.terminals.hang_up_all().await;
        (end, attacher)
    }

    async fn connection(&self, stream: Fresh, parting: Arc<Parting>) -> End {
        let (terminals, harbour) = (Arc::clone(&self.terminals), Arc::clone(&self.harbour));
        let wire = Greeted::new(stream.ends, Arc::clone(&parting), terminals, harbour);
        let told_to_end = async {
            tokio::select! {
                () = self.harbour.somebody_else() => Because {
                    reason: TAKEN.to_owned(),
                    reachable: stream.attacher.detached_for().is_none(),
                    leave: Leave::Taken,
                },
                reason = self.told_to_end() => Because {
                    reason,
                    reachable: self.harbour.is_attached(),
                    leave: Leave::Outside,
                },
            }
        };
        let (terminals, events) = (Arc::clone(&self.terminals), self.events.clone());
        let serving = Serving { session: Arc::clone(&self.session), terminals, events, parting };
        ssh::serve(wire, None, serving, told_to_end).await
    }

    /// Waits for the next client, or for a reason to end.
    async fn somebody_else(&self) -> Result<Fresh, String> {
        loop {
            tokio::select! {
                () = self.harbour.somebody_else() => {
                    if let Some(fresh) = self.harbour.take_fresh() {
                        return Ok(fresh);
                    }
                }
                reason = self.told_to_end() => return Err(reason),
                signal = ssh::terminated() => {
                    return Err(format!("the worker was told to stop by {signal}"));
                }
                reason = ssh::expiry(&self.session.terms) => return Err(reason),
            }
        }
    }

    /// Why the session has to end from outside of it.
    async fn told_to_end(&self) -> String {
        let mut end = self.harbour.end.subscribe();
        tokio::select! {
            Ok(found) = end.wait_for(Option::is_some) => found.clone().unwrap_or_default(),
            reason = windows::over(self.windows, Arc::clone(&self.harbour)) => reason,
        }
    }
}

/// What a client is told whose session has to be recorded.
const UNRECORDED: &str = "the session must be recorded, and its recording cannot go on";

/// What a client is told whose session another client has.
const TAKEN: &str = "the session was taken over by another client; belay attach takes it back";

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
