//! Playing a track on this terminal, with pause, seek and speed.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use avt::Terminal;
use crossterm::event::{Event as Input, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, poll, read};

use super::draw::{rows, usable};
use super::marks::marks;
use super::track::{Event, Track, resized};
use crate::failure::Failure;
use crate::output::{self, write_failure};
use crate::terminal::{RawMode, Size};

/// The screen is drawn no more often.
const FRAME: Duration = Duration::from_millis(33);

/// How far an arrow goes, and one with shift.
const STEP: Duration = Duration::from_secs(5);
/// See [`STEP`].
const STRIDE: Duration = Duration::from_secs(60);

/// Whoever goes back to a mark goes on from here: within it, to the one before.
const JUST_SHOWN: Duration = Duration::from_secs(1);

/// A track with its pauses cut, and how far it was played.
pub(super) struct Reel<'a> {
    track: &'a Track,
    /// When each event is shown.
    times: Vec<Duration>,
    /// When those are that one jumps to.
    marks: Vec<Duration>,
    terminal: Terminal,
    next: usize,
    pub(super) at: Duration,
}

impl<'a> Reel<'a> {
    pub(super) fn new(track: &'a Track, idle_limit: Option<f64>) -> Result<Self, Failure> {
        let longest = idle_limit.map(|limit| Duration::from_secs_f64(limit.clamp(0.0, 3.2e8)));
        let (mut before, mut at) = (Duration::ZERO, Duration::ZERO);
        let times = track.events.iter().map(|event| {
            let pause = event.at.saturating_sub(before);
            before = event.at;
            at += longest.map_or(pause, |longest| pause.min(longest));
            at
        });
        let times: Vec<Duration> = times.collect();
        let marks = marks(track).into_iter().filter_map(|number| times.get(number).copied());
        let marks = marks.collect();
        let terminal = blank(track)?;
        Ok(Self { track, times, marks, terminal, next: 0, at: Duration::ZERO })
    }

    fn length(&self) -> Duration {
        self.times.last().copied().unwrap_or_default()
    }

    fn is_over(&self) -> bool {
        self.next >= self.times.len()
    }

    /// When the next event is due.
    fn due(&self) -> Option<Duration> {
        self.times.get(self.next).copied()
    }

    /// Goes to a time, back from the beginning.
    pub(super) fn seek(&mut self, to: Duration) -> Result<(), Failure> {
        if to < self.at {
            self.terminal = blank(self.track)?;
            self.next = 0;
        }
        self.at = to.min(self.length());
        while self.due().is_some_and(|due| due <= self.at) {
            if let Some(event) = self.track.events.get(self.next) {
                show(&mut self.terminal, event, self.track.is_terminal());
            }
            self.next += 1;
        }
        Ok(())
    }

    /// Goes to where the track itself was at a time, whichever pauses are cut.
    pub(super) fn begin_at(&mut self, at: Duration) -> Result<(), Failure> {
        let events = || self.track.events.iter().zip(&self.times);
        let before = events().take_while(|(event, _)| event.at <= at).last();
        let to = before.map_or(at, |(event, shown)| *shown + (at - event.at));
        // In a pause that was cut it is just before what ended it.
        let next = events().find(|(event, _)| event.at > at).map(|(_, shown)| *shown);
        let last = next.map_or(to, |next| next.saturating_sub(Duration::from_millis(1)));
        self.seek(to.min(last))
    }

    /// When the next command or mark is, or the end.
    pub(super) fn next_mark(&self) -> Duration {
        let next = self.marks.iter().find(|mark| **mark > self.at);
        next.copied().unwrap_or_else(|| self.length())
    }

    /// When the one before was, or the beginning.
    pub(super) fn last_mark(&self) -> Duration {
        let before = self.at.saturating_sub(JUST_SHOWN);
        let last = self.marks.iter().rev().find(|mark| **mark < before);
        last.copied().unwrap_or_default()
    }

    pub(super) fn rows(&self, size: (usize, usize)) -> Vec<String> {
        rows(&self.terminal, size)
    }
}

fn blank(track: &Track) -> Result<Terminal, Failure> {
    let (columns, rows) = usable(track.size());
    Terminal::new(columns, rows).map_err(|_| Failure::new("internal", "a terminal without a size"))
}

pub(in crate::commands) fn show(terminal: &mut Terminal, event: &Event, is_terminal: bool) {
    match event.code {
        'o' | 'e' if is_terminal => terminal.feed(event.text.as_str()),
        // A command without a terminal ends its lines as files do.
        'o' | 'e' => terminal.feed(event.text.replace('\n', "\r\n").as_str()),
        'r' => {
            if let Some((columns, rows)) = resized(&event.text).map(usable) {
                terminal.resize(columns, rows);
            }
        }
        _ => {}
    }
}

/// The terminal while it is ours: another screen, no cursor.
pub(in crate::commands) struct Stage {
    _raw: RawMode,
    drawn: Vec<String>,
}

impl Stage {
    pub(in crate::commands) fn enter() -> io::Result<Self> {
        let raw = RawMode::enter()?;
        let mut out = io::stdout().lock();
        out.write_all(b"\x1b[?1049h\x1b[?25l\x1b[2J")?;
        out.flush()?;
        Ok(Self { _raw: raw, drawn: Vec::new() })
    }

    /// Writes the rows that are others now.
    pub(in crate::commands) fn draw(&mut self, rows: Vec<String>) -> io::Result<()> {
        let mut out = String::new();
        for (row, text) in rows.iter().enumerate() {
            if self.drawn.get(row) != Some(text) {
                out.push_str(&format!("\x1b[{};1H{text}\x1b[K", row + 1));
            }
        }
        self.drawn = rows;
        let mut stdout = io::stdout().lock();
        stdout.write_all(out.as_bytes())?;
        stdout.flush()
    }

    pub(in crate::commands) fn forget(&mut self) -> io::Result<()> {
        self.drawn.clear();
        io::stdout().lock().write_all(b"\x1b[2J")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let mut out = io::stdout().lock();
        // Nobody is left to tell when it fails.
        out.write_all(b"\x1b[0m\x1b[?25h\x1b[?1049l").and_then(|()| out.flush()).ok();
    }
}

/// What a key asks for.
#[derive(Debug, PartialEq)]
enum Wish {
    Quit,
    Pause,
    Back(Duration),
    On(Duration),
    Mark,
    MarkBefore,
    Event,
    Faster,
    Slower,
}

fn wish(key: KeyEvent) -> Option<Wish> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let far = if key.modifiers.contains(KeyModifiers::SHIFT) { STRIDE } else { STEP };
    #[allow(clippy::wildcard_enum_match_arm, reason = "no other key means anything")]
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Wish::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Wish::Quit),
        KeyCode::Char(' ') => Some(Wish::Pause),
        KeyCode::Left => Some(Wish::Back(far)),
        KeyCode::Right => Some(Wish::On(far)),
        KeyCode::Char(']') => Some(Wish::Mark),
        KeyCode::Char('[') => Some(Wish::MarkBefore),
        KeyCode::Char('.') => Some(Wish::Event),
        KeyCode::Char('+' | '=') => Some(Wish::Faster),
        KeyCode::Char('-') => Some(Wish::Slower),
        _ => None,
    }
}

/// Plays until somebody quits. At the end it waits, so that the last screen is seen.
pub(super) fn play(
    track: &Track,
    speed: f64,
    idle_limit: Option<f64>,
    at: Duration,
) -> Result<(), Failure> {
    let terminal =
        |error: io::Error| Failure::new("terminal", format!("cannot use the terminal: {error}"));
    let mut reel = Reel::new(track, idle_limit)?;
    reel.begin_at(at)?;
    let mut stage = Stage::enter().map_err(terminal)?;
    let (mut speed, mut paused) = (speed, false);
    let mut clock = Instant::now();
    loop {
        let now = Instant::now();
        if !paused && !reel.is_over() {
            let passed = now.duration_since(clock).mul_f64(speed);
            reel.seek(reel.at + passed)?;
        }
        clock = now;
        let size = Size::now();
        let (columns, high) = (usize::from(size.columns), usize::from(size.rows));
        let mut rows = reel.rows((columns, high.saturating_sub(1)));
        rows.push(status(&reel, paused, speed, columns));
        stage.draw(rows).map_err(|error| write_failure(&error))?;
        if !poll(FRAME).map_err(terminal)? {
            continue;
        }
        let wished = match read().map_err(terminal)? {
            Input::Key(key) => wish(key),
            Input::Resize(..) => {
                stage.forget().map_err(|error| write_failure(&error))?;
                None
            }
            Input::FocusGained | Input::FocusLost | Input::Mouse(_) | Input::Paste(_) => None,
        };
        match wished {
            None => {}
            Some(Wish::Quit) => return Ok(()),
            Some(Wish::Pause) => paused = !paused,
            Some(Wish::Back(far)) => reel.seek(reel.at.saturating_sub(far))?,
            Some(Wish::On(far)) => reel.seek(reel.at + far)?,
            Some(Wish::Mark) => reel.seek(reel.next_mark())?,
            Some(Wish::MarkBefore) => reel.seek(reel.last_mark())?,
            Some(Wish::Event) => {
                paused = true;
                reel.seek(reel.due().unwrap_or(reel.at))?;
            }
            Some(Wish::Faster) => speed = (speed * 2.0).min(1024.0),
            Some(Wish::Slower) => speed = (speed / 2.0).max(0.0625),
        }
    }
}

fn status(reel: &Reel<'_>, paused: bool, speed: f64, columns: usize) -> String {
    let clock = |at: Duration| {
        let s = at.as_secs();
        format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
    };
    let state = match (reel.is_over(), paused) {
        (true, _) => "end",
        (false, true) => "paused",
        (false, false) => "playing",
    };
    let text = format!(
        " {} / {}  {state}  x{speed}  space pauses, arrows seek, [ ] command, q quits ",
        clock(reel.at),
        clock(reel.length()),
    );
    let text: String = text.chars().take(columns).collect();
    format!("\x1b[0;7m{text}\x1b[0m")
}

/// Passes what was recorded to standard output as it is.
pub(super) fn raw(track: &Track, speed: f64, idle_limit: Option<f64>) -> Result<(), Failure> {
    let longest = idle_limit.map(|limit| Duration::from_secs_f64(limit.clamp(0.0, 3.2e8)));
    let in_time = output::is_terminal();
    let mut before = Duration::ZERO;
    for event in &track.events {
        let pause = event.at.saturating_sub(before);
        before = event.at;
        if in_time {
            let pause = longest.map_or(pause, |longest| pause.min(longest));
            std::thread::sleep(pause.div_f64(speed));
        }
        if matches!(event.code, 'o' | 'e') {
            output::raw(event.text.as_bytes())?;
        }
    }
    Ok(())
}
