//! What a terminal shows, to its client, and to its guests, whose typing goes the other way.
//!
//! Without guests the client is waited for, however long it takes: what the program writes then waits
//! with it. With guests it is waited for a while, and then treated as one of them: the program and they
//! go on, and when it takes bytes again it is drawn anew.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};

use bytes::Bytes;
use russh::ChannelWriteHalf;
use russh::server::Msg;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use crate::worker::gate::Admitted;
use crate::worker::limits::{COPY_CHUNK, HOST_PATIENCE};
use crate::worker::record::Track;
use crate::worker::terminals::{At, Guests, Screen, read_recorded, size_of};

/// A terminal, as its driver has it.
pub(super) struct Shown<'a> {
    pub(super) source: &'a AsyncFd<OwnedFd>,
    pub(super) screen: &'a mut Screen,
    pub(super) track: &'a Track,
    pub(super) guests: &'a mut Guests,
}

/// What comes next of it.
enum Step {
    /// So many bytes, which everybody but the client has.
    Read(usize),
    /// Nothing for the client.
    Other,
    /// The terminal ended.
    Ended,
}

impl Shown<'_> {
    /// Waits for the next thing to happen, and does it. Cancel-safe.
    async fn step(&mut self, buffer: &mut [u8]) -> Step {
        let Self { source, screen, track, guests } = self;
        // Without waiting: a program that never pauses must not keep out who would stop it.
        let mut said = guests.at_once(source, track);
        if said.is_none() {
            tokio::select! {
                biased;
                read = read_recorded(source, buffer, track) => {
                    let Some(length) = read else { return Step::Ended };
                    let read = buffer.get(..length).unwrap_or_default();
                    track.output(read);
                    screen.push(read, || size_of(source));
                    guests.show(read);
                    return Step::Read(length);
                }
                () = screen.paused() => screen.settle(size_of(source)),
                heard = guests.heard(source, track) => said = Some(heard),
            }
        }
        if let Some(said) = said {
            guests.act(said, At { master: source, screen, track });
        }
        Step::Other
    }

    /// Until the client has taken this, or is too late; only guests are heard meanwhile. Whether it
    /// has.
    async fn waited(&mut self, mut sending: Pin<&mut impl Future<Output = bool>>) -> Option<bool> {
        loop {
            let Self { source, screen, track, guests } = self;
            tokio::select! {
                biased;
                sent = &mut sending => return Some(sent),
                said = guests.heard(source, track) => {
                    guests.act(said, At { master: source, screen, track });
                }
                // Nothing of this is made before it is polled.
                () = async { sleep(HOST_PATIENCE).await }, if !guests.is_empty() => return None,
            }
        }
    }

    /// Goes on without the client until it has taken what it was sent. Whether it has.
    async fn without(
        &mut self,
        mut sending: Pin<&mut impl Future<Output = bool>>,
        buffer: &mut [u8],
    ) -> bool {
        tracing::info!("the session's client takes nothing; its guests go on");
        loop {
            let step = tokio::select! {
                biased;
                sent = &mut sending => return sent,
                step = self.step(buffer) => step,
            };
            if matches!(step, Step::Ended) {
                return sending.await;
            }
            self.guests.news(self.source, self.screen);
        }
    }
}

/// To the client, until the terminal ends (with `EIO`) or the channel is gone.
pub(super) async fn outward(
    mut shown: Shown<'_>,
    client: &ChannelWriteHalf<Msg>,
    admitted: &Admitted,
) {
    let mut buffer = vec![0; COPY_CHUNK];
    loop {
        let bytes = match shown.step(&mut buffer).await {
            Step::Read(length) => {
                Some(Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default()))
            }
            Step::Other => None,
            Step::Ended => return,
        };
        // In the order in which guests are shown them.
        let news = shown.guests.news(shown.source, shown.screen).map(Bytes::from);
        let mut due = [bytes, news];
        while let Some(bytes) = due.iter_mut().find_map(Option::take) {
            admitted.sending();
            let length = bytes.len() as u64;
            let mut sending = pin!(async { client.data_bytes(bytes).await.is_ok() });
            let (sent, missed) = match shown.waited(sending.as_mut()).await {
                Some(sent) => (sent, false),
                None => (shown.without(sending.as_mut(), &mut buffer).await, true),
            };
            if !sent {
                return;
            }
            admitted.sent(length);
            if missed {
                shown.screen.settle(size_of(shown.source));
                // Ends what was under way where it fell behind (ECMA-48, 8.3.6).
                let drawn = [b"\x18", shown.screen.drawn(false).as_slice()].concat();
                due = [Some(Bytes::from(drawn)), None];
            }
        }
    }
}
