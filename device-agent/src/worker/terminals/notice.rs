//! A line of ours on a terminal that shows a program: who came and who left.
//!
//! It goes to the people, not to the program, which goes on as if nothing were there. On the first
//! screen it is a line of its own, and the line the cursor is in is drawn again below it; where the
//! program has the screen to itself it stands on the last row until that is drawn over.

use super::Screen;

/// What draws these lines for a client that sees what the screen has. The screen has read everything.
pub(super) fn draw(screen: &Screen, lines: &[String]) -> Vec<u8> {
    let text = |line: &String| format!("[belay] {}", super::super::ssh::shown(line));
    let mut out = String::new();
    if screen.has_its_own_ways() {
        let (columns, rows) = screen.size();
        let line = lines.iter().map(text).collect::<Vec<_>>().join("; ");
        let line: String = line.chars().take(columns).collect();
        // DECSC, and DECRC for cursor and colours.
        out.push_str(&format!("\x1b7\x1b[{rows};1H\x1b[0;7m{line}\x1b[0m\x1b8"));
    } else {
        out.push_str("\x1b[0m\r\n");
        for line in lines {
            out.push_str(&text(line));
            out.push_str("\r\n");
        }
        out.push_str(&screen.current_line());
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use avt::Terminal;
    use rustix::termios::Winsize;

    use super::*;

    fn client(shown: &str) -> (Screen, Terminal) {
        let size = Winsize { ws_col: 40, ws_row: 6, ws_xpixel: 0, ws_ypixel: 0 };
        let mut screen = Screen::new(size);
        screen.push(shown.as_bytes(), || None);
        screen.settle(None);
        let mut client = Terminal::new(40, 6).unwrap();
        client.feed(shown);
        client.feed(std::str::from_utf8(&draw(&screen, &["olga left".to_owned()])).unwrap());
        (screen, client)
    }

    fn rows(client: &Terminal) -> Vec<String> {
        (0..6).map(|row| client.screen().line(row).unwrap().text().trim_end().to_owned()).collect()
    }

    #[test]
    fn at_a_prompt_it_is_a_line_of_its_own_and_the_prompt_stands_below_it() {
        let (_, mut client) = client("one\r\n\x1b[32m$ ls -l\x1b[2D");
        assert_eq!(rows(&client), ["one", "$ ls -l", "[belay] olga left", "$ ls -l", "", ""]);
        assert_eq!((client.cursor().col, client.cursor().row), (5, 3), "where it was in its line");
        client.feed("X");
        assert_eq!(rows(&client).get(3).unwrap(), "$ ls Xl");
        let pen = *client.screen().line(3).unwrap().cells().get(5).unwrap().pen();
        assert_eq!(pen.foreground(), Some(avt::Color::Indexed(2)), "and in its colour");
    }

    #[test]
    fn where_a_program_has_the_screen_it_is_the_last_row_and_nothing_else_changes() {
        let (_, client) = client("\x1b[?1049h\x1b[H~ a\r\n~ b\x1b[2;3H");
        assert_eq!(rows(&client), ["~ a", "~ b", "", "", "", "[belay] olga left"]);
        assert_eq!((client.cursor().col, client.cursor().row), (2, 1));
    }
}
