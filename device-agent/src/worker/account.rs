//! The login user: does it exist, may it log in, what does its session need.
//!
//! The rules are a shell login's: a locked or expired account, `/etc/nologin`
//! and a shell that cannot be run refuse the session with the reason. An
//! account whose password was never set (`!` or `*` alone) is not locked:
//! such accounts are meant for keys, and Debian's sshd admits them too.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, Gid, Uid, User};
use thiserror::Error;

/// An account that may log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: Uid,
    pub gid: Gid,
    pub home: PathBuf,
    pub shell: PathBuf,
    /// Whether the shell is an ordinary one by shells(5). SFTP does not pass
    /// through the shell, so it must not open where a restricted shell, or
    /// `nologin`, is meant to keep its user in or out.
    pub ordinary_shell: bool,
}

/// Why a login is refused: cause and remedy in one line.
#[derive(Debug, Error)]
pub enum AccountError {
    #[error("login `{0}` does not exist on this device: ask for another login")]
    Unknown(String),
    #[error("login `{0}` cannot be looked up on this device: {1}")]
    Lookup(String, nix::Error),
    #[error("login `{0}` is locked on this device: the device's owner can unlock it (usermod -U)")]
    Locked(String),
    #[error("login `{0}` has expired on this device: the device's owner can extend it (chage -E)")]
    Expired(String),
    #[error("this device admits only root now: {0}")]
    NoLogin(String),
    #[error(
        "login `{login}` has a shell that cannot be run, {shell}: the device's owner can change it (chsh)"
    )]
    Shell { login: String, shell: String },
    #[error(
        "this agent runs as `{agent}`, not as root, and serves only that login: ask for `{agent}`, not `{login}`"
    )]
    NotOurs { agent: String, login: String },
}

impl Account {
    /// Looks up `login` and judges whether it may log in, at `now` (Unix
    /// seconds of the corrected clock).
    ///
    /// # Errors
    /// See [`AccountError`].
    pub fn admit(login: &str, now: i64) -> Result<Self, AccountError> {
        let user = User::from_name(login)
            .map_err(|error| AccountError::Lookup(login.to_owned(), error))?
            .ok_or_else(|| AccountError::Unknown(login.to_owned()))?;
        let us = Uid::effective();
        if !us.is_root() && user.uid != us {
            let agent = User::from_uid(us).ok().flatten();
            return Err(AccountError::NotOurs {
                agent: agent.map_or_else(|| us.to_string(), |user| user.name),
                login: login.to_owned(),
            });
        }
        if us.is_root() {
            // Readable by root alone; without rights our own user is running us
            // and has logged in already.
            if let Ok(shadow) = std::fs::read_to_string("/etc/shadow") {
                judge_shadow(&shadow, login, now)?;
            }
        }
        if !user.uid.is_root()
            && let Ok(notice) = std::fs::read_to_string("/etc/nologin")
        {
            let line = notice.lines().next().unwrap_or_default().trim();
            let line: String = line.chars().filter(|c| !c.is_control()).take(200).collect();
            let why = if line.is_empty() { "it has /etc/nologin".to_owned() } else { line };
            return Err(AccountError::NoLogin(why));
        }
        let shell =
            if user.shell.as_os_str().is_empty() { PathBuf::from("/bin/sh") } else { user.shell };
        if !shell.is_absolute() || !runnable(&shell) {
            return Err(AccountError::Shell {
                login: login.to_owned(),
                shell: shell.display().to_string(),
            });
        }
        let shells = std::fs::read_to_string("/etc/shells").ok();
        let ordinary_shell = is_ordinary(&shell, shells.as_deref());
        Ok(Self {
            name: user.name,
            uid: user.uid,
            gid: user.gid,
            home: user.dir,
            shell,
            ordinary_shell,
        })
    }

    /// The name as the C library wants it.
    pub(super) fn c_name(&self) -> CString {
        // A name from the passwd file has no NUL.
        CString::new(self.name.as_bytes()).unwrap_or_default()
    }
}

/// A device without the file has what its maker gave it; `nologin` is none.
fn is_ordinary(shell: &Path, shells: Option<&str>) -> bool {
    match shells {
        Some(shells) => shells.lines().any(|line| Path::new(line.trim()) == shell),
        None => !shell.ends_with("nologin") && !shell.ends_with("false"),
    }
}

fn runnable(shell: &Path) -> bool {
    shell.is_file() && nix::unistd::access(shell, AccessFlags::X_OK).is_ok()
}

/// shadow(5): the second field is the password, the eighth the day since the
/// epoch on which the account expires.
fn judge_shadow(shadow: &str, login: &str, now: i64) -> Result<(), AccountError> {
    let Some(line) = shadow.lines().find(|line| line.split(':').next() == Some(login)) else {
        return Ok(());
    };
    let mut fields = line.split(':').skip(1);
    let password = fields.next().unwrap_or_default();
    let disabled = password.strip_prefix('!').map(|rest| rest.trim_start_matches('!'));
    let hash_behind = disabled.is_some_and(|rest| !matches!(rest, "" | "*"));
    if hash_behind || password.starts_with("*LK*") {
        return Err(AccountError::Locked(login.to_owned()));
    }
    let expires = fields.nth(5).and_then(|day| day.parse::<i64>().ok());
    // As sshd: the day itself is the first on which the account is closed.
    if expires.is_some_and(|day| day >= 0 && now / 86_400 >= day) {
        return Err(AccountError::Expired(login.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    const DAY: i64 = 86_400;

    #[test]
    fn a_login_that_does_not_exist_is_refused_with_a_remedy() {
        let refusal = Account::admit("no-such-login", 0).unwrap_err();
        assert!(refusal.to_string().contains("does not exist"), "{refusal}");
    }

    #[test]
    fn shadow_is_judged_like_a_login_would() {
        let cases: &[(&str, bool)] = &[
            ("u:$6$x$y:1:0:99999:7:::", true),
            ("u:*:1:0:99999:7:::", true),
            ("u:!:1:0:99999:7:::", true),
            ("u:!!:1:0:99999:7:::", true),
            ("u:!*:1:0:99999:7:::", true),
            ("u:!$6$x$y:1:0:99999:7:::", false),
            ("u:*LK*:1:0:99999:7:::", false),
            ("u:*:1:0:99999:7::0:", false),
            ("u:*:1:0:99999:7::10:", false),
            ("u:*:1:0:99999:7::11:", true),
            ("u:*:1:0:99999:7::-1:", true),
            ("other:!$6$x:1:0:99999:7::0:", true),
            ("", true),
        ];
        for (line, admitted) in cases {
            let verdict = judge_shadow(line, "u", 10 * DAY + 5);
            assert_eq!(verdict.is_ok(), *admitted, "{line}");
        }
    }

    #[test]
    fn a_restricted_shell_is_no_ordinary_one() {
        let shells = Some("# c\n/bin/sh\n/bin/bash\n");
        assert!(is_ordinary(Path::new("/bin/bash"), shells));
        assert!(!is_ordinary(Path::new("/usr/bin/git-shell"), shells));
        assert!(!is_ordinary(Path::new("/usr/sbin/nologin"), None));
        assert!(is_ordinary(Path::new("/bin/ash"), None));
    }

    #[test]
    fn our_own_login_is_admitted() {
        let us = User::from_uid(Uid::effective()).unwrap().unwrap();
        let account = Account::admit(&us.name, 0).unwrap();
        assert_eq!(account.uid, Uid::effective());
    }
}
