//! One line of the log: what happened, in JSON of one form only, for its bytes are the leaf.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, SessionId, UserId};
use crate::time::UnixTime;

/// An entry. Its members stand in this order, those that are absent are left out, there is no space
/// between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place in the log, from 1, without gaps.
    pub seq: u64,
    /// When, by the relay's clock.
    pub at: UnixTime,
    /// What happened: a word.
    pub kind: String,
    /// Who.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// Their name at that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_name: Option<String>,
    /// On which device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// Its name at that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    /// In which session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// As which account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// Why it was refused: a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// More, for a reader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The peer's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

impl Entry {
    /// The line, without an end of line. Its bytes are the leaf.
    pub fn encode(&self) -> String {
        let mut line = String::with_capacity(256);
        line.push_str("{\"seq\":");
        push(&mut line, &self.seq);
        line.push_str(",\"at\":");
        push(&mut line, &self.at.0);
        text(&mut line, "kind", Some(&self.kind));
        plain(&mut line, "user", self.user.as_ref());
        text(&mut line, "user_name", self.user_name.as_deref());
        plain(&mut line, "device", self.device.as_ref());
        text(&mut line, "device_name", self.device_name.as_deref());
        plain(&mut line, "session", self.session.as_ref());
        text(&mut line, "login", self.login.as_deref());
        text(&mut line, "code", self.code.as_deref());
        text(&mut line, "detail", self.detail.as_deref());
        text(&mut line, "source", self.source.as_deref());
        line.push('}');
        line
    }
}

/// The place that a line says it has, read without reading the rest.
pub fn seq_of(line: &str) -> Option<u64> {
    let rest = line.strip_prefix("{\"seq\":")?;
    rest.split_once(|c: char| !c.is_ascii_digit())?.0.parse().ok()
}

/// What the entry `log-pruned` says: up to which entry texts go, and by which rule.
pub fn pruned_detail(upto: u64, days: u32) -> String {
    format!("{PRUNED}{upto} lose their text, by the rule audit_keep_days = {days}")
}

const PRUNED: &str = "entries up to ";

/// Up to which entry texts may be missing, when this line says so. Read without reading the rest.
pub fn pruned_upto(line: &str) -> Option<u64> {
    let digit = |c: char| c.is_ascii_digit();
    let rest = line.strip_prefix("{\"seq\":")?.trim_start_matches(digit);
    let rest = rest.strip_prefix(",\"at\":")?.trim_start_matches(digit);
    let rest = rest.strip_prefix(",\"kind\":\"log-pruned\",\"detail\":\"")?;
    rest.strip_prefix(PRUNED)?.split_once(' ')?.0.parse().ok()
}

fn push(line: &mut String, value: &dyn std::fmt::Display) {
    // A string takes everything.
    write!(line, "{value}").ok();
}

fn plain(line: &mut String, key: &str, value: Option<&impl std::fmt::Display>) {
    if let Some(value) = value {
        push(line, &format_args!(",\"{key}\":\"{value}\""));
    }
}

fn text(line: &mut String, key: &str, value: Option<&str>) {
    let Some(value) = value else { return };
    push(line, &format_args!(",\"{key}\":\""));
    for c in value.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            c if c < ' ' => push(line, &format_args!("\\u{:04x}", u32::from(c))),
            c => line.push(c),
        }
    }
    line.push('"');
}
