//! One attachment's life: the only loop that does I/O.
//!
//! Its law: reading and writing wait for nothing of each other, so a blocked writer never stops the
//! acknowledgements that would unblock it. An attachment knows its epoch and touches nothing once
//! it has been replaced. However the future ends, the core learns that it is detached.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use belay_proto::resume::Violation;
use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};

use super::shared::{Shared, wake};
use super::{Carried, Ended, Lost, Sink, Source};

/// How much is given to the sink at once: enough for its calls to cost little, little enough that
/// an acknowledgement does not wait long behind it.
const BUDGET: usize = 256 * 1024;

/// Pieces taken from the source at once.
const PIECES: usize = 32;

/// Turns of reading and writing before other tasks have theirs.
const TURNS: usize = 16;

/// How long a finished attachment waits for the other side's end, or its last bytes to leave.
const LINGER: Duration = Duration::from_secs(5);

/// How reading ended.
enum ReadEnd {
    Ended,
    Failed(io::Error),
    Violation(Violation),
}

pub(super) async fn carry(shared: &Arc<Shared>, source: impl Source, sink: impl Sink) -> Carried {
    let Some(epoch) = Epoch::begin(shared) else { return Carried::Ended };
    let moved = AtomicBool::new(false);
    let mut reading = pin!(read(&epoch, source, &moved));
    let mut writing = pin!(write(&epoch, sink));
    let mut timer = Timer { sleep: pin!(sleep_until(Instant::now())), armed: None };
    let (mut read_end, mut write_end, mut deadline) = (None, None, None);
    poll_fn(|cx| {
        for _ in 0..TURNS {
            moved.store(false, Ordering::Relaxed);
            if read_end.is_none()
                && let Poll::Ready(end) = reading.as_mut().poll(cx)
            {
                read_end = Some(end);
            }
            if write_end.is_none()
                && let Poll::Ready(end) = writing.as_mut().poll(cx)
            {
                write_end = Some(end);
                moved.store(true, Ordering::Relaxed);
            }
            let moved = moved.load(Ordering::Relaxed);
            let Tended { over, idle, closed, next } = epoch.tend(cx);
            if let Some(over) = over {
                return Poll::Ready(over);
            }
            let written = idle || write_end.is_some();
            if closed && matches!(write_end, Some(Ok(()))) {
                shared.note_over();
            }
            match (&mut read_end, &mut write_end) {
                (Some(ReadEnd::Violation(violation)), _) if written => {
                    return Poll::Ready(Carried::Violation(*violation));
                }
                (Some(ReadEnd::Ended), Some(_)) if closed => return Poll::Ready(Carried::Closed),
                (Some(ReadEnd::Ended), _) if written => {
                    return Poll::Ready(Carried::Lost(Lost::Ended));
                }
                (end @ Some(ReadEnd::Failed(_)), _) => {
                    if let Some(ReadEnd::Failed(error)) = end.take() {
                        return Poll::Ready(Carried::Lost(Lost::Failed(error)));
                    }
                }
                // What has come already is read first: it may be the end.
                (None, end @ Some(Err(_))) if !moved => {
                    if let Some(Err(error)) = end.take() {
                        return Poll::Ready(Carried::Lost(Lost::Failed(error)));
                    }
                }
                _ => {}
            }
            if read_end.is_some() || write_end.is_some() {
                deadline.get_or_insert_with(|| Instant::now() + LINGER);
            }
            let due = timer.poll(cx, [next, deadline].into_iter().flatten().min());
            if due && deadline.is_some_and(|at| at <= Instant::now()) {
                return Poll::Ready(match read_end.take() {
                    Some(ReadEnd::Violation(violation)) => Carried::Violation(violation),
                    Some(ReadEnd::Ended) => Carried::Lost(Lost::Ended),
                    Some(ReadEnd::Failed(error)) => Carried::Lost(Lost::Failed(error)),
                    None => Carried::Lost(Lost::NotEnded),
                });
            }
            if due {
                epoch.handle_timeout();
            } else if !moved {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

async fn read(epoch: &Epoch<'_>, mut source: impl Source, moved: &AtomicBool) -> ReadEnd {
    let mut pieces = [const { Bytes::new() }; PIECES];
    loop {
        let filled = match source.receive(&mut pieces).await {
            Ok(Some(filled)) => filled,
            Ok(None) => return ReadEnd::Ended,
            Err(error) => return ReadEnd::Failed(error),
        };
        if let Err(violation) = epoch.handle_pieces(pieces.iter_mut().take(filled)) {
            return ReadEnd::Violation(violation);
        }
        moved.store(true, Ordering::Relaxed);
        // The writer has its turn, for there may be something to acknowledge.
        let mut yielded = false;
        poll_fn(|_| {
            if std::mem::replace(&mut yielded, true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

async fn write(epoch: &Epoch<'_>, mut sink: impl Sink) -> io::Result<()> {
    let mut pieces = Vec::new();
    while poll_fn(|cx| epoch.poll_pieces(cx, &mut pieces)).await {
        sink.send_all(&mut pieces).await?;
        pieces.clear();
    }
    sink.finish().await
}

/// The running attachment's number, and its right to touch the core while it is the running one.
struct Epoch<'a> {
    shared: &'a Arc<Shared>,
    number: u64,
}

/// What is to be known after each turn.
struct Tended {
    over: Option<Carried>,
    idle: bool,
    closed: bool,
    next: Option<Instant>,
}

impl<'a> Epoch<'a> {
    fn begin(shared: &'a Arc<Shared>) -> Option<Self> {
        let mut state = shared.lock();
        if let Some(Ended::Over(_)) = state.ended {
            return None;
        }
        state.epoch += 1;
        state.idle = false;
        state.up = false;
        state.resume.handle_attached(shared.now());
        let number = state.epoch;
        let replaced = state.carry.take();
        drop(state);
        wake([replaced]);
        Some(Self { shared, number })
    }

    fn handle_pieces<'p>(
        &self,
        pieces: impl Iterator<Item = &'p mut Bytes>,
    ) -> Result<(), Violation> {
        let mut state = self.shared.lock();
        if state.epoch != self.number {
            return Ok(());
        }
        let now = self.shared.now();
        let mut handled = Ok(());
        for piece in pieces {
            handled = state.resume.handle_bytes(std::mem::take(piece), now);
            if let Err(violation) = handled {
                state.ended.get_or_insert(Ended::Violation(violation));
                break;
            }
        }
        self.shared.note_outputs(&mut state);
        if handled.is_ok() {
            self.shared.note_heard(&mut state);
        }
        let application = state.application();
        drop(state);
        wake(application);
        handled
    }

    /// The next pieces to write, or `false` when all is done and there will be none.
    fn poll_pieces(&self, cx: &Context<'_>, pieces: &mut Vec<Bytes>) -> Poll<bool> {
        let mut state = self.shared.lock();
        if state.epoch != self.number {
            return Poll::Pending;
        }
        if state.resume.poll_transmit(BUDGET, self.shared.now(), pieces) > 0 {
            state.idle = false;
            return Poll::Ready(true);
        }
        if state.resume.is_closed() {
            state.idle = false;
            return Poll::Ready(false);
        }
        // Under one lock: a change right after this finds whom to wake.
        state.idle = true;
        state.wait(cx);
        Poll::Pending
    }

    fn tend(&self, cx: &Context<'_>) -> Tended {
        let mut state = self.shared.lock();
        if state.epoch != self.number {
            return Tended {
                over: Some(Carried::Replaced),
                idle: false,
                closed: false,
                next: None,
            };
        }
        state.wait(cx);
        self.shared.note_outputs(&mut state);
        Tended {
            over: matches!(state.ended, Some(Ended::Over(_))).then_some(Carried::Ended),
            idle: state.idle,
            closed: state.resume.is_closed(),
            next: state.resume.poll_timeout().map(|at| self.shared.at(at)),
        }
    }

    fn handle_timeout(&self) {
        let mut state = self.shared.lock();
        if state.epoch == self.number {
            state.resume.handle_timeout(self.shared.now());
        }
    }
}

impl Drop for Epoch<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if state.epoch == self.number {
            state.resume.handle_detached();
            state.detached_since = Instant::now();
            state.carry = None;
            state.idle = false;
            self.shared.note_down(&mut state);
            // Without a line more is taken in.
            let application = state.application();
            drop(state);
            wake(application);
        }
    }
}

/// A timer that is moved only to an earlier time: most deadlines are gone before they come, and
/// moving it costs more than a look when it fires.
struct Timer<'a> {
    sleep: Pin<&'a mut Sleep>,
    armed: Option<Instant>,
}

impl Timer<'_> {
    /// Whether `next` has come. If not, the task is woken then or before.
    fn poll(&mut self, cx: &mut Context<'_>, next: Option<Instant>) -> bool {
        let Some(next) = next else { return false };
        loop {
            if self.armed.is_none_or(|armed| armed > next) {
                self.sleep.as_mut().reset(next);
                self.armed = Some(next);
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return false;
            }
            if self.armed.take().is_none_or(|armed| armed >= next) {
                return true;
            }
        }
    }
}
