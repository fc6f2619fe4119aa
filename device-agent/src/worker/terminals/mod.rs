//! The terminals of a session, which outlive the SSH connections they were opened on.
//!
//! A terminal is one value, a [`Pty`]: whoever holds it drives it, and nobody else can. While a
//! client has it that is its channel's task, through [`Held`]; when that client is gone without
//! having ended it, it is a task of this room ([`minder`]), which reads what the program writes into
//! its [`Screen`], so that the program goes on. Another channel gets it by asking whoever holds it.
//!
//! A terminal whose program has ended stays until a client was told how: only its device is closed.
//! People of other sessions may be in one as well ([`guests`]).
//! What it is not: it admits nobody (that is the gate's), and it knows no SSH.

mod fit;
mod flood;
mod guests;
mod minder;
mod modes;
mod notice;
mod screen;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::event::WorkerEvent;
use super::gate::{Denied, Events};
use super::joining::Knock;
use super::limits::{FAREWELL, GUESTS_MAX, HAND_OVER, RESIZE_INTERVAL, TERMINALS_MAX};
use super::process::{Ended, read_some};
use super::pty::{Leader, Running};
use super::record::Track;
pub(super) use fit::Fit;
pub(super) use guests::{At, Guests};
use guests::{Doorway, Seat, Who};
pub(super) use screen::Screen;

/// Who asks for a terminal, and where it is to go.
pub(super) type Ask = oneshot::Sender<Box<Pty>>;

/// What a terminal runs, for the gate and for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct About {
    /// Counts from 1 in its session.
    pub(super) number: u32,
    /// The command, or `None` for the login shell.
    pub(super) command: Option<String>,
}

impl About {
    fn words(&self) -> String {
        let what = self.command.as_deref().unwrap_or("shell");
        let shown: String = super::ssh::shown(what).chars().take(40).collect();
        format!("{} ({shown})", self.number)
    }
}

/// A program on its terminal, and what it shows.
pub(super) struct Pty {
    pub(super) about: About,
    /// The channel it was opened on, for the events.
    channel: u32,
    tty: String,
    pid: u32,
    /// `None` once the program has ended and its last output was read.
    master: Option<AsyncFd<OwnedFd>>,
    leader: Leader,
    screen: Screen,
    track: Track,
    exit: Option<Ended>,
    asks: mpsc::Receiver<Ask>,
    guests: Guests,
}

/// A terminal's parts, to be used at once.
pub(super) struct Parts<'a> {
    pub(super) master: Option<&'a AsyncFd<OwnedFd>>,
    pub(super) leader: &'a mut Leader,
    pub(super) screen: &'a mut Screen,
    pub(super) track: &'a Track,
    pub(super) asks: &'a mut mpsc::Receiver<Ask>,
    pub(super) guests: &'a mut Guests,
    pub(super) pid: u32,
}

impl Pty {
    pub(super) fn parts(&mut self) -> Parts<'_> {
        let Self { master, leader, screen, track, asks, guests, pid, .. } = self;
        Parts { master: master.as_ref(), leader, screen, track, asks, guests, pid: *pid }
    }

    /// How its program ended, once it has.
    pub(super) fn exit(&self) -> Option<&Ended> {
        self.exit.as_ref()
    }

    /// What draws it for a client of this size. The program learns the size after that, so what it
    /// draws for it comes later; one on the other screen is made to draw in any case.
    pub(super) fn redraw(&mut self, size: Winsize) -> Vec<u8> {
        let fit = self.guests.fit();
        if size.ws_col != 0 && size.ws_row != 0 {
            fit.own(Some(size));
        }
        match fit.size().or_else(|| self.size()) {
            Some(size) => self.screen.redraw(size),
            None => Vec::new(),
        }
    }

    /// Gives the terminal the size of the client it was drawn for, and of all others that see it.
    pub(super) async fn resize(&self, size: Winsize) {
        let Some(master) = &self.master else { return };
        if size.ws_col == 0 || size.ws_row == 0 {
            return;
        }
        let fit = self.guests.fit();
        if let Some(size) = fit.size()
            && self.screen.is_alternate()
            && self.size() == Some(size)
        {
            // A program draws its screen anew when the size changes, and only then.
            let less = Winsize { ws_row: size.ws_row.saturating_sub(1).max(1), ..size };
            if let Err(error) = tcsetwinsize(master.get_ref(), less) {
                tracing::debug!(%error, "the terminal's size stays");
            }
            sleep(RESIZE_INTERVAL).await;
        }
        fit.apply(master, &self.track);
    }

    fn size(&self) -> Option<Winsize> {
        self.master.as_ref().and_then(size_of)
    }
}

/// A terminal's size as its program may have changed it.
pub(super) fn size_of(master: &AsyncFd<OwnedFd>) -> Option<Winsize> {
    tcgetwinsize(master.get_ref()).ok()
}

/// What a program shows on its terminal, once its recording has room for more; what was typed before
/// it and stands in it is recorded by then. Cancel-safe.
pub(super) async fn read_recorded(
    master: &AsyncFd<OwnedFd>,
    buffer: &mut [u8],
    track: &Track,
) -> Option<usize> {
    track.room().await;
    let read = read_some(master, buffer).await?;
    track.echoed(master.get_ref(), buffer.get(..read).unwrap_or_default());
    Some(read)
}

struct Slot {
    about: About,
    asks: mpsc::Sender<Ask>,
    doorway: Doorway,
    /// A client has it.
    attended: bool,
}

#[derive(Default)]
struct Inner {
    slots: BTreeMap<u32, Slot>,
    last: u32,
    /// Guests so far.
    guests: u64,
}

impl Inner {
    /// The one that is named, or the only one there is, or the only one for which `rather` holds.
    fn choose(&self, named: Option<u32>, rather: fn(&Slot) -> bool) -> Result<&Slot, Denied> {
        let all: Vec<&Slot> = self.slots.values().collect();
        let list = || {
            let words: Vec<_> = all.iter().map(|slot| slot.about.words()).collect();
            words.join(", ")
        };
        let rather: Vec<_> = all.iter().filter(|slot| rather(slot)).collect();
        match (named, all.as_slice(), rather.as_slice()) {
            (_, [], _) => Err(Denied::because("this session has no terminal")),
            (Some(number), _, _) => self.slots.get(&number).ok_or_else(|| {
                Denied::because(format!("this session has no terminal {number}; it has {}", list()))
            }),
            (None, [only], _) => Ok(only),
            (None, _, [only]) => Ok(only),
            (None, _, _) => Err(Denied::because(format!(
                "this session has several terminals, name one with --terminal: {}",
                list()
            ))),
        }
    }
}

/// See the module.
pub(super) struct Terminals {
    events: Events,
    /// Whether a terminal may be without its client.
    keeps: bool,
    inner: Mutex<Inner>,
    count: watch::Sender<u32>,
    minders: Mutex<JoinSet<()>>,
    /// Whose session it is.
    host: String,
    /// Whether it has terminals of its own, which others may join.
    joinable: bool,
    places: Arc<Semaphore>,
    guests: Mutex<JoinSet<()>>,
}

impl Terminals {
    /// Of a session of `host`'s; `joinable` when others may join its terminals.
    pub(super) fn new(events: Events, keeps: bool, (host, joinable): (&str, bool)) -> Arc<Self> {
        Arc::new(Self {
            host: host.to_owned(),
            joinable,
            places: Arc::new(Semaphore::new(GUESTS_MAX)),
            guests: Mutex::default(),
            events,
            keeps,
            inner: Mutex::default(),
            count: watch::Sender::new(0),
            minders: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whole between any two statements that can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a terminal may be without its client.
    pub(super) fn keeps(&self) -> bool {
        self.keeps
    }

    /// How many there are, also those whose program has ended and nobody was told.
    pub(super) fn count(&self) -> watch::Receiver<u32> {
        self.count.subscribe()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().slots.is_empty()
    }

    /// Whether there is one that no client has.
    pub(super) fn any_waits(&self) -> bool {
        self.lock().slots.values().any(|slot| !slot.attended)
    }

    /// Takes a program that was just started in. `vanished` is whether its client is gone without
    /// having ended it, by the time the returned value is dropped.
    pub(super) async fn open(
        self: &Arc<Self>,
        running: Running,
        command: Option<String>,
        (channel, term, vanished): (u32, &str, Arc<AtomicBool>),
    ) -> Result<Held, Denied> {
        let Running { master, tty, pid, leader } = running;
        let (asks_to, asks) = mpsc::channel(1);
        let (guests, doorway) = Guests::new(self.host.clone());
        let about = {
            let mut inner = self.lock();
            if inner.slots.len() >= TERMINALS_MAX {
                return Err(Denied::because(format!(
                    "this session has {TERMINALS_MAX} terminals: end some first"
                )));
            }
            inner.last += 1;
            let about = About { number: inner.last, command };
            let slot = Slot { about: about.clone(), asks: asks_to, doorway, attended: true };
            inner.slots.insert(about.number, slot);
            about
        };
        self.counted();
        let size = size_of(&master).unwrap_or_else(usual);
        let track =
            self.events.recorder().terminal(channel, (term, size), about.command.as_deref());
        let screen = Screen::new(size);
        guests.fit().own(Some(size));
        let (master, exit) = (Some(master), None);
        let pty =
            Pty { about, channel, tty, pid, master, leader, screen, track, exit, asks, guests };
        let event = WorkerEvent::PtyOpened { channel, tty: pty.tty.clone(), pid };
        let held = Held { pty: Some(Box::new(pty)), room: Arc::clone(self), vanished };
        match self.events.send(event).await {
            Ok(()) => Ok(held),
            Err(denied) => {
                held.hang_up().await;
                Err(denied)
            }
        }
    }

    /// Which terminal a client means who names one, or none: the only one, or the only one that waits.
    pub(super) fn choose(&self, named: Option<u32>) -> Result<About, Denied> {
        let inner = self.lock();
        let slot = inner.choose(named, |slot| !slot.attended)?;
        Ok(slot.about.clone())
    }

    /// A seat at a terminal for somebody of another session who names one, or none: the only one.
    pub(super) fn seat(&self, knock: Knock) -> Result<Seat, Denied> {
        if !self.joinable {
            return Err(Denied::because("this session itself joins another: join that one"));
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err(Denied::because(format!("{GUESTS_MAX} people have joined this session")));
        };
        let mut inner = self.lock();
        let slot = inner.choose(knock.join.terminal, |_| false)?;
        let (terminal, doorway) = (slot.about.number, slot.doorway.clone());
        if doorway.is_closed() {
            return Err(Denied::because(doorway.why()));
        }
        inner.guests += 1;
        let may_type = knock.join.may_type();
        let who = Who { name: knock.name, session: knock.session, may_type };
        Ok(Seat::new(who, terminal, inner.guests, doorway, place))
    }

    /// Serves a guest, until they or the terminal are gone.
    pub(super) fn attend(&self, seat: Seat, socket: UnixStream) {
        let mut guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        reap(&mut guests);
        guests.spawn(seat.attend(socket, self.events.clone()));
    }

    /// Takes a terminal from whoever has it. `None` when it is gone.
    pub(super) async fn take(
        self: &Arc<Self>,
        number: u32,
        vanished: Arc<AtomicBool>,
    ) -> Option<Held> {
        let asks = self.lock().slots.get(&number)?.asks.clone();
        let (to, from) = oneshot::channel();
        let asked = async {
            asks.send(to).await.ok()?;
            from.await.ok()
        };
        let pty = timeout(HAND_OVER, asked).await.ok().flatten()?;
        self.attended(number, true);
        Some(Held { pty: Some(pty), room: Arc::clone(self), vanished })
    }

    /// The session is over, for this reason: what guests are told when its terminals end now. The first
    /// reason counts.
    pub(super) fn over(&self, reason: &str) {
        let why = format!("{}'s session is over: \"{reason}\"", self.host);
        for slot in self.lock().slots.values() {
            slot.doorway.ends(&why);
        }
    }

    /// Ends all of them. A supervisor that takes no event is not waited for.
    pub(super) async fn hang_up_all(self: &Arc<Self>) {
        let numbers: Vec<u32> = self.lock().slots.keys().copied().collect();
        let in_order = async {
            for number in numbers {
                if let Some(held) = self.take(number, Arc::default()).await {
                    held.hang_up().await;
                }
            }
        };
        if timeout(FAREWELL, in_order).await.is_err() {
            tracing::debug!("terminals cut at the end of the session");
        }
        let mut minders =
            std::mem::take(&mut *self.minders.lock().unwrap_or_else(PoisonError::into_inner));
        minders.shutdown().await;
        let mut guests =
            std::mem::take(&mut *self.guests.lock().unwrap_or_else(PoisonError::into_inner));
        let told = async { while guests.join_next().await.is_some() {} };
        if timeout(FAREWELL, told).await.is_err() {
            tracing::debug!("guests cut at the end of the session");
        }
        guests.shutdown().await;
    }

    fn attended(&self, number: u32, attended: bool) {
        if let Some(slot) = self.lock().slots.get_mut(&number) {
            slot.attended = attended;
        }
    }

    fn counted(&self) {
        let open = u32::try_from(self.lock().slots.len()).unwrap_or(u32::MAX);
        self.count.send_replace(open);
    }

    /// Its program has ended: its device is closed, and whoever it was for can still be told.
    async fn ended(&self, pty: &mut Pty, exit: Ended) {
        pty.track.ended(&exit);
        pty.exit = Some(exit);
        pty.guests.end(guests::ENDED);
        let size = pty.size();
        pty.screen.settle(size);
        if pty.master.take().is_some() {
            self.tell_closed(pty).await;
        }
    }

    async fn tell_closed(&self, pty: &Pty) {
        let (channel, tty, pid) = (pty.channel, pty.tty.clone(), pty.pid);
        drop(self.events.send(WorkerEvent::PtyClosed { channel, tty, pid }).await);
    }

    /// Closing the device hangs it up. Whoever has it does so, where the session is not over.
    async fn close(&self, mut pty: Box<Pty>) {
        pty.guests.end(&format!("{} closed the terminal", self.host));
        self.lock().slots.remove(&pty.about.number);
        if pty.master.take().is_some() {
            self.tell_closed(&pty).await;
        }
        drop(pty);
        self.counted();
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut minders = self.minders.lock().unwrap_or_else(PoisonError::into_inner);
        reap(&mut minders);
        minders.spawn(task);
    }
}

fn reap(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.try_join_next() {
        if let Err(error) = ended
            && error.is_panic()
        {
            tracing::error!(%error, "a terminal's task failed");
        }
    }
}

fn usual() -> Winsize {
    Winsize { ws_col: 80, ws_row: 24, ws_xpixel: 0, ws_ypixel: 0 }
}

/// A terminal a client has. Dropped, it is hung up, or stays where its client has vanished.
pub(super) struct Held {
    /// Taken only by what consumes this, and put back at once where that fails.
    pty: Option<Box<Pty>>,
    room: Arc<Terminals>,
    vanished: Arc<AtomicBool>,
}

impl Held {
    /// `None` never, as long as this is there.
    pub(super) fn pty(&mut self) -> Option<&mut Pty> {
        self.pty.as_deref_mut()
    }

    /// Gives it to who asked; it stays when that one is gone.
    pub(super) fn hand(mut self, ask: Ask) -> Result<(), Self> {
        let Some(pty) = self.pty.take() else { return Ok(()) };
        match ask.send(pty) {
            Ok(()) => Ok(()),
            Err(pty) => {
                self.pty = Some(pty);
                Err(self)
            }
        }
    }

    /// Its program has ended.
    pub(super) async fn ended(&mut self, exit: Ended) {
        if let Some(pty) = self.pty.as_deref_mut() {
            self.room.ended(pty, exit).await;
        }
    }

    /// Ends it, or forgets it when its program has ended.
    pub(super) async fn hang_up(mut self) {
        if let Some(pty) = self.pty.take() {
            self.room.close(pty).await;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(pty) = self.pty.take() else { return };
        let room = Arc::clone(&self.room);
        if self.vanished.load(Ordering::Relaxed) {
            room.attended(pty.about.number, false);
            self.room.spawn(minder::mind(room, pty));
        } else {
            self.room.spawn(async move { room.close(pty).await });
        }
    }
}
