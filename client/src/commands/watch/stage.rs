//! Watching on this terminal: a screen, a line below it that says how it stands, and two keys.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use belay_proto::error_line::printable;
use belay_proto::recording::End;
use crossterm::event::{Event as Input, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, poll, read};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use super::screens::Screens;
use super::{Change, Watch};
use crate::commands::play::player::Stage;
use crate::failure::Failure;
use crate::output::write_failure;
use crate::terminal::Size;

/// How long the keyboard is listened to before anybody looks whether to stop.
const LISTEN: Duration = Duration::from_millis(100);

/// Keys that wait; more are not worth anything.
const KEYS: usize = 16;

/// What somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Quit,
    NextTrack,
    DrawAnew,
}

/// Shows it until somebody quits. At its end the last screen stays.
pub(super) async fn show(mut watch: Watch, track: Option<u32>) -> Result<(), Failure> {
    let mut stage = Stage::enter().map_err(|error| no_terminal(&error))?;
    let mut keys = Keys::listen();
    let mut screens = Screens::new(track);
    let mut standing = Some("catching up".to_owned());
    let mut is_over = false;
    loop {
        let size = Size::now();
        let (columns, high) = (usize::from(size.columns), usize::from(size.rows));
        let mut rows = screens.rows((columns, high.saturating_sub(1)));
        let words = standing.as_deref().unwrap_or("live");
        rows.push(below(&watch, &screens, words, columns));
        stage.draw(rows).map_err(|error| write_failure(&error))?;
        tokio::select! {
            wish = keys.next() => match wish? {
                Wish::Quit => return Ok(()),
                Wish::NextTrack => screens.next(),
                Wish::DrawAnew => stage.forget().map_err(|error| write_failure(&error))?,
            },
            change = watch.next(), if !is_over => match change? {
                Change::Seen(seen) => {
                    if !seen.is_empty() {
                        standing = None;
                    }
                    seen.into_iter().try_for_each(|seen| screens.take(seen))?;
                    if let Some(end) = watch.follower.end() {
                        is_over = true;
                        standing = Some(over(end).to_owned());
                    }
                }
                Change::Standing(words) => standing = words,
            },
        }
    }
}

/// In the few words there is room for.
const fn over(end: End) -> &'static str {
    match end {
        End::Whole => "over, recording whole",
        End::Cut => "over, recording cut",
    }
}

fn below(watch: &Watch, screens: &Screens, standing: &str, columns: usize) -> String {
    let session = &watch.session;
    let text = format!(
        " {} {}@{}  {}  {standing}  tab next, q quits ",
        session.user,
        session.login,
        session.device,
        screens.words(),
    );
    let text: String = printable(&text).chars().take(columns).collect();
    format!("\x1b[0;7m{text}\x1b[0m")
}

fn no_terminal(error: &io::Error) -> Failure {
    Failure::new("terminal", format!("cannot use the terminal: {error}"))
}

/// The keyboard, listened to on a thread that ends with this.
struct Keys {
    wishes: mpsc::Receiver<io::Result<Wish>>,
    stop: Arc<AtomicBool>,
    _listener: JoinHandle<()>,
}

impl Keys {
    fn listen() -> Self {
        let (told, wishes) = mpsc::channel(KEYS);
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let listener = spawn_blocking(move || {
            while !stopped.load(Ordering::Relaxed) {
                let heard = match poll(LISTEN) {
                    Ok(false) => continue,
                    Ok(true) => read().map(wish),
                    Err(error) => Err(error),
                };
                let failed = heard.is_err();
                let Some(heard) = heard.transpose() else { continue };
                if told.blocking_send(heard).is_err() || failed {
                    return;
                }
            }
        });
        Self { wishes, stop, _listener: listener }
    }

    /// The next wish. Cancel-safe.
    async fn next(&mut self) -> Result<Wish, Failure> {
        match self.wishes.recv().await {
            Some(heard) => heard.map_err(|error| no_terminal(&error)),
            None => Ok(Wish::Quit),
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn wish(input: Input) -> Option<Wish> {
    match input {
        Input::Key(key) => of_key(key),
        Input::Resize(..) => Some(Wish::DrawAnew),
        Input::FocusGained | Input::FocusLost | Input::Mouse(_) | Input::Paste(_) => None,
    }
}

fn of_key(key: KeyEvent) -> Option<Wish> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    #[allow(clippy::wildcard_enum_match_arm, reason = "no other key means anything")]
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Wish::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Wish::Quit),
        KeyCode::Tab => Some(Wish::NextTrack),
        _ => None,
    }
}
