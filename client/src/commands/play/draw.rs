//! A recorded terminal's screen on this one: characters and colours, nothing else.
//!
//! A device's bytes go into a terminal of ours ([`avt`]); what is written here is made from its cells.
//! Titles, clipboard, links, questions that a terminal would answer: none of them is a cell.

use avt::{Cell, Color, Pen, Terminal};

/// Largest screen played: wider and higher than any display shows legibly.
const COLUMNS_MAX: usize = 500;
/// See [`COLUMNS_MAX`].
const ROWS_MAX: usize = 250;

/// A size a screen may have.
pub(in crate::commands) fn usable((columns, rows): (usize, usize)) -> (usize, usize) {
    (columns.clamp(1, COLUMNS_MAX), rows.clamp(1, ROWS_MAX))
}

/// What no character of a recording may do: act on a terminal.
fn acts(c: char) -> bool {
    let mut one = [0; 4];
    let text: &str = c.encode_utf8(&mut one);
    c != '\t' && belay_proto::error_line::printable(text) != text
}

/// A line of text that acts on no terminal.
pub(in crate::commands) fn inert(line: &str) -> String {
    line.chars().map(|c| if acts(c) { '\u{fffd}' } else { c }).collect()
}

/// The screen's rows as they are to be written, cut to what this terminal shows.
pub(in crate::commands) fn rows(
    terminal: &Terminal,
    (columns, rows): (usize, usize),
) -> Vec<String> {
    let screen = terminal.screen();
    (0..rows)
        .map(|row| screen.line(row).map(|line| drawn(line.cells(), columns)).unwrap_or_default())
        .collect()
}

fn drawn(cells: &[Cell], columns: usize) -> String {
    let mut out = String::new();
    let mut pen = Pen::default();
    let mut width = 0;
    // A wide character stands in its first cell; the second has none of its own.
    for cell in cells.iter().filter(|cell| cell.width() > 0) {
        width += usize::from(cell.width());
        if width > columns {
            break;
        }
        if *cell.pen() != pen {
            pen = *cell.pen();
            out.push_str(&colours(&pen));
        }
        out.push(if acts(cell.char()) { '\u{fffd}' } else { cell.char() });
    }
    out.push_str("\x1b[0m");
    out
}

/// SGR (ECMA-48, 8.3.117) from anything to this.
fn colours(pen: &Pen) -> String {
    let mut codes = String::from("\x1b[0");
    let flags = [
        (pen.is_bold(), 1),
        (pen.is_faint(), 2),
        (pen.is_italic(), 3),
        (pen.is_underline(), 4),
        (pen.is_inverse(), 7),
        (pen.is_strikethrough(), 9),
    ];
    for (_, code) in flags.iter().filter(|(on, _)| *on) {
        codes.push_str(&format!(";{code}"));
    }
    for (colour, base) in [(pen.foreground(), 38), (pen.background(), 48)] {
        match colour {
            None => {}
            Some(Color::Indexed(index)) => codes.push_str(&format!(";{base};5;{index}")),
            Some(Color::RGB(rgb)) => {
                codes.push_str(&format!(";{base};2;{};{};{}", rgb.r, rgb.g, rgb.b));
            }
        }
    }
    codes.push('m');
    codes
}
