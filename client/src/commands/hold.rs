//! `belay hold`, `belay hold list|release`: what must not be deleted.

use belay_proto::api::{Hold, HoldRequest, Reason, path};
use belay_proto::error_line::printable;
use belay_proto::ids::SessionId;
use belay_proto::names::UserName;
use clap::Subcommand;
use hyper::Method;

use crate::api::{Api, path_of};
use crate::device_ref::DeviceRef;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::run::Context;
use crate::{span, table};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Auditors and administrators may; it is in the audit log.\n\nExample:\n  belay hold 0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e --reason 'case 4711'\n  belay hold --device pump-17 --reason 'case 4711'\n  belay hold --user anna --reason 'case 4711'"
)]
pub struct Args {
    #[command(flatten)]
    on: On,
    /// Why, for the record
    #[arg(long, required = true)]
    reason: Option<String>,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct On {
    /// Hold one session
    session: Option<SessionId>,
    /// Hold all sessions on a device, past and to come: its name or UUID
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceRef>,
    /// Hold all sessions of a person, past and to come
    #[arg(long, value_name = "USER")]
    user: Option<UserName>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List holds in force
    #[command(after_help = "Example:\n  belay hold list\n  belay hold list --all --json")]
    List {
        /// Those that were released as well
        #[arg(long)]
        all: bool,
    },
    /// Let what is held be deleted again, when its time is over
    #[command(
        after_help = "Administrators may.\n\nExample:\n  belay hold release 3 --reason 'case 4711 is closed'"
    )]
    Release {
        /// The hold's number
        #[arg(value_name = "HOLD")]
        id: u64,
        /// Why, for the record
        #[arg(long)]
        reason: String,
    },
}

/// Places, lists or releases holds.
///
/// # Errors
/// When there is no live login, or the relay refuses.
pub async fn run(context: &Context, args: Args) -> Result<(), Failure> {
    let api = Api::of_home(&context.home)?;
    let hold: Hold = match args.what {
        None => {
            let device = args.on.device.map(|device| device.to_string());
            let (session, user) = (args.on.session, args.on.user);
            let reason = args.reason.unwrap_or_default();
            let request = HoldRequest { session, device, user, reason };
            api.send(Method::POST, path::HOLDS, &request).await?
        }
        Some(What::Release { id, reason }) => {
            let path = path_of(path::HOLD_RELEASE, &id.to_string());
            api.send(Method::POST, &path, &Reason { reason }).await?
        }
        Some(What::List { all }) => {
            let mut holds: Vec<Hold> = api.get(path::HOLDS).await?;
            holds.retain(|hold| all || hold.released.is_none());
            return list(context, &holds);
        }
    };
    output::show(context.format, &hold, |hold| {
        let state = if hold.released.is_some() { "released" } else { "in force" };
        format!("hold {} on {}: {state}", hold.id, held(hold))
    })
}

fn list(context: &Context, holds: &[Hold]) -> Result<(), Failure> {
    if context.format == Format::Json {
        return output::json(&holds);
    }
    if holds.is_empty() {
        output::note("no holds");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = holds.iter().map(row).collect();
    output::line(table::render(&["hold", "on", "placed", "by", "reason", "released"], &rows))
}

fn row(hold: &Hold) -> Vec<String> {
    let name = |name: &Option<UserName>| name.as_ref().map_or("?".to_owned(), ToString::to_string);
    let released = hold.released.as_ref().map(|end| {
        format!("{} by {}: {}", span::at(end.at), name(&end.by), printable(&end.reason))
    });
    vec![
        hold.id.to_string(),
        held(hold),
        span::at(hold.placed),
        name(&hold.placed_by),
        printable(&hold.reason),
        released.unwrap_or_default(),
    ]
}

fn held(hold: &Hold) -> String {
    let target = hold.name.as_deref().unwrap_or(&hold.target);
    printable(&format!("{} {target}", hold.what))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::Cli;

    #[test]
    fn a_hold_is_on_one_thing_and_has_a_reason() {
        let session = "0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e";
        let reads = |words: &[&str]| Cli::try_parse_from([&["belay", "hold"], words].concat());
        for good in [
            [session, "--reason", "x"].as_slice(),
            &["--device", "pump-17", "--reason", "x"],
            &["--user", "anna", "--reason", "x"],
            &["list"],
            &["release", "3", "--reason", "x"],
        ] {
            assert!(reads(good).is_ok(), "{good:?}: {:?}", reads(good));
        }
        for bad in [
            [session].as_slice(),
            &["--reason", "x"],
            &[session, "--user", "anna", "--reason", "x"],
            &["release", "3"],
            &[],
        ] {
            assert!(reads(bad).is_err(), "{bad:?}");
        }
    }
}
