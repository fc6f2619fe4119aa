//! Tells the supervisor what happens, whichever supervisor there is.
//!
//! Its law: an event leaves this process's memory only when a supervisor has
//! said that it dealt with it. Without a supervisor events wait; when there is
//! no more room for them, so does the session.

use std::collections::VecDeque;
use std::io;

use belay_proto::wire::frame::{LENGTH_BYTES, decode_payload};
use belay_tunnel::framed::Messages;
use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use super::control::encoded;
use super::event::{Standing, Told, WorkerEvent};
use super::limits::EVENTS;
use super::record::Permits;
use super::word::Word;

/// How a control connection ended.
enum After {
    /// The last event was heard.
    Done,
    /// The supervisor is gone.
    Gone,
    /// Another supervisor came.
    Replaced(UnixStream),
}

/// An event as it is told: a segment of a recording is large, and there shall be one of it.
struct Unheard {
    number: u64,
    kind: Kind,
    frame: Bytes,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Recorded,
    Ended,
    Other,
}

impl Unheard {
    fn new(number: u64, event: WorkerEvent) -> Self {
        let kind = if matches!(event, WorkerEvent::Recorded(_)) {
            Kind::Recorded
        } else if matches!(event, WorkerEvent::Ended { .. }) {
            Kind::Ended
        } else {
            Kind::Other
        };
        let told = Told { event: Some(event), number: Some(number), standing: None };
        Self { number, kind, frame: encoded(&told).into() }
    }
}

pub(super) struct Teller<S> {
    events: mpsc::Receiver<WorkerEvent>,
    /// New control connections.
    lines: mpsc::Receiver<UnixStream>,
    /// Told, or about to be, and not yet heard.
    unheard: VecDeque<Unheard>,
    next: u64,
    end: watch::Sender<Option<String>>,
    permits: Permits,
    standing: S,
}

impl<S: Fn() -> Standing> Teller<S> {
    /// `end` is where an order to end goes; the first one counts. `permits` are given back for
    /// segments that were heard.
    pub(super) fn new(
        events: mpsc::Receiver<WorkerEvent>,
        lines: mpsc::Receiver<UnixStream>,
        end: watch::Sender<Option<String>>,
        permits: Permits,
        standing: S,
    ) -> Self {
        Self { events, lines, unheard: VecDeque::new(), next: 1, end, permits, standing }
    }

    /// Tells every event up to [`WorkerEvent::Ended`]. Returns when that was
    /// heard, or when no supervisor can come any more. Cancel-safe.
    pub(super) async fn tell(&mut self, first: UnixStream) {
        let mut line = Some(first);
        loop {
            let socket = match line.take() {
                Some(socket) => socket,
                None => match self.lines.recv().await {
                    Some(socket) => socket,
                    None => return,
                },
            };
            match self.tell_on(socket).await {
                After::Done => return,
                After::Gone => tracing::info!("the supervisor is gone; the session goes on"),
                After::Replaced(newer) => line = Some(newer),
            }
        }
    }

    async fn tell_on(&mut self, socket: UnixStream) -> After {
        let (read, mut write) = socket.into_split();
        let mut words = Messages::new(read);
        let standing = Told { standing: Some((self.standing)()), ..Told::default() };
        let mut out = VecDeque::from([Bytes::from(encoded(&standing))]);
        out.extend(self.unheard.iter().map(|unheard| unheard.frame.clone()));
        loop {
            tokio::select! {
                Some(newer) = self.lines.recv() => return After::Replaced(newer),
                word = words.next::<Word>() => match word {
                    Ok(Some(word)) => {
                        if self.hear(word) {
                            return After::Done;
                        }
                    }
                    Ok(None) => return After::Gone,
                    Err(error) => {
                        tracing::warn!(%error, "the control connection failed");
                        return After::Gone;
                    }
                },
                written = write_some(&mut write, &mut out), if !out.is_empty() => {
                    if let Err(error) = written {
                        tracing::debug!(%error, "the control connection broke");
                        return After::Gone;
                    }
                }
                Some(event) = self.events.recv(), if self.unheard.len() < EVENTS => {
                    out.push_back(self.take(event));
                }
            }
        }
    }

    /// An event's frame, once it is among those to be heard.
    fn take(&mut self, event: WorkerEvent) -> Bytes {
        let unheard = Unheard::new(self.next, event);
        self.next += 1;
        let frame = unheard.frame.clone();
        self.unheard.push_back(unheard);
        frame
    }

    /// Whether the last event was heard.
    fn hear(&mut self, word: Word) -> bool {
        if let Some(reason) = word.end {
            self.end.send_if_modified(|end| {
                let first = end.is_none();
                if first {
                    *end = Some(reason);
                }
                first
            });
        }
        let heard = word.heard.unwrap_or(0);
        while let Some(first) = self.unheard.front().filter(|first| first.number <= heard) {
            match first.kind {
                Kind::Ended => return true,
                Kind::Recorded => self.permits.heard(),
                Kind::Other => {}
            }
            self.unheard.pop_front();
        }
        false
    }

    /// What nobody will hear any more goes to the log: it is evidence.
    pub(super) fn log_unheard(mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.take(event);
        }
        for Unheard { number, frame, .. } in &self.unheard {
            match decode_payload::<Told>(frame.get(LENGTH_BYTES..).unwrap_or_default()) {
                Ok(Told { event, .. }) => {
                    tracing::warn!(number, ?event, "no supervisor heard this");
                }
                Err(error) => tracing::error!(number, %error, "no supervisor heard of something"),
            }
        }
    }
}

/// Writes of the first frame what goes. Cancel-safe.
async fn write_some(
    write: &mut (impl AsyncWrite + Unpin),
    out: &mut VecDeque<Bytes>,
) -> io::Result<()> {
    if let Some(first) = out.front_mut() {
        write.write_buf(first).await?;
        if first.is_empty() {
            out.pop_front();
        }
    }
    Ok(())
}
