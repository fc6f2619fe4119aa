//! Tells the supervisor what happens, whichever supervisor there is.
//!
//! Its law: an event leaves this process's memory only when a supervisor has
//! said that it dealt with it. Without a supervisor events wait; when there is
//! no more room for them, so does the session.

use std::collections::VecDeque;

use belay_tunnel::framed::Messages;
use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
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

pub(super) struct Teller<S> {
    events: mpsc::Receiver<WorkerEvent>,
    /// New control connections.
    lines: mpsc::Receiver<UnixStream>,
    /// Told, or about to be, and not yet heard.
    unheard: VecDeque<(u64, WorkerEvent)>,
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
        let mut out = BytesMut::from(encoded(&standing).as_slice());
        for (number, event) in &self.unheard {
            out.extend_from_slice(&frame(*number, event));
        }
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
                written = write.write_buf(&mut out), if !out.is_empty() => {
                    if let Err(error) = written {
                        tracing::debug!(%error, "the control connection broke");
                        return After::Gone;
                    }
                }
                Some(event) = self.events.recv(), if self.unheard.len() < EVENTS => {
                    let number = self.next;
                    self.next += 1;
                    out.extend_from_slice(&frame(number, &event));
                    self.unheard.push_back((number, event));
                }
            }
        }
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
        while let Some((number, event)) = self.unheard.front() {
            if *number > heard {
                break;
            }
            if matches!(event, WorkerEvent::Ended { .. }) {
                return true;
            }
            if matches!(event, WorkerEvent::Recorded(_)) {
                self.permits.heard();
            }
            self.unheard.pop_front();
        }
        false
    }

    /// What nobody will hear any more goes to the log: it is evidence.
    pub(super) fn log_unheard(mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.unheard.push_back((self.next, event));
            self.next += 1;
        }
        for (number, event) in &self.unheard {
            tracing::warn!(number, ?event, "no supervisor heard this");
        }
    }
}

fn frame(number: u64, event: &WorkerEvent) -> Vec<u8> {
    let told = Told { event: Some(event.clone()), number: Some(number), standing: None };
    encoded(&told)
}
