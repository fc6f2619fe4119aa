//! Minding a terminal no client has: its program must not wait for anybody.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::{Ask, At, Guests, Parts, Pty, Screen, Terminals, Track, read_recorded, size_of};
use crate::worker::limits::{COPY_CHUNK, PTY_DRAIN};
use crate::worker::process::Ended;

enum Step {
    Asked(Ask),
    Ended(Ended),
    /// Nobody holds the other side of its device any more.
    Silent,
}

/// Reads what the program writes, waits for its end, and gives the terminal to who asks for it.
pub(super) async fn mind(room: Arc<Terminals>, mut pty: Box<Pty>) {
    let mut silent = false;
    {
        let Parts { master, track, guests, .. } = pty.parts();
        // Nobody of the session's own sees it now.
        guests.fit().own(None);
        if let Some(master) = master {
            guests.fit().apply(master, track);
        }
    }
    loop {
        let running = pty.exit().is_none();
        let step = {
            let Parts { master, leader, screen, track, asks, guests, .. } = pty.parts();
            tokio::select! {
                Some(ask) = asks.recv() => Step::Asked(ask),
                ended = leader.wait(), if running => Step::Ended(ended.unwrap_or_else(|error| {
                    tracing::warn!(%error, "a terminal's program cannot be waited for");
                    Ended::Exit(255)
                })),
                () = swallow(master, screen, track, guests), if !silent => Step::Silent,
            }
        };
        match step {
            Step::Asked(ask) => match ask.send(pty) {
                Ok(()) => return,
                Err(back) => pty = back,
            },
            Step::Silent => silent = true,
            Step::Ended(ended) => {
                let Parts { master, screen, track, guests, .. } = pty.parts();
                // A background program may hold it open for ever: what comes without a pause is
                // still the program's.
                while !silent && swallow_one(master, screen, track, guests).await {}
                room.ended(&mut pty, ended).await;
                silent = true;
            }
        }
    }
}

/// To the terminal's end, with what guests have to do with it.
async fn swallow(
    master: Option<&AsyncFd<OwnedFd>>,
    screen: &mut Screen,
    track: &Track,
    guests: &mut Guests,
) {
    let Some(master) = master else { return };
    let mut buffer = vec![0; COPY_CHUNK];
    loop {
        let mut said = guests.at_once(master, track);
        if said.is_none() {
            tokio::select! {
                biased;
                read = read_recorded(master, &mut buffer, track) => {
                    let Some(read) = read else { return screen.settle(size_of(master)) };
                    let read = buffer.get(..read).unwrap_or_default();
                    track.output(read);
                    screen.push(read, || size_of(master));
                    guests.show(read);
                }
                () = screen.paused() => screen.settle(size_of(master)),
                heard = guests.heard(master, track) => said = Some(heard),
            }
        }
        if let Some(said) = said {
            guests.act(said, At { master, screen, track });
        }
        guests.news(master, screen);
    }
}

/// Whether something came before the terminal was silent.
async fn swallow_one(
    master: Option<&AsyncFd<OwnedFd>>,
    screen: &mut Screen,
    track: &Track,
    guests: &Guests,
) -> bool {
    let Some(master) = master else { return false };
    let mut buffer = vec![0; COPY_CHUNK];
    match timeout(PTY_DRAIN, read_recorded(master, &mut buffer, track)).await {
        Ok(Some(read)) => {
            let read = buffer.get(..read).unwrap_or_default();
            track.output(read);
            screen.push(read, || size_of(master));
            guests.show(read);
            true
        }
        Ok(None) | Err(_) => false,
    }
}
