//! What the application does on a connection: the sender's turn, the receiver's turn, and what the
//! receiver got when.
//!
//! Stream 0 carries the load, stream 1 the echo. Law: a turn does all it can at its time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::{Connection, Dir, StreamId};

/// The load on stream 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Load {
    /// As much as the connection takes.
    Bulk,
    /// So many bytes, then silence until the receiver has said that it has them, then a pause.
    Bursts { size: u64, pause: Duration },
    /// Little, again and again for so long, whether it has arrived or not; then as much as the connection
    /// takes.
    Chatter { size: u64, every: Duration, lasts: Duration },
}

/// Width of a slot in [`Traffic::got`].
pub(crate) const SLOT: Duration = Duration::from_millis(50);

/// A piece of the load.
static PIECE: [u8; 64 * 1024] = [7; 64 * 1024];

/// Both ends' application on one connection.
pub(crate) struct Traffic {
    load: Load,
    echo_every: Option<Duration>,
    begun: Option<Instant>,
    streams: Option<(StreamId, StreamId)>,
    to_write: u64,
    next_burst: Option<Instant>,
    next_echo: Option<Instant>,
    asked: VecDeque<Instant>,
    received: u64,
    replied: u64,
    /// Bytes received, by slot since the world began.
    pub(crate) got: Vec<u64>,
    /// Echoes: when asked, how long it took.
    pub(crate) echoes: Vec<(Instant, Duration)>,
}

impl Traffic {
    pub(crate) fn new(load: Load, echo_every: Option<Duration>) -> Self {
        Self {
            load,
            echo_every,
            begun: None,
            streams: None,
            to_write: 0,
            next_burst: None,
            next_echo: None,
            asked: VecDeque::new(),
            received: 0,
            replied: 0,
            got: Vec::new(),
            echoes: Vec::new(),
        }
    }

    /// When the sender has something to do of its own accord.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next_burst.into_iter().chain(self.next_echo).min()
    }

    /// The connected sender's turn.
    pub(crate) fn send(&mut self, now: Instant, connection: &mut Connection) {
        let (load, echo) = *self.streams.get_or_insert_with(|| {
            let load = connection.streams().open(Dir::Bi).expect("stream credit");
            let echo = connection.streams().open(Dir::Bi).expect("stream credit");
            connection.send_stream(echo).set_priority(10).expect("open");
            (load, echo)
        });
        if self.begun.is_none() {
            self.begun = Some(now);
            self.next_burst = Some(now);
            self.next_echo = self.echo_every.map(|_| now);
        }
        self.hear(now, connection, load, echo);
        self.speak(now, connection, load, echo);
    }

    fn hear(&mut self, now: Instant, connection: &mut Connection, load: StreamId, echo: StreamId) {
        if drain(connection, load) > 0
            && let Load::Bursts { pause, .. } = self.load
        {
            self.next_burst = Some(now + pause);
        }
        for _ in 0..drain(connection, echo) {
            let at = self.asked.pop_front().expect("asked");
            self.echoes.push((at, now - at));
        }
    }

    fn speak(&mut self, now: Instant, connection: &mut Connection, load: StreamId, echo: StreamId) {
        if let (Some(at), Some(every)) = (self.next_echo, self.echo_every)
            && at <= now
        {
            // The send buffer, full of the load, may have no room for it: an echo that is not asked.
            if connection.send_stream(echo).write(&[1]).is_ok() {
                self.asked.push_back(now);
            }
            self.next_echo = Some(at + every);
        }
        if self.next_burst.is_some_and(|at| at <= now) {
            self.next_burst = None;
            self.to_write = match self.load {
                Load::Bulk => u64::MAX,
                Load::Bursts { size, .. } => size,
                Load::Chatter { size, every, lasts } => {
                    let over = self.begun.is_none_or(|begun| now >= begun + lasts);
                    self.next_burst = (!over).then_some(now + every);
                    if over { u64::MAX } else { size }
                }
            };
        }
        while self.to_write > 0 {
            let length = self.to_write.min(PIECE.len() as u64) as usize;
            let mut piece = [Bytes::from_static(&PIECE[..length])];
            let Ok(written) = connection.send_stream(load).write_chunks(&mut piece) else { break };
            self.to_write -= written.bytes as u64;
        }
    }

    /// The receiver's turn; `since` is how long the world exists.
    pub(crate) fn receive(&mut self, since: Duration, connection: &mut Connection) {
        while connection.streams().accept(Dir::Bi).is_some() {}
        let load = StreamId::new(quinn_proto::Side::Client, Dir::Bi, 0);
        let echo = StreamId::new(quinn_proto::Side::Client, Dir::Bi, 1);
        let bytes = drain(connection, load);
        self.received += bytes;
        let slot = (since.as_micros() / SLOT.as_micros()) as usize;
        if self.got.len() <= slot {
            self.got.resize(slot + 1, 0);
        }
        self.got[slot] += bytes;
        if let Load::Bursts { size, .. } = self.load {
            while self.received - self.replied >= size {
                self.replied += size;
                connection.send_stream(load).write(&[2]).expect("room for one byte");
            }
        }
        for _ in 0..drain(connection, echo) {
            connection.send_stream(echo).write(&[3]).expect("room for one byte");
        }
    }
}

/// Reads all there is.
fn drain(connection: &mut Connection, id: StreamId) -> u64 {
    let mut bytes = 0;
    let mut stream = connection.recv_stream(id);
    let Ok(mut chunks) = stream.read(true) else { return 0 };
    while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
        bytes += chunk.bytes.len() as u64;
    }
    bytes
}
