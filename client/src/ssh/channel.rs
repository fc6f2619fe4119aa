//! One shell or command over an authenticated connection, from its request to its exit status.
//!
//! Everything is asked for at once behind the channel's opening: terminal, environment and command
//! travel together, and their answers are looked at when they come.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use belay_proto::error_line::printable;
use belay_proto::refusal::Code;
use bytes::Bytes;
use russh::ChannelWriteHalf;
use russh::client::Msg;
use tokio::sync::watch;
use tokio::time::timeout;

use super::connect::Connected;
use super::events::{Ended, Shared, State};
use super::outlook::{Outlook, Sight};
use crate::failure::Failure;
use crate::kept::Weather;
use crate::stdio::{Sink, Source};
use crate::terminal::{Escapes, Local, News, Size, Typed, notice};

/// From the request for a channel to its confirmation.
const CHANNEL_WITHIN: Duration = Duration::from_secs(30);

/// The subsystem that joins a channel to a terminal the session has.
const ATTACH: &str = "attach@belay";

/// The signal number of a program killed by writing to a closed pipe, as a shell reports it.
const SIGPIPE_STATUS: u8 = 128 + 13;

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// The account's login shell.
    Shell,
    /// A command line for that shell.
    Exec(String),
    /// A terminal the session has: this one of them, or the only one.
    Attach(Option<u32>),
}

/// The terminal to ask for.
#[derive(Debug, Clone)]
pub struct PtyRequest {
    /// `$TERM`
    pub term: String,
    /// Its size.
    pub size: Size,
    /// Encoded terminal modes (RFC 4254 §8).
    pub modes: Vec<(russh::Pty, u32)>,
}

/// All of it.
pub struct Job {
    /// What to run.
    pub work: Work,
    /// With a terminal or without.
    pub pty: Option<PtyRequest>,
    /// Environment to offer; the device takes what it allows.
    pub environment: Vec<(String, String)>,
}

/// How it ended, as this process's own status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit(pub u8);

/// Runs one job to its end.
///
/// # Errors
/// When the device refuses, or the line is lost before the remote side has ended.
pub async fn run(
    connected: &mut Connected,
    job: &Job,
    stdin: Source,
    local: &mut Local,
    weather: watch::Receiver<Weather>,
) -> Result<Exit, Failure> {
    let shared = &Arc::clone(&connected.shared);
    let (out, err) = (&Arc::clone(&connected.out), &Arc::clone(&connected.err));
    let opened = timeout(CHANNEL_WITHIN, connected.handle.channel_open_session()).await;
    let channel = match opened {
        Ok(Ok(channel)) => channel,
        Ok(Err(russh::Error::ChannelOpenFailure(reason))) => {
            return Err(Failure::new(
                Code::DeviceRefused.token(),
                format!("the device refused the session: {reason:?}"),
            ));
        }
        Ok(Err(error)) => return Err(over(shared, &error.to_string())),
        Err(_) => return Err(over(shared, "no answer from the device")),
    };
    // Its messages come through the handler; the other way in is closed.
    let (unused, channel) = channel.split();
    drop(unused);
    let gone = |error: russh::Error| over(shared, &error.to_string());
    let asked = request(&channel, job).await.map_err(gone)?;

    let input = async {
        match feed(&channel, stdin, local, weather).await {
            Ok(()) => std::future::pending().await,
            Err(stopped) => stopped,
        }
    };
    let refused = |state: &State| refusal(state, asked).is_some();
    let end = |state: &State| state.closed || state.output.is_some() || refused(state);
    tokio::select! {
        () = shared.until(end) => {}
        stopped = input => match stopped {
            Stopped::Escape => return Ok(Exit(crate::failure::EXIT_LINE)),
            Stopped::Signal(number) => return Ok(Exit(128u8.saturating_add(number))),
            // The channel takes no more; its own end says why.
            Stopped::Channel => shared.until(end).await,
            Stopped::Input(error) => {
                return Err(Failure::new("input", format!("cannot read standard input: {error}")));
            }
        },
        error = out.drive() => return broken(error.kind()),
        error = err.drive() => return broken(error.kind()),
        // The connection's own end, also one that reached no handler.
        _ = &mut connected.handle => connected.over = true,
    }
    let (refused, banner) = {
        let state = shared.state();
        (refusal(&state, asked), state.banner.clone())
    };
    if let Some(what) = refused {
        let said = banner.map(|banner| format!(" ({banner})")).unwrap_or_default();
        return Err(Failure::new(
            Code::DeviceRefused.token(),
            format!("the device refused {what}{said}"),
        )
        .remedy(if asked.attach {
            "see: belay sessions"
        } else {
            "ask an administrator what your role allows: belay whoami"
        }));
    }
    let output = shared.state().output;
    if let Some(kind) = output {
        return broken(kind);
    }
    drain(out, err).await?;
    let ended = shared.state().ended.clone();
    match ended {
        // ssh(1): the status is the remote command's, of which a process keeps eight bits.
        Some(Ended::Status(status)) => Ok(Exit(u8::try_from(status & 0xff).unwrap_or(u8::MAX))),
        Some(Ended::Signal(name)) => Ok(Exit(128u8.saturating_add(signal_number(&name)))),
        None => Err(over(shared, "the device's side ended without an exit status")),
    }
}

/// Which of our requests ask for an answer.
#[derive(Debug, Clone, Copy)]
struct Asked {
    pty: bool,
    attach: bool,
}

async fn request(channel: &ChannelWriteHalf<Msg>, job: &Job) -> Result<Asked, russh::Error> {
    if let Some(pty) = &job.pty {
        let size = pty.size;
        channel
            .request_pty(
                true,
                &pty.term,
                u32::from(size.columns),
                u32::from(size.rows),
                u32::from(size.width),
                u32::from(size.height),
                &pty.modes,
            )
            .await?;
    }
    for (name, value) in &job.environment {
        channel.set_env(false, name.as_str(), value.as_str()).await?;
    }
    match &job.work {
        Work::Shell => channel.request_shell(true).await?,
        Work::Exec(command) => channel.exec(true, command.as_bytes()).await?,
        Work::Attach(None) => channel.request_subsystem(true, ATTACH).await?,
        Work::Attach(Some(number)) => {
            channel.request_subsystem(true, format!("{ATTACH} {number}")).await?;
        }
    }
    let attach = matches!(job.work, Work::Attach(_));
    Ok(Asked { pty: job.pty.is_some(), attach })
}

/// What was refused; answers come in the order of the requests (RFC 4254 §5.4).
fn refusal(state: &State, asked: Asked) -> Option<&'static str> {
    let at = state.replies.iter().position(|taken| !taken)?;
    Some(match (asked.pty && at == 0, asked.attach) {
        (true, _) => "a terminal",
        (false, true) => "to attach",
        (false, false) => "to run it",
    })
}

enum Stopped {
    Escape,
    Signal(u8),
    Channel,
    Input(io::Error),
}

/// Standard input to the channel, with back-pressure, until it ends.
async fn feed(
    channel: &ChannelWriteHalf<Msg>,
    mut stdin: Source,
    local: &mut Local,
    weather: watch::Receiver<Weather>,
) -> Result<(), Stopped> {
    let mut escapes = local.is_raw().then(Escapes::new);
    let mut outlook = Outlook::new(weather);
    let mut open = true;
    loop {
        let event = tokio::select! {
            chunk = stdin.next(), if open => Event::Chunk(chunk),
            news = local.next() => Event::Local(news),
            sight = outlook.next(), if local.is_raw() => Event::Weather(sight),
        };
        match event {
            Event::Weather(Sight::Down(text)) => notice::show(local.size(), &text),
            Event::Weather(Sight::Up) => {
                let size = local.size();
                notice::clear(size);
                // A program draws its screen anew when the size changes, and only then.
                resize(channel, Size { rows: size.rows.saturating_sub(1).max(1), ..size }).await?;
                resize(channel, size).await?;
            }
            Event::Chunk(Ok(Some(chunk))) => {
                let Some(escapes) = &mut escapes else {
                    send(channel, local, chunk).await?;
                    continue;
                };
                for input in escapes.feed(&chunk) {
                    match input {
                        Typed::Bytes(bytes) => send(channel, local, bytes).await?,
                        Typed::Disconnect => return Err(Stopped::Escape),
                        Typed::Help => local.say(Escapes::HELP),
                        Typed::Suspend => {
                            local.suspend();
                            resize(channel, local.size()).await?;
                        }
                    }
                }
            }
            Event::Chunk(Ok(None)) => {
                open = false;
                let ending = async { channel.eof().await.map_err(|_| Stopped::Channel) };
                if unless_killed(local, ending).await? {
                    resize(channel, local.size()).await?;
                }
            }
            Event::Chunk(Err(error)) => return Err(Stopped::Input(error)),
            Event::Local(News::Resized) => resize(channel, local.size()).await?,
            Event::Local(News::Killed(signal)) => {
                return Err(Stopped::Signal(signal));
            }
        }
    }
}

enum Event {
    Chunk(io::Result<Option<Bytes>>),
    Local(News),
    Weather(Sight),
}

async fn send(
    channel: &ChannelWriteHalf<Msg>,
    local: &mut Local,
    bytes: Bytes,
) -> Result<(), Stopped> {
    let sending = async { channel.data_bytes(bytes).await.map_err(|_| Stopped::Channel) };
    if unless_killed(local, sending).await? {
        resize(channel, local.size()).await?;
    }
    Ok(())
}

/// Does what may wait for the line for as long as the line is down, unless this process is asked to end. Whether
/// the terminal's size changed meanwhile.
async fn unless_killed(
    local: &mut Local,
    work: impl Future<Output = Result<(), Stopped>>,
) -> Result<bool, Stopped> {
    tokio::pin!(work);
    let mut resized = false;
    loop {
        tokio::select! {
            done = &mut work => return done.map(|()| resized),
            news = local.next() => match news {
                News::Resized => resized = true,
                News::Killed(signal) => return Err(Stopped::Signal(signal)),
            },
        }
    }
}

async fn resize(channel: &ChannelWriteHalf<Msg>, size: Size) -> Result<(), Stopped> {
    channel
        .window_change(
            u32::from(size.columns),
            u32::from(size.rows),
            u32::from(size.width),
            u32::from(size.height),
        )
        .await
        .map_err(|_| Stopped::Channel)
}

/// Our own reader went away: as when it happens to a local program.
fn broken(kind: io::ErrorKind) -> Result<Exit, Failure> {
    if kind == io::ErrorKind::BrokenPipe {
        return Ok(Exit(SIGPIPE_STATUS));
    }
    Err(Failure::new("output", format!("cannot write the session's output: {kind}")))
}

/// Waits for our reader as long as it takes: it may be a pager somebody reads in.
async fn drain(out: &Arc<Sink>, err: &Arc<Sink>) -> Result<(), Failure> {
    let both = async {
        out.finish().await?;
        err.finish().await
    };
    let finished = tokio::select! {
        finished = both => finished,
        error = out.drive() => Err(error),
        error = err.drive() => Err(error),
    };
    match finished {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => {
            Err(Failure::new("output", format!("cannot write the session's output: {error}")))
        }
    }
}

/// The connection ended before the work did.
fn over(shared: &Shared, cause: &str) -> Failure {
    let state = shared.state();
    match &state.goodbye {
        Some(said) => {
            Failure::new("session-ended", format!("the device ended the session: {said}"))
        }
        None => Failure::new("line-lost", format!("the session was lost: {}", printable(cause)))
            .remedy("try again; run: belay devices"),
    }
}

/// Linux's numbers; the same on every system for those below 16 but USR1.
fn signal_number(name: &str) -> u8 {
    match name {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ILL" => 4,
        "TRAP" => 5,
        "ABRT" => 6,
        "BUS" => 7,
        "FPE" => 8,
        "KILL" => 9,
        "USR1" => 10,
        "SEGV" => 11,
        "USR2" => 12,
        "PIPE" => 13,
        "ALRM" => 14,
        "TERM" => 15,
        "XCPU" => 24,
        "XFSZ" => 25,
        "SYS" => 31,
        _ => 127,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_matched_to_requests_in_order() {
        let state = |replies: &[bool]| State { replies: replies.to_vec(), ..State::default() };
        let (with, without) =
            (Asked { pty: true, attach: false }, Asked { pty: false, attach: false });
        assert_eq!(refusal(&state(&[]), with), None);
        assert_eq!(refusal(&state(&[true, true]), with), None);
        assert_eq!(refusal(&state(&[false]), with), Some("a terminal"));
        assert_eq!(refusal(&state(&[true, false]), with), Some("to run it"));
        assert_eq!(refusal(&state(&[false]), without), Some("to run it"));
        let attaching = Asked { pty: true, attach: true };
        assert_eq!(refusal(&state(&[true, false]), attaching), Some("to attach"));
    }

    #[test]
    fn a_signal_exit_reads_as_a_shell_would_say_it() {
        assert_eq!(128 + signal_number("KILL"), 137);
        assert_eq!(128 + signal_number("TERM"), 143);
        assert_eq!(128u8.saturating_add(signal_number("NEWSIG@example.com")), 255);
    }
}
