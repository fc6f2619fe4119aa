//! What a terminal shows, kept so that another client can see it.
//!
//! Its law: keeping it costs the program nothing that can be noticed. Output is set aside first and
//! read by the screen when the program pauses, or when enough has come together; of a flood of plain
//! text only the end is read ([`flood`]). What it is not: no recording, and no judge of what it is
//! given; sequences it does not know it forgets.

use std::time::Duration;

use avt::{Line, ScreenKind, Terminal};
use rustix::termios::Winsize;
use tokio::time::sleep;

use super::flood;
use super::modes::Modes;
use crate::worker::limits::{SCREEN_COLUMNS_MAX, SCREEN_ROWS_MAX, SCROLLBACK};

/// Output set aside before the screen reads it, at most.
const ASIDE_MAX: usize = 256 * 1024;

/// A pause in a program's output in which the screen reads what was set aside.
const PAUSE: Duration = Duration::from_millis(25);

/// A control sequence that is longer is read in pieces.
const SEQUENCE_MAX: usize = 64;

/// What a terminal has had since the VT100, for one whose size nobody has said.
const USUAL: (usize, usize) = (80, 24);

pub(in crate::worker) struct Screen {
    terminal: Terminal,
    modes: Modes,
    aside: Vec<u8>,
    /// Something was set aside since it was read.
    behind: bool,
}

impl Screen {
    pub(super) fn new(size: Winsize) -> Self {
        let (columns, rows) = bounded(size);
        let terminal = Terminal::with_scrollback(columns, rows, Some(SCROLLBACK));
        let terminal = terminal.or_else(|_| Terminal::new(USUAL.0, USUAL.1));
        Self {
            // Neither size is zero.
            terminal: terminal.unwrap_or_else(|_| unreachable!("80 columns, 24 rows")),
            modes: Modes::default(),
            aside: Vec::new(),
            behind: false,
        }
    }

    /// The program wrote this, on a terminal of the size `size` gives.
    pub(in crate::worker) fn push(&mut self, bytes: &[u8], size: impl FnOnce() -> Option<Winsize>) {
        self.aside.extend_from_slice(bytes);
        if self.aside.len() < ASIDE_MAX {
            self.behind = true;
            return;
        }
        self.fit(size());
        self.skip();
        // A flood goes on: what is left now will be left out the next time.
        if self.aside.len() > ASIDE_MAX / 2 {
            self.read();
        }
    }

    /// Waits until [`Self::settle`] is due, if nothing comes before. The pause begins here: that a
    /// client took its time to take something is none of the program's.
    pub(in crate::worker) async fn paused(&self) {
        if self.behind {
            sleep(PAUSE).await;
        } else {
            std::future::pending().await
        }
    }

    /// Reads all that was set aside.
    pub(in crate::worker) fn settle(&mut self, size: Option<Winsize>) {
        self.fit(size);
        if self.aside.len() > ASIDE_MAX / 4 {
            self.skip();
        }
        self.read();
        self.aside.shrink_to(0);
        self.behind = false;
    }

    /// What draws all of this on an empty or a full terminal of the size given: scrollback, screen,
    /// cursor, modes.
    pub(super) fn redraw(&mut self, size: Winsize) -> Vec<u8> {
        self.settle(Some(size));
        self.drawn(true)
    }

    /// The same of a screen that has read everything, in the size it has, with or without what
    /// scrolled off it.
    pub(in crate::worker) fn drawn(&self, scrollback: bool) -> Vec<u8> {
        let (_, rows) = self.terminal.size();
        // What stands there is scrolled away, not erased: it is somebody's.
        let mut out = format!("\x1b[0m\x1b[{rows};1H{}\x1b[H\x1b[2J", "\n".repeat(rows));
        let primary = self.terminal.primary_screen();
        let history = primary.all_lines().count().saturating_sub(rows);
        let history = if scrollback { history } else { 0 };
        for line in primary.all_lines().take(history) {
            draw(line, &mut out);
        }
        out.push_str(&spelt_out(&self.terminal.dump()));
        out.push_str(&self.modes.told());
        let mut out = out.into_bytes();
        // What goes on with the next byte.
        out.extend_from_slice(&self.aside);
        out
    }

    /// Whether a program draws on the other screen, as editors do.
    pub(super) fn is_alternate(&self) -> bool {
        self.terminal.active_screen_kind() == ScreenKind::Alternate
    }

    /// Whether nothing is under way that something else would break into, once all was read.
    pub(super) fn is_whole(&self) -> bool {
        self.aside.is_empty()
    }

    /// Whether a program draws where it likes, so that a line more would move what it has drawn.
    pub(super) fn has_its_own_ways(&self) -> bool {
        self.is_alternate() || self.modes.has_margins()
    }

    /// Columns and rows.
    pub(super) fn size(&self) -> (usize, usize) {
        self.terminal.size()
    }

    /// What draws the line with the cursor in it on an empty line of a client's, and leaves cursor
    /// and colours as they are here.
    pub(super) fn current_line(&self) -> String {
        let mut out = String::new();
        let cursor = self.terminal.cursor();
        if let Some(line) = self.terminal.screen().line(cursor.row) {
            draw(line, &mut out);
        }
        let mut out = out.trim_end_matches(['\r', '\n']).to_owned();
        out.push('\r');
        if cursor.col > 0 {
            out.push_str(&format!("\x1b[{}C", cursor.col));
        }
        if let Some(pen) = self.pen() {
            out.push_str(&colours(&pen));
        }
        out
    }

    /// What the next character would look like. The library does not say: one like it is asked.
    fn pen(&self) -> Option<avt::Pen> {
        let (columns, rows) = self.terminal.size();
        let mut asked = Terminal::new(columns, rows).ok()?;
        asked.feed(self.terminal.dump().as_str());
        // Wherever its margins let that be.
        asked.feed("\x1b[H");
        let at = asked.cursor();
        asked.feed("x");
        Some(*asked.screen().line(at.row)?.cells().get(at.col)?.pen())
    }

    fn fit(&mut self, size: Option<Winsize>) {
        let Some(size) = size else { return };
        let (columns, rows) = bounded(size);
        if self.terminal.size() != (columns, rows) {
            // What came before was drawn for the old size.
            self.read();
            self.terminal.resize(columns, rows);
        }
    }

    fn skip(&mut self) {
        if self.is_alternate() || self.modes.has_margins() {
            return;
        }
        let (columns, rows) = self.terminal.size();
        let columns = if self.modes.wraps() { columns } else { usize::MAX };
        if let Some(skipped) = flood::skip(&self.aside, rows + SCROLLBACK + 1, columns) {
            self.terminal.feed(&*String::from_utf8_lossy(&skipped.instead));
            self.aside.drain(..skipped.bytes);
        }
    }

    fn read(&mut self) {
        let whole = self.aside.len() - unfinished(&self.aside);
        let bytes = self.aside.get(..whole).unwrap_or_default();
        self.modes.watch(bytes);
        self.terminal.feed(&*String::from_utf8_lossy(bytes));
        self.aside.drain(..whole);
    }
}

/// A size the screen has: everything it keeps is columns × rows.
fn bounded(size: Winsize) -> (usize, usize) {
    match (usize::from(size.ws_col), usize::from(size.ws_row)) {
        (0, _) | (_, 0) => USUAL,
        (columns, rows) => (columns.min(SCREEN_COLUMNS_MAX), rows.min(SCREEN_ROWS_MAX)),
    }
}

/// How many bytes at the end are the beginning of something.
fn unfinished(bytes: &[u8]) -> usize {
    let tail = bytes.get(bytes.len().saturating_sub(SEQUENCE_MAX)..).unwrap_or_default();
    let sequence = tail.iter().rposition(|byte| *byte == 0x1b).and_then(|at| tail.get(at..));
    match sequence {
        Some([_]) => 1,
        // ECMA-48, 5.4: parameters and intermediate bytes, and no final one.
        Some(all @ [_, b'[', rest @ ..]) if rest.iter().all(|b| (b' '..=b'?').contains(b)) => {
            all.len()
        }
        Some(_) | None => unfinished_character(bytes),
    }
}

/// The same of a character (RFC 3629).
fn unfinished_character(bytes: &[u8]) -> usize {
    let tail = bytes.iter().rev().take(3).enumerate();
    for (behind, byte) in tail {
        let length = match byte {
            0x80..0xc0 => continue,
            0xc2..0xe0 => 2,
            0xe0..0xf0 => 3,
            0xf0..0xf5 => 4,
            _ => return 0,
        };
        return if behind + 1 < length { behind + 1 } else { 0 };
    }
    0
}

/// One line of the scrollback, with its colours, without the blanks at its end.
fn draw(line: &Line, out: &mut String) {
    let cells = line.cells();
    let blank = |cell: &avt::Cell| cell.char() == ' ' && *cell.pen() == avt::Pen::default();
    let kept = if line.is_wrapped() {
        cells.len()
    } else {
        cells.iter().rposition(|cell| !blank(cell)).map_or(0, |last| last + 1)
    };
    let mut pen = avt::Pen::default();
    // A wide character stands in its first cell; the second has none of its own.
    for cell in cells.iter().take(kept).filter(|cell| cell.width() > 0) {
        if *cell.pen() != pen {
            pen = *cell.pen();
            out.push_str(&colours(&pen));
        }
        out.push(cell.char());
    }
    if pen != avt::Pen::default() {
        out.push_str("\x1b[0m");
    }
    // A wrapped line goes on in the next, as it did when it was written.
    if !line.is_wrapped() {
        out.push_str("\r\n");
    }
}

/// SGR (ECMA-48, 8.3.117) from anything to this.
fn colours(pen: &avt::Pen) -> String {
    let mut codes = String::from("\x1b[0");
    let flags = [
        (pen.is_bold(), "1"),
        (pen.is_faint(), "2"),
        (pen.is_italic(), "3"),
        (pen.is_underline(), "4"),
        (pen.is_blink(), "5"),
        (pen.is_inverse(), "7"),
        (pen.is_strikethrough(), "9"),
    ];
    for (_, code) in flags.iter().filter(|(on, _)| *on) {
        codes.push(';');
        codes.push_str(code);
    }
    for (colour, base) in [(pen.foreground(), 30_u8), (pen.background(), 40)] {
        match colour {
            None => {}
            Some(avt::Color::Indexed(index @ 0..8)) => {
                codes.push_str(&format!(";{}", base + index))
            }
            Some(avt::Color::Indexed(index @ 8..16)) => {
                codes.push_str(&format!(";{}", base + 52 + index));
            }
            Some(avt::Color::Indexed(index)) => codes.push_str(&format!(";{};5;{index}", base + 8)),
            Some(avt::Color::RGB(rgb)) => {
                codes.push_str(&format!(";{};2;{};{};{}", base + 8, rgb.r, rgb.g, rgb.b));
            }
        }
    }
    codes.push('m');
    codes
}

/// The library repeats a character by `CSI n b`, which not every terminal knows.
fn spelt_out(dump: &str) -> String {
    let mut out = String::with_capacity(dump.len() * 2);
    let mut rest = dump;
    while let Some(at) = rest.find("\x1b[") {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let numbers = from.get(2..).unwrap_or_default();
        let digits = numbers.bytes().take_while(u8::is_ascii_digit).count();
        let last = out.chars().next_back();
        let (number, after) = numbers.split_at(digits);
        if let (Some(after), Ok(count), Some(last)) =
            (after.strip_prefix('b'), number.parse::<usize>(), last)
        {
            out.extend(std::iter::repeat_n(last, count.min(SCREEN_COLUMNS_MAX)));
            rest = after;
        } else {
            out.push_str("\x1b[");
            rest = numbers;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn size(columns: u16, rows: u16) -> Winsize {
        Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 }
    }

    fn showing(text: &str) -> Screen {
        let mut screen = Screen::new(size(20, 4));
        screen.push(text.as_bytes(), || None);
        screen
    }

    /// A client's terminal after a redraw, with something on it before.
    fn seen(screen: &mut Screen, columns: u16, rows: u16) -> Terminal {
        let mut client =
            Terminal::with_scrollback(columns.into(), rows.into(), Some(5000)).unwrap();
        client.feed("my own\r\nprompt$ belay attach");
        client.feed(std::str::from_utf8(&screen.redraw(size(columns, rows))).unwrap());
        client
    }

    fn lines(terminal: &Terminal) -> Vec<String> {
        let lines = terminal.primary_screen().all_lines();
        lines.map(|line| line.text().trim_end().to_owned()).collect()
    }

    #[test]
    fn a_client_sees_the_scrollback_the_screen_and_the_cursor() {
        let mut text = String::new();
        for n in 0..10 {
            text.push_str(&format!("line {n}\r\n"));
        }
        let mut screen = showing(&(text + "\x1b[1;31mred\x1b[0m wide 世 $ "));
        let client = seen(&mut screen, 20, 4);
        let lines = lines(&client);
        let end = lines.len() - 11;
        assert_eq!(lines[end], "line 0");
        assert_eq!(lines[end + 9..], ["line 9", "red wide 世 $"]);
        assert!(lines.iter().any(|line| line == "my own"), "what stood there is not lost");
        assert_eq!(client.dump(), screen.terminal.dump());
    }

    #[test]
    fn a_screen_without_scrollback_is_the_same_on_the_clients_terminal() {
        for text in ["", "one\r\ntwo", "\x1b[2;3Hx\x1b7\x1b[4;4H\x1b[?25l", "\x1b[2;3r\x1b[3;1Hin"]
        {
            let mut screen = showing(text);
            let client = seen(&mut screen, 20, 4);
            assert_eq!(client.dump(), screen.terminal.dump(), "{text:?}");
        }
    }

    #[test]
    fn a_program_on_the_other_screen_is_seen_there_and_leaves_the_first_as_it_was() {
        let mut screen = showing("$ vim\r\n\x1b[?1049h\x1b[H~\r\n~ file\x1b[?2004h");
        let mut client = seen(&mut screen, 20, 4);
        assert!(screen.is_alternate());
        assert_eq!(client.active_screen_kind(), ScreenKind::Alternate);
        assert_eq!(client.screen().line(1).unwrap().text().trim_end(), "~ file");
        client.feed("\x1b[?1049l$ ");
        let last: Vec<_> = lines(&client).into_iter().rev().take(4).collect();
        assert!(last.contains(&"$ vim".to_owned()) && last.contains(&"$".to_owned()), "{last:?}");
    }

    #[test]
    fn a_client_of_another_size_gets_it_for_its_own() {
        let mut screen = showing("a line of more than ten\r\nb");
        let client = seen(&mut screen, 10, 6);
        assert_eq!(client.dump(), screen.terminal.dump());
        assert!(lines(&client).iter().any(|line| line == "a line of"));
    }

    #[test]
    fn a_character_may_come_in_pieces_and_nonsense_is_shown_as_such() {
        let text = "aé世🦀\r\n".as_bytes();
        for at in 0..=text.len() {
            let mut screen = Screen::new(size(20, 4));
            for piece in [&text[..at], &text[at..]] {
                screen.push(piece, || None);
                screen.settle(None);
            }
            assert_eq!(lines(&screen.terminal)[0], "aé世🦀", "{at}");
        }
        let mut screen = Screen::new(size(20, 4));
        screen.push(b"a\xff\xc3b\xc3", || None);
        screen.settle(None);
        assert_eq!(lines(&screen.terminal)[0], "a\u{fffd}\u{fffd}b");
    }

    #[test]
    fn a_client_that_comes_in_the_middle_of_something_gets_its_beginning() {
        let text = "a\x1b[3;31mé\x1b[0m";
        for at in 0..text.len() {
            let (begun, rest) = text.as_bytes().split_at(at);
            let mut screen = Screen::new(size(20, 4));
            screen.push(begun, || None);
            let mut bytes = screen.redraw(size(20, 4));
            bytes.extend_from_slice(rest);
            let mut client = Terminal::new(20, 4).unwrap();
            client.feed(std::str::from_utf8(&bytes).unwrap());
            let mut whole = showing(text);
            whole.settle(None);
            assert_eq!(client.dump(), whole.terminal.dump(), "{at}");
        }
    }

    #[test]
    fn a_flood_ends_with_the_same_screen_and_takes_bounded_memory() {
        let (mut flooded, mut read) = (showing("begin\x1b[3;3H"), showing("begin\x1b[3;3H"));
        read.settle(None);
        for n in 0..60_000 {
            let line = format!("line {n} \x1b[3{}mof many\x1b[0m\r\n", n % 8);
            flooded.push(line.as_bytes(), || Some(size(20, 4)));
            assert!(flooded.aside.len() <= ASIDE_MAX);
            read.push(line.as_bytes(), || None);
            read.read();
        }
        flooded.settle(None);
        assert_eq!(flooded.terminal.dump(), read.terminal.dump());
        assert_eq!(lines(&flooded.terminal), lines(&read.terminal));
        assert_eq!(lines(&flooded.terminal).len(), SCROLLBACK + 4);
    }

    #[test]
    fn a_terminal_of_any_size_has_a_bounded_screen() {
        for (columns, rows) in [(0, 0), (1, 1), (4096, 4096), (u16::MAX, u16::MAX), (4096, 1)] {
            let mut screen = Screen::new(size(columns, rows));
            screen.push("x\r\n".repeat(5000).as_bytes(), || None);
            screen.redraw(size(columns, rows));
            let (wide, high) = screen.terminal.size();
            assert!(wide <= SCREEN_COLUMNS_MAX && high <= SCREEN_ROWS_MAX);
        }
    }
}
