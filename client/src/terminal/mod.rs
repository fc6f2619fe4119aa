//! This side's terminal: raw while a session has it, itself again on every way out.

mod escapes;
pub mod notice;
mod raw;

#[cfg(not(unix))]
mod elsewhere;
#[cfg(unix)]
mod unix;

use std::io::{self, IsTerminal as _};

use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::output;

pub use escapes::{Escapes, Typed};
pub(crate) use raw::RawMode;

#[cfg(not(unix))]
use elsewhere as platform;
#[cfg(unix)]
use unix as platform;

pub use platform::modes;

/// A terminal's size: characters, and pixels where they are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Characters across.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
    /// Pixels across, or 0.
    pub width: u16,
    /// Pixels down, or 0.
    pub height: u16,
}

impl Size {
    /// What a terminal has had since the VT100, for when nobody knows.
    pub const USUAL: Self = Self { columns: 80, rows: 24, width: 0, height: 0 };

    /// The terminal's size now.
    pub fn now() -> Self {
        match crossterm::terminal::window_size() {
            Ok(size) if size.columns > 0 && size.rows > 0 => Self {
                columns: size.columns,
                rows: size.rows,
                width: size.width,
                height: size.height,
            },
            Ok(_) | Err(_) => Self::USUAL,
        }
    }
}

/// What happens on this side while a session runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The terminal changed its size.
    Resized,
    /// A signal asks this process to end.
    Killed(u8),
}

/// This side.
pub struct Local {
    raw: Option<RawMode>,
    events: platform::Events,
}

impl Local {
    /// Watches for signals, and takes the terminal when `raw`.
    ///
    /// # Errors
    /// When the terminal or the signals cannot be had.
    pub fn new(raw: bool) -> io::Result<Self> {
        let events = platform::Events::new()?;
        let raw = if raw { Some(RawMode::enter()?) } else { None };
        Ok(Self { raw, events })
    }

    /// Whether the terminal is ours.
    pub const fn is_raw(&self) -> bool {
        self.raw.is_some()
    }

    /// The next thing to happen. Safe to cancel.
    pub async fn next(&mut self) -> News {
        self.events.next().await
    }

    /// The terminal's size now.
    pub fn size(&self) -> Size {
        Size::now()
    }

    /// Says something beside the session, in raw mode.
    pub fn say(&self, text: &str) {
        output::note(text.replace('\n', "\r\n") + "\r");
    }

    /// Stops this process as `^Z` does, with the terminal as it was, and takes it again after.
    pub fn suspend(&mut self) {
        if self.raw.take().is_none() {
            return;
        }
        platform::stop();
        match RawMode::enter() {
            Ok(raw) => self.raw = Some(raw),
            Err(error) => output::note(format!("belay: cannot take the terminal back: {error}")),
        }
    }
}

/// Whether a person types into standard input.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal()
}

/// Asks for something secret on the terminal. Echo comes back also when `^C` ends the asking.
///
/// # Errors
/// When it is interrupted, or the terminal goes away.
pub async fn ask<F>(prompt: F) -> Result<Zeroizing<String>, Failure>
where
    F: FnOnce() -> dialoguer::Password<'static> + Send + 'static,
{
    let before = platform::Echo::remember();
    let mut events = platform::Events::new()
        .map_err(|e| Failure::new("terminal", format!("cannot use the terminal: {e}")))?;
    let asking = tokio::task::spawn_blocking(move || prompt().interact());
    let killed = async {
        loop {
            if let News::Killed(signal) = events.next().await {
                return signal;
            }
        }
    };
    tokio::select! {
        answer = asking => match answer {
            Ok(Ok(text)) => Ok(Zeroizing::new(text)),
            Ok(Err(error)) => {
                Err(Failure::new("terminal", format!("cannot read from the terminal: {error}")))
            }
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => Err(Failure::new("terminal", error.to_string())),
            },
        },
        signal = killed => {
            before.restore();
            Err(Failure::new("interrupted", "interrupted").exit(128u8.saturating_add(signal)))
        }
    }
}
