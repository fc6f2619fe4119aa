//! The task of a session channel: a program, its input, its output, its end.
//!
//! As OpenSSH's server: without a terminal the channel stays open until the
//! program has ended *and* nobody holds its output any more; with one it closes
//! when the program has ended and the terminal is drained. Output, end of file,
//! exit status and close leave in this order.

use std::ffi::OsString;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use russh::server::Msg;
use russh::{ChannelWriteHalf, Sig};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::{sleep, timeout};

use super::Shared;
use super::environment::{self, ClientEnv, Sources};
use super::pump::{STDERR, inward, outward};
use super::registry::Entry;
use crate::worker::event::WorkerEvent;
use crate::worker::gate::Admitted;
use crate::worker::limits::{PTY_DRAIN, RESIZE_INTERVAL};
use crate::worker::process::{self, Ended, Program};
use crate::worker::pty::{self, Terminal};

/// A program as the client asked for it.
pub(super) enum Asked {
    Shell,
    Command(OsString),
    Sftp,
}

impl Asked {
    fn program(&self) -> Program<'_> {
        match self {
            Self::Shell => Program::Shell,
            Self::Command(command) => Program::Command(command),
            Self::Sftp => Program::Sftp,
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
        let result = match self.terminal.take() {
            Some((terminal, leave)) => self.on_terminal(&terminal, &leave).await,
            None => self.on_pipes().await,
        };
        match result {
            Ok(Some(ended)) => self.tell_end(&ended).await,
            Ok(None) => tracing::debug!(channel = self.leave.channel(), "closed by the client"),
            Err(error) => {
                let line = format!("belay: the program cannot be started: {error}\r\n");
                drop(self.client.extended_data_bytes(STDERR, line.into_bytes()).await);
                self.tell_end(&Ended::Exit(255)).await;
            }
        }
        self.shared.registry.remove(self.leave.channel());
    }

    fn environment(&self, terminal: Option<(&str, &str)>) -> Vec<(OsString, OsString)> {
        environment::build(&Sources {
            account: &self.shared.account,
            session: self.shared.terms.session,
            user: &self.shared.terms.user,
            extra: &self.shared.terms.env,
            client: &self.env,
            terminal,
            agent: self.agent.as_deref(),
        })
    }

    /// `None` when the client closed the channel first.
    async fn on_pipes(&mut self) -> std::io::Result<Option<Ended>> {
        let env = self.environment(None);
        let program = self.asked.program();
        let mut piped = process::start(&self.leave, &program, &self.shared.account, env)?;
        let pid = piped.child.id();
        let (entry, leave, client) = (&self.entry, &self.leave, &self.client);

        let stdin = piped.stdin;
        let mut input = pin!(async {
            inward(&entry.queue, &stdin, leave).await;
            // Only dropping it tells the program.
            drop(stdin);
        });
        let (stdout, stderr) = (piped.stdout, piped.stderr);
        let output = async {
            tokio::join!(
                outward(&stdout, client, None, leave),
                outward(&stderr, client, Some(STDERR), leave)
            );
        };
        let child = &mut piped.child;
        let mut ended = pin!(async {
            let ((), status) = tokio::join!(output, child.wait());
            status
        });
        let mut signals = pin!(deliver_signals(entry, pid));
        let mut input_done = false;
        let status = loop {
            tokio::select! {
                status = &mut ended => break status?,
                () = &mut input, if !input_done => input_done = true,
                () = &mut signals => {}
                () = entry.closed.cancelled() => {
                    // What the client sent before it closed still counts.
                    if !input_done {
                        input.await;
                    }
                    return Ok(None);
                }
            }
        };
        Ok(Some(status.into()))
    }

    async fn on_terminal(
        &mut self,
        terminal: &Terminal,
        leave: &Admitted,
    ) -> std::io::Result<Option<Ended>> {
        let opened = pty::open(leave, terminal)?;
        let env = self.environment(Some((&terminal.term, &opened.tty)));
        let mut running = opened.start(&self.asked.program(), &self.shared.account, env)?;
        let channel = self.leave.channel();
        let (tty, pid) = (running.tty.clone(), running.pid);
        let event = WorkerEvent::PtyOpened { channel, tty: tty.clone(), pid };
        let told = self.shared.events.send(event).await;
        let ended = match told {
            Ok(()) => self.drive(&mut running).await,
            Err(denied) => Err(std::io::Error::other(denied)),
        };
        // Closing the terminal hangs it up.
        drop(running);
        let event = WorkerEvent::PtyClosed { channel, tty, pid };
        drop(self.shared.events.send(event).await);
        ended
    }

    async fn drive(&self, running: &mut pty::Running) -> std::io::Result<Option<Ended>> {
        let (entry, leave, client) = (&self.entry, &self.leave, &self.client);
        let pid = Some(running.pid);
        let pty::Running { master: io, leader, .. } = running;
        let io = &*io;
        let mut input = pin!(inward(&entry.queue, io, leave));
        let mut output = pin!(outward(io, client, None, leave));
        let mut signals = pin!(deliver_signals(entry, pid));
        let mut sizes = pin!(deliver_sizes(entry, io));
        // End of file from the client does nothing to a terminal, as in sshd.
        let (mut input_done, mut output_done) = (false, false);
        let ended = loop {
            tokio::select! {
                ended = leader.wait() => break ended?,
                () = &mut input, if !input_done => input_done = true,
                () = &mut output, if !output_done => output_done = true,
                () = &mut signals => {}
                () = &mut sizes => {}
                () = entry.closed.cancelled() => {
                    if !input_done {
                        drop(timeout(PTY_DRAIN, input).await);
                    }
                    return Ok(None);
                }
            }
        };
        if !output_done {
            drain(output, leave, entry).await;
        }
        Ok(Some(ended))
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

async fn deliver_sizes(entry: &Entry, terminal: &tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>) {
    let mut sizes = entry.size.subscribe();
    while sizes.changed().await.is_ok() {
        let size = *sizes.borrow_and_update();
        if let Some(size) = size
            && let Err(error) = rustix::termios::tcsetwinsize(terminal.get_ref(), size)
        {
            tracing::debug!(%error, "the terminal's size stays");
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
