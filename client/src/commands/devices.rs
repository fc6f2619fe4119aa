//! `belay devices`

use std::time::Duration;

use belay_proto::api::{Device, path};
use belay_proto::error_line::printable;
use belay_proto::names::Label;
use belay_proto::time::UnixTime;

use super::joined;
use crate::api::Api;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::run::Context;
use crate::{span, table};

/// A device is asked every few minutes. How long ago it answered is said when it may matter.
const WORTH_SAYING: Duration = Duration::from_secs(30);

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  belay devices --label site=oslo\n  belay devices --json")]
pub struct Args {
    /// Only devices with this label; several must all be there
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<Label>,
}

/// Lists what the caller's roles cover.
///
/// # Errors
/// When there is no live login, or the relay refuses.
pub async fn run(context: &Context, args: Args) -> Result<(), Failure> {
    let login = context.home.live_login()?;
    let mut devices: Vec<Device> = Api::of(&login)?.get(path::DEVICES).await?;
    devices.retain(|device| {
        args.label.iter().all(|label| device.labels.get(&label.key) == Some(&label.value))
    });
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    if context.format == Format::Json {
        return output::json(&devices);
    }
    if devices.is_empty() {
        output::note(if args.label.is_empty() {
            "no devices: none is enrolled, or none of your roles covers one"
        } else {
            "no device has these labels"
        });
        return Ok(());
    }
    output::line(rendered(&devices, login.relay_time()))
}

fn rendered(devices: &[Device], now: UnixTime) -> String {
    let rows: Vec<Vec<String>> = devices
        .iter()
        .map(|device| {
            vec![
                device.name.to_string(),
                standing(device, now),
                presence(device, now),
                device.line.as_ref().map(|line| line.carrier.clone()).unwrap_or_default(),
                device.line.as_ref().map(|line| line.address.clone()).unwrap_or_default(),
                cost(device),
                joined(&device.labels),
                device.software.clone(),
            ]
        })
        .collect();
    table::render(
        &["name", "status", "presence", "carrier", "address", "a month", "labels", "agent"],
        &rows,
    )
}

/// What the line costs in 30 days, as it goes: `1.8 MB`.
fn cost(device: &Device) -> String {
    let month = device.line.as_ref().and_then(|line| line.bytes_a_month);
    month.map(|bytes| format!("{:.1} MB", bytes as f64 / 1e6)).unwrap_or_default()
}

/// `active`, or with what somebody has to decide.
fn standing(device: &Device, now: UnixTime) -> String {
    let token = device.status.token();
    match &device.clone {
        Some(twin) => {
            let ago = span::rough(twin.since.distance(now));
            format!("{token}, CLONE at {} seen {ago} ago", printable(&twin.address))
        }
        None => token.into(),
    }
}

/// `online, 12 ms`, `offline for 3 h: the line went silent`.
fn presence(device: &Device, now: UnixTime) -> String {
    match &device.line {
        Some(line) if device.online => {
            let mut text = String::from("online");
            if let Some(ms) = line.round_trip_ms {
                text.push_str(&format!(", {ms:.0} ms"));
            }
            let quiet = device.last_seen.map(|seen| seen.distance(now)).unwrap_or_default();
            if quiet >= WORTH_SAYING {
                text.push_str(&format!(", answered {} ago", span::rough(quiet)));
            }
            if line.sessions > 0 {
                text.push_str(&format!(", {} open", line.sessions));
            }
            text
        }
        Some(_) | None => {
            let mut text = match device.last_seen {
                Some(seen) => format!("offline for {}", span::rough(seen.distance(now))),
                None => "never online".into(),
            };
            if let Some(why) = &device.last_end {
                text.push_str(&format!(": {}", printable(why)));
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use belay_proto::api::{DeviceStatus, Line, Twin};

    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn device() -> Device {
        Device {
            id: "0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e".parse().unwrap(),
            name: "pump-17".parse().unwrap(),
            status: DeviceStatus::Active,
            labels: [("site".parse().unwrap(), "oslo".parse().unwrap())].into(),
            enrolled: NOW,
            online: false,
            line: None,
            last_seen: Some(UnixTime(NOW.0 - 3 * 3600)),
            last_end: Some("the line went silent".into()),
            hostname: String::new(),
            platform: String::new(),
            software: "belay-agent/0.1.0".into(),
            clone: None,
        }
    }

    #[test]
    fn a_row_says_since_when_and_why_a_device_is_offline() {
        let text = rendered(&[device()], NOW);
        assert!(text.contains("offline for 3 h: the line went silent"), "{text}");
        assert!(text.contains("site=oslo"), "{text}");
    }

    #[test]
    fn a_row_says_how_far_away_an_online_device_is() {
        let line = Line {
            since: NOW,
            carrier: "quic".into(),
            address: "192.0.2.7:4433".into(),
            round_trip_ms: Some(12.4),
            sessions: 2,
            clock_ahead_s: 0,
            asked_every_s: Some(285),
            bytes: Some(20_000),
            bytes_a_month: Some(1_800_000),
        };
        let device = Device { online: true, line: Some(line), ..device() };
        let just_now = Device { last_seen: Some(NOW), ..device.clone() };
        let text = rendered(&[just_now], NOW);
        assert!(text.contains("online, 12 ms, 2 open"), "{text}");
        assert!(text.contains("192.0.2.7:4433") && text.contains("quic"), "{text}");
        assert!(text.contains("1.8 MB"), "{text}");
        let quiet = Device { last_seen: Some(UnixTime(NOW.0 - 240)), ..device };
        let text = rendered(&[quiet], NOW);
        assert!(text.contains("online, 12 ms, answered 4 min ago, 2 open"), "{text}");
        assert!(text.contains("192.0.2.7:4433"), "{text}");
    }

    #[test]
    fn a_row_says_that_the_key_is_on_two_machines() {
        let twin = Twin { since: UnixTime(NOW.0 - 3600), address: "198.51.100.7:4000".into() };
        let text = rendered(&[Device { clone: Some(twin), ..device() }], NOW);
        assert!(text.contains("active, CLONE at 198.51.100.7:4000 seen"), "{text}");
    }

    #[test]
    fn whatever_a_device_calls_itself_the_table_stays_a_table() {
        let hostile = "\u{1b}[2J\u{1b}]0;x\u{7}\n\r\u{202e}=cmd|'/C calc'!A0\u{9b}31m".to_owned();
        let device = Device { software: hostile.clone(), last_end: Some(hostile), ..device() };
        let text = rendered(&[device], NOW);
        assert_eq!(text.lines().count(), 2);
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        assert!(!text.contains('\u{202e}'));
    }
}
