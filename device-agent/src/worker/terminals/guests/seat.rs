//! A guest's seat: the task that speaks with their helper.
//!
//! It is told of and recorded before anything is shown, and again when it is over. Its law: nothing
//! here is waited for by whoever drives the terminal.

use std::sync::Arc;
use std::time::Duration;

use rustix::termios::Winsize;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};

use super::link::{Link, Next};
use super::{Doorway, Guest, Said, Who};
use crate::worker::event::WorkerEvent;
use crate::worker::gate::Events;
use crate::worker::joining::{Frame, Frames};
use crate::worker::limits::{FAREWELL, RESIZE_INTERVAL};
use crate::worker::pty;

/// A place at a terminal, for one who is on the way to it.
pub(in crate::worker) struct Seat {
    who: Who,
    terminal: u32,
    id: u64,
    doorway: Doorway,
    /// One of so many; given back with this.
    _place: OwnedSemaphorePermit,
}

impl Seat {
    pub(in crate::worker::terminals) fn new(
        who: Who,
        terminal: u32,
        id: u64,
        doorway: Doorway,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self { who, terminal, id, doorway, _place: place }
    }

    /// The terminal's number in its session.
    pub(in crate::worker) fn terminal(&self) -> u32 {
        self.terminal
    }

    /// Serves the guest until they leave or the terminal ends.
    pub(in crate::worker) async fn attend(self, socket: UnixStream, events: Events) {
        let (mut from, mut to) = socket.into_split();
        let mut frames = Frames::default();
        // Their worker is there from its start; they are when it has let them in, and their terminal
        // says how large it is.
        let first = tokio::select! {
            first = frames.next(&mut from) => first,
            () = self.doorway.said.closed() => return farewell(&mut to, self.doorway.why()).await,
        };
        let size = match first {
            Ok(Some(Frame::Size { columns, rows })) => window(columns, rows),
            Ok(_) => return,
            Err(error) => return tracing::warn!(%error, "a guest's terminal speaks something else"),
        };
        let (terminal, who) = (self.terminal, self.who.clone());
        let (user, session, may_type) = (who.name, who.session, who.may_type);
        let joined = WorkerEvent::GuestJoined {
            terminal,
            user: user.clone(),
            session: session.clone(),
            may_type,
        };
        if events.send(joined).await.is_err() {
            return;
        }
        let link = Arc::new(Link::new());
        let guest = Guest { id: self.id, who: self.who.clone(), size, link: Arc::clone(&link) };
        if self.doorway.said.send(Said::Came(guest)).await.is_ok() {
            tokio::select! {
                () = self.hear(&mut from, frames) => {}
                () = self.tell(&mut to, &link) => {}
                () = async {
                    link.ended().await;
                    // A guest that takes nothing does not keep the session.
                    sleep(FAREWELL).await;
                } => {}
            }
        } else {
            farewell(&mut to, self.doorway.why()).await;
        }
        drop(events.send(WorkerEvent::GuestLeft { terminal, user, session }).await);
        // The terminal may have ended before them.
        drop(self.doorway.said.send(Said::Left(self.id)).await);
    }

    /// What the guest types, and their window. Returns when they are gone or break the rules.
    async fn hear(&self, from: &mut OwnedReadHalf, mut frames: Frames) {
        let mut was_told = false;
        loop {
            let heard = match frames.next(from).await {
                // Here, whatever their side has let them type.
                Ok(Some(Frame::Input(_))) if !self.who.may_type => {
                    let first = !std::mem::replace(&mut was_told, true);
                    if !first {
                        continue;
                    }
                    self.doorway.said.send(Said::Typed(self.id)).await.is_ok()
                }
                Ok(Some(Frame::Input(bytes))) => tokio::select! {
                    sent = self.doorway.typed.send(bytes) => sent.is_ok(),
                    // What the program does not take, it does not get of one who is gone.
                    () = closed(from) => return,
                },
                Ok(Some(Frame::Size { columns, rows })) => {
                    // However often they change it, it costs the program little.
                    sleep(RESIZE_INTERVAL).await;
                    let size = window(columns, rows);
                    self.doorway.said.send(Said::Size(self.id, size)).await.is_ok()
                }
                Ok(Some(Frame::Output(_) | Frame::End(_)) | None) => return,
                Err(error) => {
                    return tracing::warn!(%error, "a guest's terminal speaks something else");
                }
            };
            if !heard {
                // The terminal has ended; its last word is being told.
                return std::future::pending().await;
            }
        }
    }

    /// What the terminal shows.
    async fn tell(&self, to: &mut OwnedWriteHalf, link: &Link) {
        let mut out = Vec::new();
        loop {
            out.clear();
            match link.next().await {
                Next::Bytes(bytes) => Frame::Output(bytes).write(&mut out),
                // One that has ended says so next.
                Next::Draw => drop(self.doorway.said.send(Said::Ready(self.id)).await),
                Next::End(why) => return farewell(to, &why).await,
            }
            if to.write_all(&out).await.is_err() {
                return;
            }
        }
    }
}

/// Between two looks whether a guest whose typing waits is still there.
const LOOK: Duration = Duration::from_millis(200);

/// Waits until the other end is closed, whatever of it is still to be read.
async fn closed(from: &OwnedReadHalf) {
    while from.ready(Interest::READABLE).await.is_ok_and(|ready| !ready.is_read_closed()) {
        sleep(LOOK).await;
    }
}

async fn farewell(to: &mut OwnedWriteHalf, why: &str) {
    let mut out = Vec::new();
    Frame::End(why.to_owned()).write(&mut out);
    drop(timeout(FAREWELL, to.write_all(&out)).await);
}

fn window(columns: u16, rows: u16) -> Winsize {
    pty::window(columns.into(), rows.into(), 0, 0)
}
