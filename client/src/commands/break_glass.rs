//! `--break-glass`, where a session can be asked for.

use belay_proto::policy::{BreakGlass, NoReason};

use crate::failure::{EXIT_USAGE, Failure};

/// Breaking the glass.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Glass {
    /// In an emergency: open the session even if it cannot be recorded as it must be. Say why in 8 to
    /// 200 characters; it is on record and raises an alarm, and your role must allow it
    #[arg(long, value_name = "REASON", env = "BELAY_BREAK_GLASS")]
    break_glass: Option<String>,
}

impl Glass {
    /// The reason, where one is given. A variable that is there and empty gives none.
    pub(super) fn reason(&self) -> Result<Option<BreakGlass>, Failure> {
        let given = self.break_glass.as_deref().filter(|given| !given.is_empty());
        given.map(str::parse).transpose().map_err(|error: NoReason| {
            Failure::new("usage", error.to_string())
                .remedy("for example --break-glass 'pump 17 stands still, asked by the shift'")
                .exit(EXIT_USAGE)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn no_reason_is_none_and_a_bad_one_is_told_before_anything_is_asked() {
        let glass = |given: &str| Glass { break_glass: Some(given.to_owned()) };
        assert_eq!(Glass::default().reason().unwrap(), None);
        assert_eq!(glass("").reason().unwrap(), None);
        assert_eq!(glass("short").reason().unwrap_err().status(), EXIT_USAGE);
        let reason = glass("pump 17 stands still").reason().unwrap().unwrap();
        assert_eq!(reason.as_str(), "pump 17 stands still");
    }
}
