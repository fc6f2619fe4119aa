//! The environment of a session's programs: what a login would set, a few
//! names of our own, and from the client only what the list below allows.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use uuid::Uuid;

use crate::worker::account::Account;
use crate::worker::limits::{ENV_BYTES_MAX, ENV_COUNT_MAX};

/// What stands for the peer's address: over a line there is none. OpenSSH's
/// server says the same when it serves a pipe, and scripts test only that the
/// variable is there.
const CONNECTION: &str = "UNKNOWN 65535 UNKNOWN 65535";
const CLIENT: &str = "UNKNOWN 65535 65535";

const USER_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/games";
const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Languages, colours and git's protocol version, as distributions configure
/// `AcceptEnv`. Nothing that a loader or a shell obeys.
pub(super) fn client_may_set(name: &str) -> bool {
    matches!(name, "LANG" | "LANGUAGE" | "COLORTERM" | "NO_COLOR" | "GIT_PROTOCOL")
        || name.strip_prefix("LC_").is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        })
}

/// Variables a client has set for one channel, bounded.
#[derive(Debug, Default)]
pub(super) struct ClientEnv {
    variables: Vec<(String, String)>,
    bytes: usize,
}

impl ClientEnv {
    /// Whether the variable was taken; `more` are patterns beside the list.
    pub(super) fn set(&mut self, name: &str, value: &str, more: &[String]) -> bool {
        let bytes = self.bytes + name.len() + value.len();
        if !(client_may_set(name) || more.iter().any(|pattern| matches(pattern, name)))
            || value.contains('\0')
            || self.variables.len() >= ENV_COUNT_MAX
            || bytes > ENV_BYTES_MAX
        {
            return false;
        }
        self.bytes = bytes;
        self.variables.push((name.to_owned(), value.to_owned()));
        true
    }
}

/// A name, or the beginning of one with `*` behind it.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning) && !name.contains('='),
        None => name == pattern,
    }
}

/// What one program's environment is made from.
pub(super) struct Sources<'a> {
    pub(super) account: &'a Account,
    pub(super) session: Uuid,
    pub(super) user: &'a str,
    /// The order's.
    pub(super) extra: &'a [(String, String)],
    pub(super) client: &'a ClientEnv,
    /// Terminal name and path of the tty.
    pub(super) terminal: Option<(&'a str, &'a str)>,
    /// Socket of a forwarded ssh-agent.
    pub(super) agent: Option<&'a str>,
}

/// The whole environment; a later entry of a name replaces an earlier one.
pub(super) fn build(sources: &Sources<'_>) -> Vec<(OsString, OsString)> {
    let account = sources.account;
    let mut out = Variables::default();
    // As Debian's login: PAM reads /etc/environment; we link no PAM.
    let system = std::fs::read_to_string("/etc/environment").unwrap_or_default();
    for (name, value) in parse_environment(&system) {
        out.set(name, value);
    }
    for (name, value) in &sources.client.variables {
        out.set(name, value);
    }
    for (name, value) in sources.extra {
        out.set(name, value);
    }
    out.set("USER", &account.name);
    out.set("LOGNAME", &account.name);
    out.set("HOME", account.home.as_os_str());
    out.set("SHELL", account.shell.as_os_str());
    out.set("MAIL", OsString::from_vec([b"/var/mail/", account.name.as_bytes()].concat()));
    if !out.has("PATH") {
        let defs = std::fs::read_to_string("/etc/login.defs").unwrap_or_default();
        out.set("PATH", default_path(&defs, account.uid.is_root()));
    }
    out.set("SSH_CLIENT", CLIENT);
    out.set("SSH_CONNECTION", CONNECTION);
    if let Some((term, tty)) = sources.terminal {
        out.set("SSH_TTY", tty);
        out.set("TERM", term);
    }
    if let Some(socket) = sources.agent {
        out.set("SSH_AUTH_SOCK", socket);
    }
    out.set("BELAY_USER", sources.user);
    out.set("BELAY_SESSION", sources.session.to_string());
    out.0
}

#[derive(Default)]
struct Variables(Vec<(OsString, OsString)>);

impl Variables {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        let name = name.into();
        self.0.retain(|(known, _)| *known != name);
        self.0.push((name, value.into()));
    }
}

/// `NAME=value` lines, as pam_env reads them: `export`, quotes and comments.
fn parse_environment(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=')?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            return None;
        }
        let value = value.trim();
        let unquoted = ['"', '\'']
            .into_iter()
            .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
        Some((name, unquoted.unwrap_or(value)))
    })
}

/// login.defs(5): `ENV_PATH PATH=…` and, for root, `ENV_SUPATH PATH=…`.
fn default_path(defs: &str, root: bool) -> String {
    let key = if root { "ENV_SUPATH" } else { "ENV_PATH" };
    let defined = defs.lines().find_map(|line| {
        let rest = line.trim().strip_prefix(key)?;
        let value = rest.strip_prefix([' ', '\t'])?.trim();
        Some(value.strip_prefix("PATH=").unwrap_or(value))
    });
    defined.unwrap_or(if root { ROOT_PATH } else { USER_PATH }).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn only_listed_variables_are_taken_from_the_client() {
        for name in ["LANG", "LC_ALL", "LC_IDENTIFICATION", "COLORTERM", "GIT_PROTOCOL"] {
            assert!(client_may_set(name), "{name}");
        }
        for name in [
            "LD_PRELOAD",
            "PATH",
            "SSH_AUTH_SOCK",
            "BASH_ENV",
            "LC_",
            "LC_A=B",
            "",
            "lang",
            "TERM",
            "BELAY_USER",
        ] {
            assert!(!client_may_set(name), "{name}");
        }
    }

    #[test]
    fn the_clients_environment_is_bounded() {
        let mut env = ClientEnv::default();
        assert!(!env.set("LANG", &"x".repeat(ENV_BYTES_MAX), &[]));
        assert!(!env.set("LANG", "a\0b", &[]));
        let taken = (0..1_000).filter(|n| env.set(&format!("LC_{n}"), "x", &[])).count();
        assert_eq!(taken, ENV_COUNT_MAX);
    }

    #[test]
    fn system_files_are_read_as_a_login_reads_them() {
        let text = "# c\nexport A=1\nB=\"two words\"\nC='x'\n D = 4\nnonsense\n";
        let read: Vec<_> = parse_environment(text).collect();
        assert_eq!(read, [("A", "1"), ("B", "two words"), ("C", "x")]);
        let defs = "#ENV_PATH\tPATH=/no\nENV_SUPATH\tPATH=/s\nENV_PATH PATH=/u\n";
        assert_eq!(default_path(defs, true), "/s");
        assert_eq!(default_path(defs, false), "/u");
        assert_eq!(default_path("", false), USER_PATH);
    }
}
