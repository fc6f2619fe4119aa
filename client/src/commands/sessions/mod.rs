//! `belay sessions`: which are open, and which were.
//!
//! `filter` chooses, `show` lays out.

mod filter;
mod show;

use std::time::Duration;

use belay_proto::api::{MAX_SESSIONS, Session, SessionsPage, SessionsRequest, path};
use belay_proto::ids::SessionId;
use hyper::Method;

use self::filter::{Filter, State};
use crate::api::Api;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::run::Context;
use crate::span;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Lists your own and those you may join, and everybody's for an auditor or administrator. A session without a client waits for it: belay and ssh take theirs up again by themselves, and belay attach takes up the terminals of one whose client is gone.\n\nExample:\n  belay sessions\n  belay sessions --device pump-17 --state detached\n  belay sessions --all --user anna --since 2d --json"
)]
pub struct Args {
    /// Only sessions on this device
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Only this person's
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Only as this account
    #[arg(long, short = 'l', value_name = "ACCOUNT")]
    login: Option<String>,
    /// Only in this state; ended ones are listed with --all
    #[arg(long, value_name = "STATE")]
    state: Option<State>,
    /// Only those opened since then: 90m, 24h, 7d
    #[arg(long, value_name = "TIME", value_parser = span::parse)]
    since: Option<Duration>,
    /// Only those whose user broke the glass
    #[arg(long)]
    break_glass: bool,
    /// Ended ones as well, the newest first
    #[arg(long)]
    all: bool,
    /// At most so many of them
    #[arg(long, short = 'n', value_name = "N", default_value_t = 100, requires = "all",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

/// Lists sessions: one's own, and everybody's for who manages people or reads evidence.
///
/// # Errors
/// When there is no live login, or the relay refuses.
pub async fn run(context: &Context, args: Args) -> Result<(), Failure> {
    let login = context.home.live_login()?;
    let api = Api::of(&login)?;
    let now = login.relay_time();
    let since = args.since.map(|since| now.minus(since));
    let (all, limit) = (args.all || args.state == Some(State::Ended), args.limit);
    let filter = Filter {
        device: args.device,
        user: args.user,
        login: args.login,
        state: args.state,
        since,
        broken_glass: args.break_glass,
    };
    let (sessions, more) = if all {
        past(&api, &filter, limit).await?
    } else {
        let mut open: Vec<Session> = api.get(path::SESSIONS).await?;
        open.retain(|session| filter.takes(session));
        open.sort_by_key(|session| (session.opened, session.id));
        (open, false)
    };
    if context.format == Format::Json {
        return output::json(&sessions);
    }
    if sessions.is_empty() {
        output::note(if filter.is_none() && !all {
            "no open sessions"
        } else {
            "no such sessions"
        });
        return Ok(());
    }
    output::line(if all { show::past(&sessions, now) } else { show::open(&sessions, now) })?;
    if more {
        output::note(format!(
            "there are older ones: --limit {} shows more",
            limit.saturating_mul(2)
        ));
    }
    let own = |session: &&Session| {
        session.user == login.record().user && !session.attached && session.over.is_none()
    };
    if let Some(waiting) = sessions.iter().rev().find(own)
        && output::is_terminal()
    {
        output::note(format!("to go on in one that waits: belay attach {}", waiting.id));
    }
    Ok(())
}

/// Those that were, page by page, and whether there are more.
async fn past(api: &Api, filter: &Filter, limit: u32) -> Result<(Vec<Session>, bool), Failure> {
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut found, mut before): (Vec<Session>, Option<SessionId>) = (Vec::new(), None);
    loop {
        // What is chosen by here alone: a page may hold few that are wanted.
        let count = if filter.is_here() {
            MAX_SESSIONS
        } else {
            u32::try_from(wanted.saturating_sub(found.len())).unwrap_or(MAX_SESSIONS)
        };
        let request = SessionsRequest {
            user: filter.user.clone(),
            device: filter.device.clone(),
            login: filter.login.clone(),
            since: filter.since,
            before,
            count: count.clamp(1, MAX_SESSIONS),
        };
        let page: SessionsPage = api.send(Method::POST, path::SESSIONS_ALL, &request).await?;
        before = page.sessions.last().map(|last| last.id);
        found.extend(page.sessions.into_iter().filter(|session| filter.takes_here(session)));
        if found.len() > wanted || (found.len() == wanted && page.more) {
            found.truncate(wanted);
            return Ok((found, true));
        }
        if !page.more || before.is_none() {
            return Ok((found, false));
        }
    }
}
