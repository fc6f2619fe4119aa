//! Text a device reports about itself: kept, shown, never believed.

use belay_proto::error_line::printable;
use belay_proto::limits::MAX_REPORTED_TEXT;

/// The text as it may be stored and shown: no control characters, at most
/// [`MAX_REPORTED_TEXT`] bytes.
pub fn reported(text: &str) -> String {
    let mut text = printable(text);
    let mut end = text.len().min(MAX_REPORTED_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reported_text_is_bounded_at_a_character_and_cannot_act() {
        assert_eq!(reported("pump\u{1b}[2J"), "pump\u{fffd}[2J");
        let long = reported(&"é".repeat(1000));
        assert_eq!(long.len(), MAX_REPORTED_TEXT);
        assert_eq!(reported(&format!("x{}", "é".repeat(1000))).len(), MAX_REPORTED_TEXT - 1);
    }
}
