//! An SFTP server, protocol version 3 as OpenSSH speaks it
//! (draft-ietf-secsh-filexfer-02 and the extensions of OpenSSH's PROTOCOL).
//!
//! It is a process of its own on two pipes, like `sftp-server`: a slow disk
//! stops nobody else, its memory is gone with it, and disk and encryption run
//! on two processors. Devices often have no `sftp-server`, so it is ours. It
//! runs as the login user, and the kernel alone decides what that user may do.
//!
//! It answers in order, one request at a time, but reads requests and writes
//! answers in large batches; data passes from file to pipe and from pipe to
//! file without a copy in between.

mod attrs;
mod extended;
mod files;
mod handles;
mod ledger;
mod listing;
mod paths;
mod server;
mod wire;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal};

use self::ledger::Ledger;
pub(super) use self::ledger::MARK;
use self::server::Server;
use self::wire::{Incoming, PACKET_MAX};

/// Answers collected before they are written, if requests are waiting.
const BATCH: usize = 256 * 1024;

/// Serves standard input and output until the client ends. `told`: what becomes of files is told on
/// standard error, for the recording.
pub(super) fn main(told: bool) -> ExitCode {
    // A client that is gone must not end us before files are told of.
    if let Err(error) = SigSet::from(Signal::SIGPIPE).thread_block() {
        tracing::debug!(%error, "a client that leaves ends the file server at once");
    }
    let ledger = Ledger::new(told.then(io::stderr));
    let served = file(io::stdin().as_fd().try_clone_to_owned())
        .and_then(|input| Ok((input, file(io::stdout().as_fd().try_clone_to_owned())?)))
        .and_then(|(input, output)| serve(input, output, ledger));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        // The client is gone, and with it whoever would read the line.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "belay: sftp: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn file(fd: io::Result<OwnedFd>) -> io::Result<File> {
    Ok(File::from(fd?))
}

fn serve(input: impl Read, output: impl Write, ledger: Ledger<impl Write>) -> io::Result<()> {
    let mut server = Server::new(ledger);
    let served = answer_all(&mut server, input, output);
    server.ledger.finish();
    served
}

fn answer_all(
    server: &mut Server<impl Write>,
    mut input: impl Read,
    mut output: impl Write,
) -> io::Result<()> {
    let mut incoming = Incoming::default();
    let mut answers = Vec::with_capacity(BATCH + PACKET_MAX);
    loop {
        while let Some(packet) = incoming.packet()? {
            server.answer(packet, &mut answers)?;
            if answers.len() >= BATCH {
                output.write_all(&answers)?;
                answers.clear();
            }
        }
        // Before waiting for more, everything that is answered leaves.
        if !answers.is_empty() {
            output.write_all(&answers)?;
            answers.clear();
        }
        if !incoming.fill(&mut input)? {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
