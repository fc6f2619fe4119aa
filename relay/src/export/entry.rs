//! What an entry is for those who sort by severity and field.

use belay_proto::audit::Entry;

/// How much it should worry somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    /// The usual.
    Info,
    /// Somebody was refused, or something is not as it should be.
    Warning,
    /// Somebody has to look now.
    Alert,
}

/// Events that are no refusal, and that somebody should look at.
const ALARMS: [&str; 5] =
    ["clone-suspected", "line-flapping", "record-missing", "export-behind", "witness-refused"];

/// What is meant to raise an alarm.
const ALERTS: [&str; 1] = ["break-glass"];

/// Reads an entry; `None` for what is none.
pub(super) fn read(line: &str) -> Option<Entry> {
    serde_json::from_str(line).ok()
}

pub(super) fn severity(entry: &Entry) -> Severity {
    if ALERTS.contains(&entry.kind.as_str()) {
        Severity::Alert
    } else if entry.code.is_some() || ALARMS.contains(&entry.kind.as_str()) {
        Severity::Warning
    } else {
        Severity::Info
    }
}

/// Its fields but number and time, those that are there, as text.
pub(super) fn fields(entry: &Entry) -> Vec<(&'static str, String)> {
    let text = |value: &Option<String>| value.clone();
    [
        ("kind", Some(entry.kind.clone())),
        ("user", entry.user.map(|id| id.to_string())),
        ("user_name", text(&entry.user_name)),
        ("device", entry.device.map(|id| id.to_string())),
        ("device_name", text(&entry.device_name)),
        ("session", entry.session.map(|id| id.to_string())),
        ("login", text(&entry.login)),
        ("code", text(&entry.code)),
        ("source", text(&entry.source)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}
