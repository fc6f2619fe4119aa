//! The one error a command ends with: a cause, a remedy, an exit status.
//!
//! Every library error becomes one of these at the edge, so that a person reads one plain line and
//! a program reads one small object. Text of peers is made printable here, once.

use std::fmt;

use belay_proto::error_line::printable;
use belay_proto::refusal::{Code, Refused};
use serde::Serialize;

/// Everything went as asked.
pub const EXIT_OK: u8 = 0;
/// A command failed.
pub const EXIT_FAILED: u8 = 1;
/// The command line itself is wrong (clap's own status).
pub const EXIT_USAGE: u8 = 2;
/// The line failed under `shell`, `exec` or `proxy`; `ssh` uses the same (ssh(1), EXIT STATUS).
pub const EXIT_LINE: u8 = 255;

/// Why a command ends without having done its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    token: &'static str,
    cause: String,
    remedy: String,
    exit: u8,
}

impl Failure {
    /// A failure of this machine or this command line. `token` is the word programs act on.
    pub fn new(token: &'static str, cause: impl AsRef<str>) -> Self {
        let cause = printable(cause.as_ref());
        Self { token, cause, remedy: String::new(), exit: EXIT_FAILED }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl AsRef<str>) -> Self {
        self.remedy = printable(remedy.as_ref());
        self
    }

    /// The same failure with another exit status.
    #[must_use]
    pub const fn exit(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }

    /// Standard output was closed by its reader (`belay devices | head -1`): nothing to say.
    pub const fn output_closed() -> Self {
        Self { token: "output-closed", cause: String::new(), remedy: String::new(), exit: 1 }
    }

    /// The way to the relay broke, or the session's.
    pub fn line_lost(cause: &str) -> Self {
        Self::new("line-lost", format!("the line to the relay is lost ({cause})"))
            .remedy("try again; if it stays so, run: belay doctor")
    }

    /// The word programs act on.
    pub const fn token(&self) -> &'static str {
        self.token
    }

    /// What went wrong, without what to do.
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// What to do, when anything is known.
    pub fn remedy_text(&self) -> &str {
        &self.remedy
    }

    /// The process's exit status.
    pub const fn status(&self) -> u8 {
        self.exit
    }

    /// Whether something broke under way, so that the relay may know better why.
    pub fn is_loss(&self) -> bool {
        matches!(self.token, "line-lost" | "device-gone" | "session-cut" | "session-ended")
    }

    /// Whether the relay does not know the path: it is of a version before it.
    pub fn is_unknown_path(&self) -> bool {
        self.token == Code::BadRequest.token() && self.cause == belay_proto::api::NO_SUCH_PATH
    }

    /// Whether there is anything to tell.
    pub const fn is_silent(&self) -> bool {
        self.cause.is_empty()
    }

    /// The object `--json` prints.
    pub fn as_json(&self) -> impl Serialize {
        #[derive(Serialize)]
        struct Error {
            error: Body,
        }
        #[derive(Serialize)]
        struct Body {
            code: &'static str,
            cause: String,
            remedy: String,
        }
        let (cause, remedy) = (self.cause.clone(), self.remedy.clone());
        Error { error: Body { code: self.token, cause, remedy } }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

impl std::error::Error for Failure {}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::new(refused.code().token(), refused.cause()).remedy(refused.remedy())
    }
}

/// The token of a code this build knows, for answers that carry the token as text.
pub fn known_token(text: &str) -> &'static str {
    Code::ALL
        .iter()
        .map(|code| code.token())
        .find(|token| *token == text)
        .unwrap_or_else(|| Code::Other(0).token())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_printable_line_with_its_remedy_behind_it() {
        let failure = Failure::new("x", "pump\n\u{1b}[2J is gone").remedy("wait");
        assert_eq!(failure.to_string(), "pump\u{fffd}\u{fffd}[2J is gone; wait");
        assert_eq!(Failure::new("x", "gone").to_string(), "gone");
    }

    #[test]
    fn a_token_from_the_relay_is_taken_only_when_known() {
        assert_eq!(known_token("device-offline"), "device-offline");
        assert_eq!(known_token("rm -rf"), "other");
    }
}
