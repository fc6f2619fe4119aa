//! Tables for people: plain columns, no frames, safe on a terminal whatever a device called itself.

use belay_proto::error_line::printable;
use comfy_table::{ContentArrangement, Table, presets};

/// Longest cell shown, in characters: a table is for reading, `--json` has all of it.
const MAX_CELL: usize = 60;

/// Lays rows out under a heading. `widths` of the terminal are not asked: a line is one row.
pub(crate) fn render(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heading.iter().map(|title| title.to_uppercase()));
    for row in rows {
        table.add_row(row.iter().map(|cell| shown(cell)));
    }
    let text = table.to_string();
    text.lines().map(str::trim_end).map(|line| line.strip_prefix(' ').unwrap_or(line)).fold(
        String::new(),
        |mut out, line| {
            if !out.is_empty() {
                out.push('\n');
            }
            out.push_str(line);
            out
        },
    )
}

fn shown(cell: &str) -> String {
    let cell = printable(cell);
    if cell.chars().count() <= MAX_CELL {
        return cell;
    }
    cell.chars().take(MAX_CELL - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn a_row_stays_a_row_and_no_cell_acts_on_the_terminal() {
        let hostile = "pump\n\u{1b}]52;c;cm0gLXJm\u{7}\u{202e}\u{9b}2J\r\t".to_owned();
        let long = "x".repeat(5000);
        let text =
            render(&["name", "os"], &[vec![hostile, "linux".into()], vec![long, "b".into()]]);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
        assert!(!text.contains('\u{202e}'));
        assert!(text.lines().all(|line| line.chars().count() < 100), "{text}");
    }

    #[test]
    fn columns_line_up_under_their_headings() {
        let text = render(&["name", "os"], &[vec!["a".into(), "b".into()]]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0].find("OS"), lines[1].find('b'));
        assert!(lines[0].starts_with("NAME"));
    }
}
