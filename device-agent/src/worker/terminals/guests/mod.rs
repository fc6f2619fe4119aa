//! Guests at a terminal: people of other sessions who see what it shows, and may type.
//!
//! They belong to the terminal ([`Guests`] is part of its [`Pty`](super::Pty)), so they stay while it
//! goes from one driver to another. Each has a task, its [`Seat`], that speaks with the guest's own
//! worker; whoever drives the terminal hears of guests through [`Guests::heard`] or
//! [`Guests::at_once`], shows them what it reads, and never waits for one of them.
//!
//! What it is not: it lets nobody in. The relay and the supervisor have; and a guest who looks on is
//! kept from typing in their seat, on this side.

mod link;
mod seat;

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use bytes::{Buf as _, Bytes};
use rustix::termios::Winsize;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use self::link::Link;
pub(in crate::worker) use self::seat::Seat;
use super::fit::Fit;
use super::{Screen, Track, notice, size_of};

/// Why a guest's terminal ends with the host's, where its program has ended.
pub(super) const ENDED: &str = "the session's terminal has ended";

/// What one who looks on is told when they type.
const LOOKS_ON: &str = "you look on: what you type goes nowhere";

/// Words of all guests that wait for the terminal's driver.
const SAID: usize = 16;

/// Pieces of typing that wait for it, each at most a frame; what the program does not read waits
/// there and in their own terminals.
const TYPED: usize = 2;

/// Who a guest is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) name: String,
    /// The guest's own session.
    pub(super) session: String,
    pub(super) may_type: bool,
}

impl Who {
    fn how(&self) -> &'static str {
        if self.may_type { "may type" } else { "looks on" }
    }
}

/// One who is here.
#[derive(Debug)]
pub(in crate::worker) struct Guest {
    id: u64,
    who: Who,
    size: Winsize,
    link: Arc<Link>,
}

/// What seats say to whoever drives the terminal.
#[derive(Debug)]
pub(in crate::worker) enum Said {
    Came(Guest),
    /// Their window has another size.
    Size(u64, Winsize),
    /// They were behind, and take bytes again.
    Ready(u64),
    /// They look on, and typed; said once.
    Typed(u64),
    Left(u64),
}

/// The ways from seats to a terminal.
#[derive(Clone, Debug)]
pub(super) struct Doorway {
    said: mpsc::Sender<Said>,
    typed: mpsc::Sender<Bytes>,
    /// Why the terminal ends, once that is known; the first reason counts.
    why: Arc<OnceLock<String>>,
}

impl Doorway {
    /// Whether the terminal has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.said.is_closed()
    }

    /// The terminal is about to end, for this reason.
    pub(super) fn ends(&self, why: &str) {
        self.why.get_or_init(|| why.to_owned());
    }

    /// Why it has ended.
    pub(super) fn why(&self) -> &str {
        self.why.get().map_or(ENDED, String::as_str)
    }
}

/// The terminal's own side. Dropped, all of them are told that it has ended.
pub(in crate::worker) struct Guests {
    said: mpsc::Receiver<Said>,
    typed: mpsc::Receiver<Bytes>,
    /// Typed, and not taken by the terminal yet.
    pending: Bytes,
    here: Vec<Guest>,
    fit: Arc<Fit>,
    /// Whose session it is.
    host: String,
    /// Not shown yet.
    news: Vec<String>,
    /// As in [`Doorway`].
    why: Arc<OnceLock<String>>,
}

/// What a guest's coming and going concerns, besides guests.
pub(in crate::worker) struct At<'a> {
    pub(in crate::worker) master: &'a AsyncFd<OwnedFd>,
    pub(in crate::worker) screen: &'a mut Screen,
    pub(in crate::worker) track: &'a Track,
}

impl Guests {
    pub(super) fn new(host: String) -> (Self, Doorway) {
        let (say, said) = mpsc::channel(SAID);
        let (type_in, typed) = mpsc::channel(TYPED);
        let (pending, here, fit, news) = (Bytes::new(), Vec::new(), Arc::default(), Vec::new());
        let why = Arc::new(OnceLock::new());
        let doorway = Doorway { said: say, typed: type_in, why: Arc::clone(&why) };
        (Self { said, typed, pending, here, fit, host, news, why }, doorway)
    }

    /// Whether nobody is here.
    pub(in crate::worker) fn is_empty(&self) -> bool {
        self.here.is_empty()
    }

    /// The size of all windows.
    pub(in crate::worker) fn fit(&self) -> Arc<Fit> {
        Arc::clone(&self.fit)
    }

    /// Gives the terminal what guests type, until one of them has something else to say.
    /// Cancel-safe.
    pub(in crate::worker) async fn heard(
        &mut self,
        master: &AsyncFd<OwnedFd>,
        track: &Track,
    ) -> Said {
        loop {
            tokio::select! {
                said = self.said.recv() => match said {
                    Some(said) => return said,
                    // Nobody can come any more.
                    None => return std::future::pending().await,
                },
                Some(typed) = self.typed.recv(), if self.pending.is_empty() => self.pending = typed,
                written = written(master, track, &self.pending), if !self.pending.is_empty() => {
                    self.took(written);
                }
            }
        }
    }

    /// The same without waiting, for whoever has no time: a program that shows more than can be taken
    /// must not keep out who would stop it.
    pub(in crate::worker) fn at_once(
        &mut self,
        master: &AsyncFd<OwnedFd>,
        track: &Track,
    ) -> Option<Said> {
        if self.pending.is_empty()
            && let Ok(typed) = self.typed.try_recv()
        {
            self.pending = typed;
        }
        if !self.pending.is_empty()
            && let Ok(written) = track.type_into(master.get_ref(), &self.pending)
        {
            self.took(written);
        }
        self.said.try_recv().ok()
    }

    /// So much of what was typed is typed. Nothing is: the program is gone.
    fn took(&mut self, written: usize) {
        if written == 0 {
            self.pending.clear();
        } else {
            self.pending.advance(written.min(self.pending.len()));
        }
    }

    /// The program shows this.
    pub(in crate::worker) fn show(&self, bytes: &[u8]) {
        for guest in &self.here {
            guest.link.show(bytes);
        }
    }

    /// Does what follows from what was said.
    pub(in crate::worker) fn act(&mut self, said: Said, at: At<'_>) {
        let At { master, screen, track } = at;
        match said {
            Said::Came(guest) => {
                screen.settle(size_of(master));
                guest.link.draw(&screen.drawn(true));
                self.fit.guest(guest.id, guest.size);
                let line = format!("{} joined ({})", guest.who.name, guest.who.how());
                track.mark(&line);
                self.news.push(format!("{line}, with {}", self.company()));
                self.here.push(guest);
            }
            Said::Size(id, size) => self.fit.guest(id, size),
            Said::Ready(id) => {
                if let Some(guest) = self.here.iter().find(|guest| guest.id == id) {
                    screen.settle(size_of(master));
                    guest.link.draw(&screen.drawn(false));
                }
            }
            Said::Typed(id) => {
                screen.settle(size_of(master));
                if let Some(guest) = self.here.iter().find(|guest| guest.id == id)
                    && screen.is_whole()
                {
                    guest.link.show(&notice::draw(screen, &[LOOKS_ON.to_owned()]));
                }
            }
            Said::Left(id) => {
                self.fit.gone(id);
                if let Some(place) = self.here.iter().position(|guest| guest.id == id) {
                    let line = format!("{} left", self.here.remove(place).who.name);
                    track.mark(&line);
                    self.news.push(line);
                }
            }
        }
        self.fit.apply(master, track);
    }

    /// Who is here already.
    fn company(&self) -> String {
        let guests =
            self.here.iter().map(|guest| format!("{} ({})", guest.who.name, guest.who.how()));
        let all: Vec<_> = std::iter::once(self.host.clone()).chain(guests).collect();
        all.join(", ")
    }

    /// What draws the latest news for a client, once: guests are shown it here. `None` where there is
    /// none, and while the program is in the middle of something.
    pub(in crate::worker) fn news(
        &mut self,
        master: &AsyncFd<OwnedFd>,
        screen: &mut Screen,
    ) -> Option<Vec<u8>> {
        if self.news.is_empty() {
            return None;
        }
        screen.settle(size_of(master));
        if !screen.is_whole() {
            return None;
        }
        let lines = std::mem::take(&mut self.news);
        let drawn = notice::draw(screen, &lines);
        self.show(&drawn);
        Some(drawn)
    }

    /// The terminal has ended, for this reason or one that was known before. Those on the way in are told
    /// as well.
    pub(super) fn end(&mut self, why: &str) {
        let why = self.why.get_or_init(|| why.to_owned());
        // Known before anybody finds the way in closed.
        self.said.close();
        self.typed.close();
        while let Ok(said) = self.said.try_recv() {
            if let Said::Came(guest) = said {
                self.here.push(guest);
            }
        }
        for guest in self.here.drain(..) {
            guest.link.end(why);
        }
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        self.end(ENDED);
    }
}

/// How much of it the terminal took; 0 where it never will. Cancel-safe.
async fn written(master: &AsyncFd<OwnedFd>, track: &Track, bytes: &[u8]) -> usize {
    loop {
        let Ok(mut guard) = master.writable().await else { return 0 };
        match guard.try_io(|fd| track.type_into(fd.get_ref(), bytes)) {
            Ok(Ok(written)) => return written,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(Err(_)) => return 0,
            Err(_would_block) => {}
        }
    }
}
