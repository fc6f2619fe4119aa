//! `belay join SESSION`

use std::io::{IsTerminal as _, Write as _};

use belay_proto::api::{Session, path};
use belay_proto::wire::open::Join;

use super::break_glass::Glass;
use super::session::{self, Pty, Target};
use super::which;
use crate::api::Api;
use crate::device_ref::DeviceRef;
use crate::failure::Failure;
use crate::kept::Entry;
use crate::run::Context;
use crate::ssh::Work;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Both see the same terminal and both type, or you only look on. Everybody in it is told who comes and who leaves. The terminal is as large as the smallest of all windows. Your side is a session of your own: it is recorded, and belay kill ends it without harm to the other. At the start of a line, ~. leaves; the other goes on. The exit status is 0 when the other's terminal ends.\n\nWho may have a shell with that login on that device may join; belay sessions lists what there is.\n\nExamples:\n  belay join 0197a3c2\n  belay join 0197a3c2 --read-only\n  belay join 0197a3c2 --terminal 2\n  belay join 0197a3c2 --break-glass 'pump 17 stands still, anna asked me in'"
)]
pub struct Args {
    /// The session, or the beginning of its id
    session: String,
    /// Only look on: what you type goes nowhere
    #[arg(long)]
    read_only: bool,
    /// Which of its terminals, when it has several
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    terminal: Option<u32>,
    #[command(flatten)]
    glass: Glass,
}

/// Joins; the exit status is 0 when the other's terminal has ended.
///
/// # Errors
/// When there is no such session, this person may not join it, or the line fails.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let glass = args.glass.reason()?;
    let login = context.home.live_login()?;
    let open: Vec<Session> = Api::of(&login)?.get(path::SESSIONS).await?;
    let found = which::one(open, &args.session, login.relay_time())?;
    let account = found.login.parse().map_err(|_| {
        Failure::new("protocol", "the relay named a login that is none").remedy("upgrade it")
    })?;
    let target = Target::new(DeviceRef::Name(found.device), account);
    let read_only = args.read_only.then_some(true);
    let join = Join { session: found.id, terminal: args.terminal, read_only };
    let entry = Entry::Joining(join, glass);
    let end = session::run_in(context, target, entry, Work::Shell, Pty::Always).await;
    if std::io::stdout().is_terminal() {
        drop(std::io::stdout().write_all(OWN_AGAIN).and_then(|()| std::io::stdout().flush()));
    }
    end
}

/// Whoever leaves leaves a program that goes on, and that may have the whole window: off the other
/// screen, no margins, no mouse and focus reports, no pasting brackets, usual keys and colours, the
/// cursor shown where it is.
const OWN_AGAIN: &[u8] =
    b"\x18\x1b[?1047l\x1b7\x1b[r\x1b8\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\
                           \x1b[?1006l\x1b[?2004l\x1b[?1l\x1b>\x1b[0m\x1b[?25h";
