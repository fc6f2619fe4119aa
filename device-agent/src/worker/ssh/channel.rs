//! The task of a session channel: a program, its input, its output, its end.
//!
//! As OpenSSH's server: without a terminal the channel stays open until the
//! program has ended *and* nobody holds its output any more; with one it closes
//! when the program has ended and the terminal is drained. Output, end of file,
//! exit status and close leave in this order.
//!
//! A terminal may outlive its channel: where the client vanished, or another channel asks for it.

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use russh::server::Msg;
use russh::{ChannelWriteHalf, Sig};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::{sleep, timeout};

use super::Shared;
use super::environment::{self, ClientEnv, Sources};
use super::pump::{Input, STDERR, inward, outward};
use super::registry::Entry;
use super::seen::{self, Shown};
use super::tail::tail;
use super::told::outward_told;
use crate::worker::gate::Admitted;
use crate::worker::limits::{LAST_FACTS, PTY_DRAIN, RESIZE_INTERVAL};
use crate::worker::process::{self, Ended, Program};
use crate::worker::pty::{self, Terminal};
use crate::worker::record::Track;
use crate::worker::terminals::{Ask, Fit, Held, Parts};

/// A program as the client asked for it.
pub(super) enum Asked {
    Shell,
    Command(OsString),
    Sftp,
    /// One of the session's terminals, by its number.
    Attach(u32),
    /// The terminal of another session that this one joins.
    Join,
}

/// How a channel came to its end.
enum Outcome {
    /// Its program has ended, and that is still to be told.
    Ended(Ended),
    /// It has, and that was told.
    Told,
    /// By the client.
    Closed,
    /// Another channel has its terminal.
    Taken,
}

/// What ends a turn at a terminal.
enum Turn {
    Ended(Ended),
    Asked(Ask),
    Closed,
}

impl Asked {
    /// `recorded`: so is the session.
    fn program(&self, recorded: bool) -> io::Result<Program<'_>> {
        match self {
            Self::Shell => Ok(Program::Shell),
            Self::Command(command) => Ok(Program::Command(command)),
            Self::Sftp => Ok(Program::Sftp { ledger: recorded }),
            // Neither starts anything of its own.
            Self::Attach(_) | Self::Join => {
                Err(io::Error::other("it needs a terminal on your side"))
            }
        }
    }
}

/// All a channel's task needs.
pub(super) struct Job {
    pub(super) shared: Arc<Shared>,
    pub(super) entry: Arc<Entry>,
    pub(super) client: ChannelWriteHalf<Msg>,
    pub(super) leave: Admitted,
    pub(super) asked: Asked,
    pub(super) env: ClientEnv,
    /// The terminal and the gate's leave for it.
    pub(super) terminal: Option<(Terminal, Admitted)>,
    /// Socket of the forwarded ssh-agent.
    pub(super) agent: Option<String>,
}

impl Job {
    /// Runs the program to its end and closes the channel.
    pub(super) async fn run(mut self) {
        // It tells of files on its standard error, which a terminal does not have.
        let terminal = self.terminal.take().filter(|_| !matches!(self.asked, Asked::Sftp));
        let result = match terminal {
            Some((terminal, leave)) => self.on_terminal(&terminal, &leave).await,
            None => {
                self.on_pipes().await.map(|ended| ended.map_or(Outcome::Closed, Outcome::Ended))
            }
        };
        match result {
            Ok(Outcome::Ended(ended)) => self.tell_end(&ended).await,
            Ok(Outcome::Told) => {}
            Ok(Outcome::Taken) => self.tell_taken().await,
            Ok(Outcome::Closed) => {
                tracing::debug!(channel = self.leave.channel(), "closed by the client");
            }
            Err(error) => {
                let line = format!("belay: the program cannot be started: {error}\r\n");
                drop(self.client.extended_data_bytes(STDERR, line.into_bytes()).await);
                self.tell_end(&Ended::Exit(255)).await;
            }
        }
        self.shared.registry.remove(self.leave.channel());
    }

    /// Another channel of this connection has the terminal: the program has not ended, so there is
    /// no status.
    async fn tell_taken(&self) {
        let line = b"\r\nbelay: the terminal was taken over\r\n".to_vec();
        let told = self.client.extended_data_bytes(STDERR, line).await.is_ok()
            && self.client.eof().await.is_ok()
            && self.client.close().await.is_ok();
        if !told {
            tracing::debug!("the connection ended before its channel");
        }
    }

    fn environment(&self, terminal: Option<(&str, &str)>) -> Vec<(OsString, OsString)> {
        environment::build(&Sources {
            account: self.shared.account(),
            session: self.shared.terms().session,
            user: &self.shared.terms().user,
            extra: &self.shared.terms().env,
            client: &self.env,
            terminal,
            agent: self.agent.as_deref(),
        })
    }

    /// `None` when the client closed the channel first.
    async fn on_pipes(&mut self) -> std::io::Result<Option<Ended>> {
        let env = self.environment(None);
        let recorded = self.shared.events.recorder().is_on();
        let program = self.asked.program(recorded)?;
        let track = self.track();
        let mut piped = process::start(&self.leave, &program, self.shared.account(), env)?;
        let pid = piped.child.id();
        let (entry, leave, client) = (&self.entry, &self.leave, &self.client);

        let stdin = piped.stdin;
        let sftp = matches!(self.asked, Asked::Sftp);
        let given = track.as_ref().filter(|_| !sftp);
        let mut input = pin!(async {
            tokio::select! {
                () = inward(&entry.queue, &stdin, leave, Input::Pipe(given)) => {}
                // What the client sent before it closed still counts.
                () = entry.closed.cancelled() => tail(&entry.queue, &stdin, leave, given).await,
            }
            // Only dropping it tells the program.
            drop(stdin);
        });
        let (stdout, stderr) = (piped.stdout, piped.stderr);
        let files = recorded && sftp;
        // Of a file server not what it says, but what it tells.
        let shown = track.as_ref().filter(|_| !files);
        // A program whose client has closed hears of it as soon as it writes.
        let out = async {
            tokio::select! {
                () = outward(&stdout, client, None, leave, shown) => {}
                () = entry.closed.cancelled() => {}
            }
            drop(stdout);
        };
        let errors = async {
            match &track {
                Some(track) if files => outward_told(&stderr, client, entry, leave, track).await,
                Some(_) | None => tokio::select! {
                    () = outward(&stderr, client, Some(STDERR), leave, shown) => {}
                    () = entry.closed.cancelled() => {}
                },
            }
            drop(stderr);
        };
        let child = &mut piped.child;
        let mut ended = pin!(async {
            let ((), (), status) = tokio::join!(out, errors, child.wait());
            status
        });
        // As sshd: none to a subsystem.
        let mut signals = pin!(deliver_signals(entry, pid.filter(|_| !sftp)));
        let mut input_done = false;
        let status = loop {
            tokio::select! {
                status = &mut ended => break status?,
                () = &mut input, if !input_done => input_done = true,
                () = &mut signals => {}
                () = entry.closed.cancelled() => {
                    let left = async {
                        if !input_done {
                            input.await;
                        }
                        if files {
                            sleep(LAST_FACTS).await;
                        }
                    };
                    let told = async {
                        drop(ended.await);
                        // Its children may still read.
                        if !files {
                            std::future::pending::<()>().await;
                        }
                    };
                    let all = tokio::select! {
                        () = left => !files,
                        () = told => true,
                    };
                    if let (Some(track), false) = (&track, all) {
                        track.mark("the file server was not waited for: files may be missing here");
                    }
                    return Ok(None);
                }
            }
        };
        let ended = status.into();
        if let Some(track) = &track {
            track.ended(&ended);
        }
        Ok(Some(ended))
    }

    /// What a program without a terminal leaves in the recording.
    fn track(&self) -> Option<Track> {
        let recorder = self.shared.events.recorder();
        let channel = self.leave.channel();
        match &self.asked {
            Asked::Shell => Some(recorder.command(channel, None)),
            Asked::Command(command) => {
                Some(recorder.command(channel, Some(&command.to_string_lossy())))
            }
            Asked::Sftp => Some(recorder.files(channel)),
            Asked::Attach(_) | Asked::Join => None,
        }
    }

    /// A terminal that is new, or one of the session's.
    async fn on_terminal(&mut self, terminal: &Terminal, leave: &Admitted) -> io::Result<Outcome> {
        let held = match &self.asked {
            Asked::Attach(number) => self.attach(*number, terminal).await?,
            Asked::Shell | Asked::Command(_) | Asked::Sftp | Asked::Join => {
                self.open(terminal, leave).await?
            }
        };
        self.drive(held).await
    }

    async fn open(&self, terminal: &Terminal, leave: &Admitted) -> io::Result<Held> {
        let opened = pty::open(leave, terminal)?;
        let (running, command) = match (&self.asked, &self.shared.session.joins) {
            (Asked::Join, Some(joins)) => {
                let host = joins.take().ok_or_else(|| {
                    io::Error::other("this session has joined already: belay attach takes it up")
                })?;
                (opened.start_joining(host)?, Some(joins.words()))
            }
            (asked, _) => {
                let env = self.environment(Some((&terminal.term, &opened.tty)));
                let running = opened.start(&asked.program(false)?, self.shared.account(), env)?;
                let command = match asked {
                    Asked::Command(command) => Some(command.to_string_lossy().into_owned()),
                    Asked::Shell | Asked::Sftp | Asked::Attach(_) | Asked::Join => None,
                };
                (running, command)
            }
        };
        let vanished = Arc::clone(&self.entry.vanished);
        let of = (self.leave.channel(), terminal.term.as_str(), vanished);
        self.shared.terminals.open(running, command, of).await.map_err(io::Error::other)
    }

    /// Takes a terminal over and draws it for the client.
    async fn attach(&self, number: u32, terminal: &Terminal) -> io::Result<Held> {
        let vanished = Arc::clone(&self.entry.vanished);
        let held = self.shared.terminals.take(number, vanished).await;
        let mut held = held.ok_or_else(|| io::Error::other("the terminal is gone"))?;
        if let Some(pty) = held.pty() {
            pty.parts().track.mark("taken up by another client");
            let size = (*self.entry.size.borrow()).unwrap_or(terminal.size);
            let drawn = Bytes::from(pty.redraw(size));
            let length = drawn.len() as u64;
            self.leave.sending();
            if self.client.data_bytes(drawn).await.is_ok() {
                self.leave.sent(length);
            }
            pty.resize(size).await;
        }
        Ok(held)
    }

    /// Joins the client and the terminal until one of them ends, or another client has it.
    async fn drive(&mut self, mut held: Held) -> io::Result<Outcome> {
        loop {
            let turn = match held.pty() {
                Some(pty) => match pty.exit().cloned() {
                    Some(ended) => Turn::Ended(ended),
                    None => self.turn(pty.parts()).await?,
                },
                None => return Ok(Outcome::Closed),
            };
            match turn {
                Turn::Ended(ended) => {
                    held.ended(ended.clone()).await;
                    self.tell_end(&ended).await;
                    self.leave.over();
                    return Ok(self.confirmed(held).await);
                }
                Turn::Asked(ask) => match held.hand(ask) {
                    Ok(()) => return Ok(Outcome::Taken),
                    Err(still) => held = still,
                },
                Turn::Closed => {
                    if !self.entry.vanished.load(Ordering::Relaxed) {
                        held.hang_up().await;
                    }
                    return Ok(Outcome::Closed);
                }
            }
        }
    }

    async fn turn(&self, parts: Parts<'_>) -> io::Result<Turn> {
        let (entry, leave, client) = (&self.entry, &self.leave, &self.client);
        let Parts { master, leader, screen, track, asks, guests, pid } = parts;
        let Some(io) = master else { return Ok(Turn::Closed) };
        let fit = guests.fit();
        let mut input = pin!(inward(&entry.queue, io, leave, Input::Terminal(track)));
        let shown = Shown { source: io, screen, track, guests };
        let mut output = pin!(seen::outward(shown, client, leave));
        let mut signals = pin!(deliver_signals(entry, Some(pid)));
        let mut sizes = pin!(deliver_sizes(entry, io, track, &fit));
        // End of file from the client does nothing to a terminal, as in sshd.
        let (mut input_done, mut output_done) = (false, false);
        let ended = loop {
            tokio::select! {
                ended = leader.wait() => break ended?,
                () = &mut input, if !input_done => input_done = true,
                () = &mut output, if !output_done => output_done = true,
                () = &mut signals => {}
                () = &mut sizes => {}
                Some(ask) = asks.recv() => return Ok(Turn::Asked(ask)),
                () = entry.closed.cancelled() => {
                    if !input_done {
                        drop(timeout(PTY_DRAIN, input).await);
                    }
                    return Ok(Turn::Closed);
                }
            }
        };
        if !output_done {
            drain(output, leave, entry).await;
        }
        Ok(Turn::Ended(ended))
    }

    /// Keeps what is left of a terminal until its client says that it has heard everything, or
    /// another client asks how it ended.
    async fn confirmed(&self, mut held: Held) -> Outcome {
        loop {
            let ask = {
                let Some(pty) = held.pty() else { return Outcome::Told };
                let Parts { asks, .. } = pty.parts();
                tokio::select! {
                    () = self.entry.closed.cancelled() => None,
                    ask = asks.recv() => ask,
                }
            };
            match ask {
                None if self.entry.vanished.load(Ordering::Relaxed) => {
                    tracing::debug!("nobody was told how a program ended");
                    return Outcome::Told;
                }
                None => {
                    held.hang_up().await;
                    return Outcome::Told;
                }
                Some(ask) => match held.hand(ask) {
                    Ok(()) => return Outcome::Told,
                    Err(still) => held = still,
                },
            }
        }
    }

    /// End of file, how it ended, close (RFC 4254, sections 5.3 and 6.10).
    async fn tell_end(&mut self, ended: &Ended) {
        let client = &self.client;
        let id = client.id();
        let told = match ended {
            Ended::Exit(code) => {
                self.leave.ended(Some(*code), None);
                client.eof().await.is_ok()
                    && client.exit_status(u32::try_from(*code).unwrap_or(255)).await.is_ok()
            }
            Ended::Signal { number, core } => {
                let name = signal_name(*number);
                self.leave.ended(None, Some(name.clone()));
                match self.shared.handle.get() {
                    Some(handle) => {
                        client.eof().await.is_ok()
                            && handle
                                .exit_signal_request(
                                    id,
                                    Sig::Custom(name),
                                    *core,
                                    String::new(),
                                    String::new(),
                                )
                                .await
                                .is_ok()
                    }
                    None => false,
                }
            }
        };
        if !told || client.close().await.is_err() {
            tracing::debug!("the connection ended before its channel");
        }
    }
}

/// Output may still be in the terminal, and a background program may hold it
/// open for ever: read until it is silent. What waits for the client's window
/// is not silence.
async fn drain(output: impl Future<Output = ()>, leave: &Admitted, entry: &Entry) {
    let mut output = pin!(output);
    loop {
        let before = leave.progress();
        tokio::select! {
            () = &mut output => return,
            () = entry.closed.cancelled() => return,
            () = sleep(PTY_DRAIN) => {
                let after = leave.progress();
                if after == before && !after.sending {
                    return;
                }
            }
        }
    }
}

async fn deliver_signals(entry: &Entry, pid: Option<u32>) {
    let group = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let (Some(mut signals), Some(group)) = (entry.take_signals(), group) {
        while let Some(number) = signals.recv().await {
            let Some(signal) = Signal::from_named_raw(number) else { continue };
            // The program may have ended between the two.
            if let Err(error) = kill_process_group(group, signal) {
                tracing::debug!(number, %error, "a signal was not delivered");
            }
        }
    }
    std::future::pending().await
}

async fn deliver_sizes(
    entry: &Entry,
    terminal: &tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>,
    track: &Track,
    fit: &Fit,
) {
    let mut sizes = entry.size.subscribe();
    while sizes.changed().await.is_ok() {
        let size = *sizes.borrow_and_update();
        if size.is_some() {
            fit.own(size);
            fit.apply(terminal, track);
        }
        sleep(RESIZE_INTERVAL).await;
    }
    std::future::pending().await
}

/// RFC 4254, section 6.10: the names without `SIG`; others carry a domain.
fn signal_name(number: i32) -> String {
    const NAMES: [(i32, &str); 13] = [
        (libc::SIGABRT, "ABRT"),
        (libc::SIGALRM, "ALRM"),
        (libc::SIGFPE, "FPE"),
        (libc::SIGHUP, "HUP"),
        (libc::SIGILL, "ILL"),
        (libc::SIGINT, "INT"),
        (libc::SIGKILL, "KILL"),
        (libc::SIGPIPE, "PIPE"),
        (libc::SIGQUIT, "QUIT"),
        (libc::SIGSEGV, "SEGV"),
        (libc::SIGTERM, "TERM"),
        (libc::SIGUSR1, "USR1"),
        (libc::SIGUSR2, "USR2"),
    ];
    NAMES
        .iter()
        .find(|(known, _)| *known == number)
        .map_or_else(|| format!("{number}@belay"), |(_, name)| (*name).to_owned())
}

/// The signal a client may send, by its name (RFC 4254, section 6.9).
pub(super) fn client_signal(signal: &Sig) -> Option<i32> {
    match signal {
        Sig::ABRT => Some(libc::SIGABRT),
        Sig::ALRM => Some(libc::SIGALRM),
        Sig::FPE => Some(libc::SIGFPE),
        Sig::HUP => Some(libc::SIGHUP),
        Sig::ILL => Some(libc::SIGILL),
        Sig::INT => Some(libc::SIGINT),
        Sig::KILL => Some(libc::SIGKILL),
        Sig::PIPE => Some(libc::SIGPIPE),
        Sig::QUIT => Some(libc::SIGQUIT),
        Sig::SEGV => Some(libc::SIGSEGV),
        Sig::TERM => Some(libc::SIGTERM),
        Sig::USR1 => Some(libc::SIGUSR1),
        Sig::Custom(name) if name == "USR2" => Some(libc::SIGUSR2),
        // OpenSSH's extension: BSD's status request has no Linux counterpart.
        Sig::Custom(_) => None,
    }
}
