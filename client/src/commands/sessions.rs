//! `belay sessions`

use belay_proto::api::{Session, path};
use belay_proto::time::UnixTime;

use crate::api::Api;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::run::Context;
use crate::{span, table};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A session without a client waits for it: belay and ssh take theirs up again by themselves, and belay attach takes up the terminals of one whose client is gone.\n\nExample:\n  belay sessions\n  belay sessions --json"
)]
pub struct Args {
    /// Only sessions on this device
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
}

/// Lists open sessions: one's own, and everybody's for who manages people.
///
/// # Errors
/// When there is no live login, or the relay refuses.
pub async fn run(context: &Context, args: Args) -> Result<(), Failure> {
    let login = context.home.live_login()?;
    let mut sessions: Vec<Session> = Api::of(&login)?.get(path::SESSIONS).await?;
    sessions.retain(|session| {
        args.device.as_deref().is_none_or(|device| session.device.as_str() == device)
    });
    sessions.sort_by_key(|session| (session.opened, session.id));
    if context.format == Format::Json {
        return output::json(&sessions);
    }
    if sessions.is_empty() {
        output::note("no open sessions");
        return Ok(());
    }
    output::line(rendered(&sessions, login.relay_time()))?;
    let own = |session: &&Session| session.user == login.record().user && !session.attached;
    if let Some(waiting) = sessions.iter().rev().find(own)
        && output::is_terminal()
    {
        output::note(format!("to go on in one that waits: belay attach {}", waiting.id));
    }
    Ok(())
}

fn rendered(sessions: &[Session], now: UnixTime) -> String {
    let rows: Vec<Vec<String>> = sessions
        .iter()
        .map(|session| {
            vec![
                session.id.to_string(),
                session.user.to_string(),
                format!("{}@{}", session.login, session.device),
                span::rough(session.opened.distance(now)),
                if session.attached { "attached" } else { "waiting for its client" }.to_owned(),
                session.attachments.to_string(),
                bytes(session.bytes_up),
                bytes(session.bytes_down),
            ]
        })
        .collect();
    table::render(
        &["session", "user", "device", "open for", "client", "times", "up", "down"],
        &rows,
    )
}

/// `512 B`, `4.2 MB`: decimal units, as networks are measured in.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut scaled = count as f64;
    let mut unit = "B";
    for larger in UNITS {
        if scaled < 999.95 {
            break;
        }
        scaled /= 1000.0;
        unit = larger;
    }
    format!("{scaled:.1} {unit}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_row_says_whose_it_is_and_whether_somebody_is_there() {
        let session = Session {
            id: "0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e".parse().unwrap(),
            user: "anna".parse().unwrap(),
            device: "pump-17".parse().unwrap(),
            login: "root".into(),
            kind: "ssh".into(),
            opened: UnixTime(1_800_000_000),
            ends: UnixTime(1_800_040_000),
            attached: false,
            attachments: 3,
            bytes_up: 999,
            bytes_down: 4_200_000,
        };
        let text = rendered(&[session], UnixTime(1_800_000_300));
        for part in ["anna", "root@pump-17", "5 min", "waiting", "3", "999 B", "4.2 MB"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn bytes_have_three_figures_or_so() {
        assert_eq!(bytes(1000), "1.0 kB");
        assert_eq!(bytes(999_999), "1.0 MB");
        assert_eq!(bytes(u64::MAX), "18446.7 PB");
    }
}
