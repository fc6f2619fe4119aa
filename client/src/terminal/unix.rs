//! Signals and terminal modes of Unix.

use std::io;

use russh::Pty;
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios,
    tcgetattr, tcsetattr,
};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use super::News;

/// Signals that matter to a session.
pub(super) struct Events {
    resized: Stream,
    hung_up: Stream,
    interrupted: Stream,
    terminated: Stream,
}

impl Events {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            resized: signal(SignalKind::window_change())?,
            hung_up: signal(SignalKind::hangup())?,
            interrupted: signal(SignalKind::interrupt())?,
            terminated: signal(SignalKind::terminate())?,
        })
    }

    pub(super) async fn next(&mut self) -> News {
        let killed =
            |kind: SignalKind| News::Killed(u8::try_from(kind.as_raw_value()).unwrap_or(u8::MAX));
        tokio::select! {
            _ = self.resized.recv() => News::Resized,
            _ = self.hung_up.recv() => killed(SignalKind::hangup()),
            _ = self.interrupted.recv() => killed(SignalKind::interrupt()),
            _ = self.terminated.recv() => killed(SignalKind::terminate()),
        }
    }
}

/// How the terminal was before a secret was asked for.
pub(super) struct Echo(Option<Termios>);

impl Echo {
    pub(super) fn remember() -> Self {
        Self(tcgetattr(io::stdin()).ok())
    }

    pub(super) fn restore(&self) {
        if let Some(before) = &self.0 {
            // A terminal that is gone needs no restoring.
            tcsetattr(io::stdin(), OptionalActions::Now, before).ok();
        }
    }
}

/// Stops the whole foreground job, as the terminal's own `^Z` would.
pub(super) fn stop() {
    let group: Pid = rustix::process::getpgrp();
    // A group that cannot be stopped goes on.
    kill_process_group(group, Signal::TSTP).ok();
}

/// The terminal's modes as RFC 4254 §8 encodes them, so that erase and interrupt are the same keys
/// over there. Empty when standard input is no terminal.
pub fn modes() -> Vec<(Pty, u32)> {
    let Ok(termios) = tcgetattr(io::stdin()) else { return Vec::new() };
    let mut modes = special_codes(&termios);
    flags(&termios, &mut modes);
    // The speeds of a real line mean nothing here; what RFC 4254 asks for is that they are there.
    modes.extend([(Pty::TTY_OP_ISPEED, 38_400), (Pty::TTY_OP_OSPEED, 38_400)]);
    modes
}

fn special_codes(termios: &Termios) -> Vec<(Pty, u32)> {
    let codes = [
        (Pty::VINTR, SpecialCodeIndex::VINTR),
        (Pty::VQUIT, SpecialCodeIndex::VQUIT),
        (Pty::VERASE, SpecialCodeIndex::VERASE),
        (Pty::VKILL, SpecialCodeIndex::VKILL),
        (Pty::VEOF, SpecialCodeIndex::VEOF),
        (Pty::VEOL, SpecialCodeIndex::VEOL),
        (Pty::VEOL2, SpecialCodeIndex::VEOL2),
        (Pty::VSTART, SpecialCodeIndex::VSTART),
        (Pty::VSTOP, SpecialCodeIndex::VSTOP),
        (Pty::VSUSP, SpecialCodeIndex::VSUSP),
        (Pty::VREPRINT, SpecialCodeIndex::VREPRINT),
        (Pty::VWERASE, SpecialCodeIndex::VWERASE),
        (Pty::VLNEXT, SpecialCodeIndex::VLNEXT),
        (Pty::VDISCARD, SpecialCodeIndex::VDISCARD),
    ];
    // 0 is "none" here (_POSIX_VDISABLE of Linux) and 255 in the encoding.
    let encoded = |code: u8| if code == 0 { 255 } else { u32::from(code) };
    codes.into_iter().map(|(name, index)| (name, encoded(termios.special_codes[index]))).collect()
}

fn flags(termios: &Termios, modes: &mut Vec<(Pty, u32)>) {
    let input = [
        (Pty::IGNPAR, InputModes::IGNPAR),
        (Pty::PARMRK, InputModes::PARMRK),
        (Pty::INPCK, InputModes::INPCK),
        (Pty::ISTRIP, InputModes::ISTRIP),
        (Pty::INLCR, InputModes::INLCR),
        (Pty::IGNCR, InputModes::IGNCR),
        (Pty::ICRNL, InputModes::ICRNL),
        (Pty::IXON, InputModes::IXON),
        (Pty::IXANY, InputModes::IXANY),
        (Pty::IXOFF, InputModes::IXOFF),
        (Pty::IMAXBEL, InputModes::IMAXBEL),
        (Pty::IUTF8, InputModes::IUTF8),
    ];
    let local = [
        (Pty::ISIG, LocalModes::ISIG),
        (Pty::ICANON, LocalModes::ICANON),
        (Pty::ECHO, LocalModes::ECHO),
        (Pty::ECHOE, LocalModes::ECHOE),
        (Pty::ECHOK, LocalModes::ECHOK),
        (Pty::ECHONL, LocalModes::ECHONL),
        (Pty::NOFLSH, LocalModes::NOFLSH),
        (Pty::TOSTOP, LocalModes::TOSTOP),
        (Pty::IEXTEN, LocalModes::IEXTEN),
        (Pty::ECHOCTL, LocalModes::ECHOCTL),
        (Pty::ECHOKE, LocalModes::ECHOKE),
    ];
    let output = [
        (Pty::OPOST, OutputModes::OPOST),
        (Pty::ONLCR, OutputModes::ONLCR),
        (Pty::OCRNL, OutputModes::OCRNL),
        (Pty::ONOCR, OutputModes::ONOCR),
        (Pty::ONLRET, OutputModes::ONLRET),
    ];
    let control = [
        (Pty::CS7, ControlModes::CS7),
        (Pty::CS8, ControlModes::CS8),
        (Pty::PARENB, ControlModes::PARENB),
        (Pty::PARODD, ControlModes::PARODD),
    ];
    modes.extend(input.map(|(n, f)| (n, u32::from(termios.input_modes.contains(f)))));
    modes.extend(local.map(|(n, f)| (n, u32::from(termios.local_modes.contains(f)))));
    modes.extend(output.map(|(n, f)| (n, u32::from(termios.output_modes.contains(f)))));
    modes.extend(control.map(|(n, f)| (n, u32::from(termios.control_modes.contains(f)))));
}
