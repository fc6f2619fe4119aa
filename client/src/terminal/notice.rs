//! The one line that says that the session's line is down, and goes away with it.
//!
//! It is drawn over the terminal's last row, with the cursor put back, so nothing scrolls. What was
//! there is gone from this terminal only; the caller has the program over there draw anew.

use std::io::Write as _;
use std::time::Duration;

use super::Size;

/// A shorter pause is not worth a word.
pub const AFTER: Duration = Duration::from_millis(1500);

/// What is said. How long it lasts is shown, not since when: this machine's clock may be wrong.
pub fn text(lasts: Duration, why: &str) -> String {
    let down = crate::span::rough(lasts);
    format!("belay: no line for {down} ({why}); trying. Enter ~. to give up")
}

/// Draws the line.
pub fn show(size: Size, text: &str) {
    let width = usize::from(size.columns).saturating_sub(1);
    let shown: String = text.chars().filter(|c| !c.is_control()).take(width).collect();
    // ECMA-48: save the cursor (DECSC), last row, erase, reverse video, and back (DECRC).
    write(&format!("\x1b7\x1b[{};1H\x1b[2K\x1b[7m{shown}\x1b[0m\x1b8", size.rows));
}

/// Takes it away.
pub fn clear(size: Size) {
    write(&format!("\x1b7\x1b[{};1H\x1b[2K\x1b8", size.rows));
}

fn write(sequence: &str) {
    let mut terminal = std::io::stderr().lock();
    // A terminal that is gone needs no notice.
    terminal.write_all(sequence.as_bytes()).and_then(|()| terminal.flush()).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_for_how_long_and_how_to_give_up() {
        assert_eq!(
            text(Duration::from_secs(75), "no answer"),
            "belay: no line for 75 s (no answer); trying. Enter ~. to give up"
        );
    }
}
