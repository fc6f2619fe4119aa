//! Telling apart what our own file server says to the client and to the recording, on one pipe.

use crate::worker::sftp::MARK;

/// Longest line for the recording: two paths of an event's length, escaped.
const LINE_MAX: usize = 64 * 1024;

/// Cuts what comes, however it comes.
#[derive(Debug, Default)]
pub(in crate::worker) struct Lines {
    /// A line for the recording that has begun.
    begun: Option<Vec<u8>>,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::worker) enum Said {
    ToClient(Vec<u8>),
    ToRecording(String),
}

impl Lines {
    pub(in crate::worker) fn cut(&mut self, mut bytes: &[u8]) -> Vec<Said> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let (end, is_line) = match self.begun {
                Some(_) => (b'\n', true),
                None => (MARK, false),
            };
            let at = bytes.iter().position(|byte| *byte == end);
            let (part, rest) = bytes.split_at(at.unwrap_or(bytes.len()));
            // What ends it belongs to neither.
            bytes = rest.get(1..).unwrap_or_default();
            if !is_line {
                if !part.is_empty() {
                    found.push(Said::ToClient(part.to_vec()));
                }
                self.begun = at.map(|_| Vec::new());
                continue;
            }
            if let Some(line) = &mut self.begun {
                let room = LINE_MAX.saturating_sub(line.len());
                line.extend_from_slice(part.get(..part.len().min(room)).unwrap_or_default());
            }
            if at.is_some()
                && let Some(line) = self.begun.take()
            {
                found.push(Said::ToRecording(String::from_utf8_lossy(&line).into_owned()));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn the_two_are_told_apart_wherever_the_pipe_cuts() {
        let bytes = b"oh\n\x1e{\"what\":\"file\"}\n\x1e{}\nmore\n";
        for step in 1..=bytes.len() {
            let mut lines = Lines::default();
            let (mut client, mut recording) = (Vec::new(), Vec::new());
            for piece in bytes.chunks(step) {
                for said in lines.cut(piece) {
                    match said {
                        Said::ToClient(bytes) => client.extend(bytes),
                        Said::ToRecording(line) => recording.push(line),
                    }
                }
            }
            assert_eq!(client, b"oh\nmore\n", "{step}");
            assert_eq!(recording, ["{\"what\":\"file\"}", "{}"], "{step}");
        }
    }

    #[test]
    fn a_line_that_does_not_end_is_bounded() {
        let mut lines = Lines::default();
        for _ in 0..100 {
            assert!(lines.cut(&[MARK; 4096]).is_empty());
        }
        assert!(lines.begun.is_some_and(|line| line.len() <= LINE_MAX));
    }
}
