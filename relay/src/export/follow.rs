//! One export's life: read on from its place, deliver, keep the place, and again.

use std::time::Duration;

use belay_proto::error_line::one_line;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::config::{Export, From};
use super::{Batch, DeliverError, Sink};
use crate::store::{Cursor, Event, EventKind, Store, StoreError};

/// Between two looks for new entries, when there were none. A look is one short read.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The pause after a failure doubles from the first to the last of these.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// An export that follows the log.
pub struct Follower {
    export: Export,
    sink: Sink,
}

enum Failed {
    /// The relay's own store; it says so itself.
    Store(StoreError),
    /// The receiver.
    Sink(DeliverError),
}

impl std::convert::From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What of it is in memory.
struct State {
    cursor: Cursor,
    /// When it had everything last.
    caught_up: Instant,
    /// What failed last, while it fails.
    failing: Option<String>,
}

impl Follower {
    pub(super) fn new(export: &Export, sink: Sink) -> Self {
        Self { export: export.clone(), sink }
    }

    /// Follows the log until cancelled. What is being sent just then is sent again after a restart.
    pub async fn run(mut self, store: Store, cancel: CancellationToken) {
        cancel.run_until_cancelled(self.follow(&store)).await;
    }

    async fn follow(&mut self, store: &Store) {
        let mut pause = FIRST_PAUSE;
        let mut state = loop {
            match self.begin(store).await {
                Ok(cursor) => break State { cursor, caught_up: Instant::now(), failing: None },
                Err(error) => {
                    tracing::warn!(export = self.export.name, error = %one_line(&error), "not begun yet");
                    sleep(LAST_PAUSE).await;
                }
            }
        };
        loop {
            let wait = match self.step(store, &mut state).await {
                Ok(true) => {
                    pause = FIRST_PAUSE;
                    if state.failing.take().is_some() {
                        tracing::info!(export = self.export.name, "the export works again");
                    }
                    Duration::ZERO
                }
                Ok(false) => LOOK_EVERY,
                Err(failed) => {
                    self.failed(&mut state, failed);
                    let longer = (pause * 2).min(LAST_PAUSE);
                    std::mem::replace(&mut pause, longer)
                }
            };
            self.mark(store, &mut state).await;
            sleep(wait).await;
        }
    }

    /// The place it was at, or where a new one begins.
    async fn begin(&self, store: &Store) -> Result<Cursor, StoreError> {
        if let Some(cursor) = store.cursor(&self.export.name).await? {
            return Ok(cursor);
        }
        let seq = match self.export.from {
            From::Start => 0,
            From::Now => store.checkpoint().await?.map_or(0, |(size, _)| size),
        };
        let cursor = Cursor { seq, ..Cursor::default() };
        store.keep_cursor(&self.export.name, cursor, None).await?;
        Ok(cursor)
    }

    /// Delivers one batch; `false` when there is none.
    async fn step(&mut self, store: &Store, state: &mut State) -> Result<bool, Failed> {
        let size = store.checkpoint().await?.map_or(0, |(size, _)| size);
        let Cursor { seq, upto, behind } = state.cursor;
        if size <= seq {
            state.caught_up = Instant::now();
            return Ok(false);
        }
        let wanted = if upto > seq { upto } else { seq + u64::from(self.export.batch) };
        let last = wanted.min(size);
        if self.sink.repeats_the_same() && upto != last {
            // Before it is sent: whoever sends it again, after a kill, sends the same.
            state.cursor.upto = last;
            store.keep_cursor(&self.export.name, state.cursor, None).await?;
        }
        let page = store.log_page(seq, last).await?;
        let lines: Vec<String> = page.entries.into_iter().filter(|line| !line.is_empty()).collect();
        if !lines.is_empty() {
            let batch = Batch { log: store.log_key().clone(), first: seq + 1, last, lines };
            self.sink.deliver(&batch).await.map_err(Failed::Sink)?;
        }
        // In memory as well where the disk is full: then it is only sent again after a restart.
        state.cursor = Cursor { seq: last, upto: 0, behind };
        store.keep_cursor(&self.export.name, state.cursor, None).await?;
        Ok(true)
    }

    fn failed(&self, state: &mut State, failed: Failed) {
        let error = match &failed {
            Failed::Store(error) => {
                tracing::debug!(export = self.export.name, error = %one_line(error), "it waits");
                return;
            }
            Failed::Sink(error) => one_line(error),
        };
        if state.failing.is_none() {
            tracing::warn!(
                export = self.export.name,
                error,
                "an export does not work; it goes on trying"
            );
        }
        state.failing = Some(error);
    }

    /// Puts on record, once, that it is behind, and once that it has everything again.
    async fn mark(&self, store: &Store, state: &mut State) {
        let name = &self.export.name;
        let late = state.caught_up.elapsed();
        let (behind, event) = if !state.cursor.behind && late > self.export.behind_after {
            let why = state.failing.as_deref().unwrap_or("it takes entries slower than they come");
            let detail = format!(
                "export {name} has entries up to {} and no more for {} s: {why}",
                state.cursor.seq,
                late.as_secs()
            );
            tracing::warn!(export = name, upto = state.cursor.seq, why, "an export is behind");
            (true, Event::new(EventKind::ExportBehind).detail(&detail))
        } else if state.cursor.behind && state.failing.is_none() && late < LOOK_EVERY * 2 {
            let detail = format!("export {name} has everything up to {}", state.cursor.seq);
            (false, Event::new(EventKind::ExportCaughtUp).detail(&detail))
        } else {
            return;
        };
        let cursor = Cursor { behind, ..state.cursor };
        match store.keep_cursor(name, cursor, Some(event)).await {
            Ok(()) => state.cursor = cursor,
            Err(error) => {
                tracing::debug!(export = name, error = %one_line(&error), "not on record yet")
            }
        }
    }
}
