//! Whose settings are tried: the running agent's, since a service has another environment than the
//! shell the doctor is asked in.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;

use belay_tunnel::probe::Check;

/// As much of an environment as is read: what the kernel lets one have on most systems.
const LARGEST: u64 = 2 * 1024 * 1024;

/// Where settings come from.
pub(super) enum Environment {
    /// No agent runs: this process's own.
    Own,
    /// The running agent's.
    Agents(BTreeMap<String, String>),
    /// It runs, and its environment cannot be read: this process's own instead.
    Hidden(String),
}

impl Environment {
    /// Of the agent with this process id, when one runs.
    pub(super) fn of(pid: Option<u32>) -> Self {
        let Some(pid) = pid else { return Self::Own };
        let mut text = Vec::new();
        let read = File::open(format!("/proc/{pid}/environ"))
            .and_then(|file| file.take(LARGEST).read_to_end(&mut text));
        match read {
            Ok(_) => Self::Agents(parsed(&text)),
            Err(error) => Self::Hidden(error.to_string()),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<String> {
        match self {
            Self::Own | Self::Hidden(_) => std::env::var(name).ok(),
            Self::Agents(variables) => variables.get(name).cloned(),
        }
    }

    /// What there is to say of it.
    pub(super) fn check(&self) -> Option<Check> {
        match self {
            Self::Own | Self::Agents(_) => None,
            Self::Hidden(why) => Some(Check::note(
                "settings",
                format!("the running agent's environment cannot be read ({why}); this one is used"),
                "run as the user the agent runs as",
            )),
        }
    }
}

/// proc(5): `NAME=value`, each ended by a zero byte.
fn parsed(text: &[u8]) -> BTreeMap<String, String> {
    let each = text.split(|byte| *byte == 0).filter_map(|one| std::str::from_utf8(one).ok());
    each.filter_map(|one| one.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_as_it_was_started() {
        let read = parsed(b"A=1\0HTTPS_PROXY=http://u:p=q@h:1\0bad\xff=x\0none\0");
        assert_eq!(read.len(), 2);
        assert_eq!(read.get("HTTPS_PROXY").map(String::as_str), Some("http://u:p=q@h:1"));
        assert!(matches!(Environment::of(Some(std::process::id())), Environment::Agents(_)));
        assert!(matches!(Environment::of(None), Environment::Own));
        // Process ids end at 2^22 (proc(5), pid_max).
        assert!(matches!(Environment::of(Some(u32::MAX)), Environment::Hidden(_)));
    }
}
