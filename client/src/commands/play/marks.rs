//! Where to jump to in a track: its commands, and what was marked.

use super::track::{Event, Track};

/// A shell that marks its commands says so where the output of one begins (OSC 133).
const OUTPUT: &str = "\x1b]133;C";

/// The events one may want to jump to, by their numbers: marks, and commands, where the shell says where they begin;
/// where none does, lines that were typed, if that is recorded.
pub(super) fn marks(track: &Track) -> Vec<usize> {
    let commands = commands(&track.events);
    let typed = |event: &Event| event.code == 'i' && event.text.contains('\r');
    let is_mark = |(number, event): (usize, &Event)| {
        let is_command = match commands.is_empty() {
            true => typed(event),
            false => commands.binary_search(&number).is_ok(),
        };
        (event.code == 'm' || is_command).then_some(number)
    };
    track.events.iter().enumerate().filter_map(is_mark).collect()
}

/// Events in which a command's output begins. What says so may be cut in two by the way it was read.
fn commands(events: &[Event]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut seen = String::new();
    for (number, event) in events.iter().enumerate() {
        if event.code != 'o' {
            continue;
        }
        seen.push_str(&event.text);
        if seen.contains(OUTPUT) {
            found.push(number);
        }
        // Too little to be found again.
        let keep = seen.floor_char_boundary(seen.len().saturating_sub(OUTPUT.len() - 1));
        seen.drain(..keep);
    }
    found
}
