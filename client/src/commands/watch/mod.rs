//! `belay watch SESSION`: another person's session as it goes on.
//!
//! Its law: what is shown is the recording, checked as `belay play` checks it, segment by segment as
//! they reach the relay; so it needs no trust in the relay and lies some seconds behind. Nothing of it
//! acts on this terminal, and nothing typed here reaches the session.
//!
//! `feed` asks the relay, `follow` checks and reads, `screens` draws, `lines` and `json` write.

mod feed;
mod follow;
mod json;
mod lines;
mod screens;
mod stage;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use belay_proto::api::{Session, path};
use belay_proto::error_line::printable;
use belay_proto::ids::SessionId;
use belay_proto::recording::End;

use self::feed::{Feed, News};
use self::follow::{Follower, Seen};
use super::play::open::Keys;
use super::which;
use crate::api::{Api, path_of};
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::run::Context;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Keys: tab shows the next terminal, q quits. What you see is verified as with belay play and lies some three seconds behind. That you watch is on record, and belay sessions shows it.\n\nExample:\n  belay watch 0197a3c2\n  belay watch 0197a3c2 --text | grep -i error\n  belay watch 0197a3c2 --json"
)]
pub struct Args {
    /// The session, or the beginning of its id
    session: String,
    /// Which terminal or command of the session [default: the newest terminal, as they open]
    #[arg(long, value_name = "N")]
    track: Option<u32>,
    /// Print what is shown as plain text, a line as soon as it stands, from the beginning on
    #[arg(long)]
    text: bool,
    /// An age identity file with your secret key, for a recording that is sealed to it
    #[arg(long, value_name = "FILE", env = "BELAY_IDENTITY")]
    identity: Option<PathBuf>,
}

/// Watches until the recording ends.
///
/// # Errors
/// When there is no such session, this person reads no evidence, or what the relay gives is not what
/// the device signed.
pub async fn run(context: &Context, args: Args) -> Result<(), Failure> {
    let login = context.home.live_login()?;
    let api = Arc::new(Api::of(&login)?);
    let session = match args.session.parse::<SessionId>() {
        Ok(id) => api.get(&path_of(path::SESSION, &id.to_string())).await?,
        Err(_) => which::one(api.get(path::SESSIONS).await?, &args.session, login.relay_time())?,
    };
    if let Some(over) = &session.over {
        return Err(Failure::new("session-over", format!("the session is over: {}", over.why))
            .remedy(format!("see what it showed: belay play {}", session.id)));
    }
    let keys = args.identity.as_deref().map(Keys::read).transpose()?;
    let watch = Watch {
        follower: Follower::new(session.id, login.ca()?, keys),
        feed: Feed::new(context.home.clone(), api, session.id),
        session,
        said: None,
    };
    if context.format == Format::Json {
        let line = |seen| json::line(&seen, args.track);
        return watch.written(|seen| Ok(seen.and_then(line).into_iter().collect())).await;
    }
    if args.text || !output::is_terminal() {
        let mut lines = lines::Lines::new(args.track);
        return watch
            .written(|seen| match seen {
                Some(seen) => lines.take(seen),
                None => Ok(lines.finish()),
            })
            .await;
    }
    stage::show(watch, args.track).await
}

/// A session that is watched.
struct Watch {
    session: Session,
    follower: Follower,
    feed: Feed,
    /// What was said of why nothing comes.
    said: Option<String>,
}

/// What is new.
enum Change {
    /// This was recorded.
    Seen(Vec<Seen>),
    /// The session stands differently, or the relay is away; in a few words, if there is anything to
    /// say.
    Standing(Option<String>),
}

impl Watch {
    /// The next change. Cancel-safe.
    async fn next(&mut self) -> Result<Change, Failure> {
        Ok(match self.feed.next().await? {
            News::Bytes(bytes) => Change::Seen(self.follower.take(&bytes)?),
            News::Session(session) => {
                self.session = *session;
                Change::Standing(self.standing())
            }
            News::Away(failure) => {
                Change::Standing(Some(format!("{}; trying again", failure.cause())))
            }
        })
    }

    /// What keeps news away, if anything does.
    fn standing(&self) -> Option<String> {
        let session = &self.session;
        let device = &session.device;
        let is_offline = session.device_online == Some(false);
        match (&session.over, is_offline) {
            (Some(over), true) => Some(format!(
                "the session is over ({}); {device} has no line and brings the rest when it is back",
                over.why
            )),
            (Some(over), false) => Some(format!("the session is over: {}", over.why)),
            (None, true) => {
                Some(format!("{device} has no line: what it records comes when it is back"))
            }
            (None, false) if session.recording.as_deref() == Some("none") => {
                Some("nothing is recorded of it so far".to_owned())
            }
            (None, false) => None,
        }
    }

    /// As text on standard output, made a piece at a time, of nothing at the end. How it stands goes
    /// to standard error.
    async fn written(
        mut self,
        mut write: impl FnMut(Option<Seen>) -> Result<Vec<String>, Failure>,
    ) -> Result<(), Failure> {
        loop {
            match self.next().await? {
                Change::Seen(seen) => {
                    for one in seen {
                        write(Some(one))?.iter().try_for_each(output::line)?;
                    }
                    if let Some(end) = self.follower.end() {
                        write(None)?.iter().try_for_each(output::line)?;
                        output::note(format!("belay: {}", ended(end)));
                        return Ok(());
                    }
                }
                // Said once, until it is over.
                Change::Standing(words) => {
                    if words != self.said
                        && let Some(words) = &words
                    {
                        output::note(printable(&format!("belay: {words}")));
                    }
                    self.said = words;
                }
            }
        }
    }
}

fn ended(end: End) -> String {
    match end {
        End::Whole => "the session ended, and its recording is whole".to_owned(),
        End::Cut => {
            "the recording is cut: whatever recorded it ended before the session did".to_owned()
        }
    }
}
