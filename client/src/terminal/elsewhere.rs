//! Systems without Unix signals.

use std::io;
use std::time::Duration;

use russh::Pty;
use tokio::time::{Interval, interval};

use super::{News, Size};

/// How often the size is looked at, where nothing tells of a change.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// SIGINT's number, for the exit status.
const INTERRUPT: u8 = 2;

/// What can be noticed.
pub(super) struct Events {
    look: Interval,
    size: Size,
}

impl Events {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { look: interval(LOOK_EVERY), size: Size::now() })
    }

    pub(super) async fn next(&mut self) -> News {
        loop {
            tokio::select! {
                stopped = tokio::signal::ctrl_c() => {
                    if stopped.is_ok() {
                        return News::Killed(INTERRUPT);
                    }
                    std::future::pending::<()>().await;
                }
                _ = self.look.tick() => {
                    let size = Size::now();
                    if std::mem::replace(&mut self.size, size) != size {
                        return News::Resized;
                    }
                }
            }
        }
    }
}

/// The console forgets its mode with the program.
pub(super) struct Echo;

impl Echo {
    pub(super) fn remember() -> Self {
        Self
    }

    pub(super) fn restore(&self) {}
}

/// There is no job control.
pub(super) fn stop() {}

/// There are no modes to pass on.
pub fn modes() -> Vec<(Pty, u32)> {
    Vec::new()
}
