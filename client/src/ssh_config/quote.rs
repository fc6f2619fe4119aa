//! Quoting for two readers: a POSIX shell, and the arguments of ssh_config(5).

use std::path::Path;

/// One word for a POSIX shell (XCU §2.2.2): as it is when nothing in it is special, otherwise in
/// single quotes.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| {
        c.is_ascii_alphanumeric()
            || matches!(c, '-' | '_' | '.' | '/' | ':' | '=' | '@' | ',' | '+')
    };
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A path that cannot stand in an ssh_config argument.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the path \"{0}\" has a character that ssh_config gives a meaning of its own")]
pub struct UnfitPath(String);

/// A path as an argument of ssh_config(5), in double quotes.
///
/// ssh expands `%` tokens and `${}` in some arguments, wildcards in `Include`, and its quoting
/// rules changed between releases, so a path with any of those characters is refused: no spelling
/// of it means the same to every ssh.
///
/// # Errors
/// [`UnfitPath`].
pub fn ssh_path(path: &Path) -> Result<String, UnfitPath> {
    let unfit = || UnfitPath(path.display().to_string());
    let text = path.to_str().ok_or_else(unfit)?;
    // ssh on Windows takes forward slashes, and backslashes are quoting.
    let text = if cfg!(windows) { text.replace('\\', "/") } else { text.to_owned() };
    let unfit_char = |c: char| {
        c.is_control() || matches!(c, '"' | '\\' | '$' | '%' | '*' | '?' | '[' | ']' | '{' | '}')
    };
    if text.is_empty() || text.starts_with('~') || text.chars().any(unfit_char) {
        return Err(unfit());
    }
    Ok(format!("\"{text}\""))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_shell_reads_back_every_word_as_it_was() {
        let words =
            ["", "a", "a b", "it's", "$(id)", "a\nb", "*", "''", "\\", "-n", "é ü", "\"x\""];
        for word in words {
            let output = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", shell_word(word))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }

    #[test]
    fn a_path_with_spaces_is_quoted_and_one_with_meaning_is_refused() {
        assert_eq!(ssh_path(Path::new("/home/a b/x")).unwrap(), "\"/home/a b/x\"");
        for bad in ["/a%h", "/a\"b", "/a\nb", "/a*", "/a[1]", "/${HOME}", "~/x", "/a\\b", ""] {
            assert!(ssh_path(Path::new(bad)).is_err(), "{bad:?}");
        }
    }
}
