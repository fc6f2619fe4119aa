//! `belay kill SESSION --reason TEXT`

use belay_proto::api::{KillRequest, Killed, Session, path};
use belay_proto::error_line::printable;
use belay_proto::ids::SessionId;
use hyper::Method;

use super::which;
use crate::api::{Api, path_of};
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::run::Context;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The session ends for good, its client there or not; its programs get what they get when their terminal is closed. Your own sessions you may end, and everybody's as an administrator. Who did it and why is on record before anything ends, and is told to whoever is in the session.\n\nExample:\n  belay kill 0197a3c2 --reason 'pump-17 is being serviced on site'"
)]
pub struct Args {
    /// The session, or the beginning of its id
    session: String,
    /// Why, in one line: for the record, and for whoever is in the session
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Ends a session.
///
/// # Errors
/// When there is no such session, or this person may not end it.
pub async fn run(context: &Context, args: Args) -> Result<(), Failure> {
    let login = context.home.live_login()?;
    let api = Api::of(&login)?;
    let id = match args.session.parse::<SessionId>() {
        Ok(id) => id,
        Err(_) => {
            let open: Vec<Session> = api.get(path::SESSIONS).await?;
            which::one(open, &args.session, login.relay_time())?.id
        }
    };
    let path = path_of(path::SESSION_KILL, &id.to_string());
    let request = KillRequest { reason: args.reason };
    let killed: Killed = api.send(Method::POST, &path, &request).await?;
    if context.format == Format::Json {
        return output::json(&killed);
    }
    let Killed { session, user, device, login, device_online } = killed;
    output::line(printable(&format!("ended: {session} ({user}, {login}@{device})")))?;
    if !device_online {
        output::note(format!(
            "{device} has no line: what runs there in this session ends when it is back"
        ));
    }
    Ok(())
}
