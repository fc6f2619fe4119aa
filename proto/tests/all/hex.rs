//! Bytes as text files people can read in a diff: comment lines begin with `#`.

use std::fmt::Write as _;

pub(crate) fn write(comment: &str, bytes: &[u8]) -> String {
    let mut text = format!("# {comment}\n");
    for row in bytes.chunks(32) {
        for byte in row {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
    }
    text
}

pub(crate) fn read(text: &str) -> Vec<u8> {
    let digits: String = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(digits.len().is_multiple_of(2), "an odd number of digits");
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits"))
        .collect()
}

#[test]
fn hex_reads_back() {
    let bytes: Vec<u8> = (0..=255).collect();
    assert_eq!(read(&write("all of them", &bytes)), bytes);
}
