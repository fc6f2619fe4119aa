//! The client: keeps its session as `client/src/kept/keeper.rs` does.

use std::future::ready;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use belay_tunnel::reach::{Silence, insist};
use belay_tunnel::stream::{Attacher, Carried, Link, Source};
use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::carrier::End;
use super::hearing::Hearing;
use super::path::Path;
use super::pipe::{RecvHalf, SendHalf};
use super::relay::{Relay, Who};
use super::session::{ANSWERED_WITHIN, ASK, TAKEN};
use super::suspension::Suspension;

/// The keeper's own: between two attempts, under way at once, before a refusal is asked again.
const EAGER: Duration = Duration::from_secs(1);
const ATTEMPTS: usize = 4;
const PAUSE: Duration = Duration::from_secs(1);
const MOVES_WITHIN: Duration = Duration::from_secs(3);

pub(super) struct Client {
    pub(super) relay: Arc<Relay>,
    pub(super) path: Arc<Path>,
    pub(super) attacher: Attacher,
    pub(super) hearing: Hearing,
    pub(super) process: Arc<Suspension>,
    /// There is a better line than the one that is held.
    pub(super) better: Arc<Notify>,
}

/// How the keeper was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kept {
    Closed,
    /// All is here, and the device may lack the word that it is.
    LostAfterAll,
}

struct Line {
    end: End,
    silence: Mutex<Silence>,
}

enum Turn {
    Done(Kept),
    Lost,
    Moved(Line),
    Better(Line),
}

enum Failure {
    Loss,
    Refused,
}

type Stream = (SendHalf, RecvHalf);

impl Client {
    /// Keeps the session to its end.
    ///
    /// # Errors
    /// What the other end is accused of.
    pub(super) async fn keep(self) -> Result<Kept, String> {
        let mut line = self.redial().await;
        let mut turn = self.first_turn(&line).await?;
        loop {
            match turn {
                Turn::Done(kept) => return Ok(kept),
                Turn::Moved(other) => {
                    self.relay.tally.count(|counts| counts.moved += 1);
                    line.end.close();
                    line = other;
                }
                Turn::Better(other) => {
                    let asked = timeout(MOVES_WITHIN, self.ask_again(&other)).await;
                    if let Ok(Ok(stream)) = asked {
                        line.end.close();
                        line = other;
                        turn = self.later_turn(stream).await?;
                        continue;
                    }
                    other.end.close();
                }
                Turn::Lost => {}
            }
            let (other, stream) = self.attach_again(line).await;
            line = other;
            turn = self.later_turn(stream).await?;
        }
    }

    async fn later_turn(&self, (send, recv): Stream) -> Result<Turn, String> {
        self.turn(ready(()), self.attacher.carry(self.hearing.on(recv), send)).await
    }

    /// The attachment the answer comes on.
    async fn first_turn(&self, line: &Line) -> Result<Turn, String> {
        let Ok((mut send, recv)) = line.end.open() else { return Ok(Turn::Lost) };
        if send.send(Bytes::from_static(ASK)).await.is_err() {
            return Ok(Turn::Lost);
        }
        let (told, mut answer) = watch::channel(false);
        let source = self.hearing.on(Answered { recv, told });
        let answered = async { drop(answer.wait_for(|told| *told).await) };
        self.turn(answered, self.attacher.carry(source, send)).await
    }

    async fn turn(
        &self,
        open: impl Future<Output = ()>,
        carrying: impl Future<Output = Carried>,
    ) -> Result<Turn, String> {
        let another = async {
            open.await;
            tokio::select! {
                biased;
                line = self.another_line() => Turn::Moved(line),
                line = self.better_line() => Turn::Better(line),
            }
        };
        tokio::select! {
            biased;
            carried = carrying => match carried {
                Carried::Closed => Ok(Turn::Done(Kept::Closed)),
                Carried::Lost(_) if self.attacher.is_closed() => Ok(Turn::Done(Kept::LostAfterAll)),
                Carried::Lost(_) => Ok(Turn::Lost),
                other @ (Carried::Violation(_) | Carried::Replaced | Carried::Ended) => {
                    Err(format!("the client's attachment ended so: {other:?}"))
                }
            },
            turn = another => Ok(turn),
        }
    }

    /// Waits until the attachment is silent, then for another line. An attachment that speaks
    /// again meanwhile is kept.
    async fn another_line(&self) -> Line {
        let mut link = self.attacher.link();
        loop {
            self.attacher.silent().await;
            tokio::select! {
                biased;
                line = self.redial() => return line,
                _ = link.wait_for(|link| !matches!(link, Link::Silent { .. })) => {
                    self.relay.tally.count(|counts| counts.heard_again += 1);
                }
            }
        }
    }

    async fn better_line(&self) -> Line {
        self.better.notified().await;
        self.redial().await
    }

    async fn redial(&self) -> Line {
        let beat = self.relay.beat;
        beat.even().await;
        let attempt = || {
            let (relay, path) = (Arc::clone(&self.relay), Arc::clone(&self.path));
            let process = Arc::clone(&self.process);
            async move {
                let dialling = async {
                    let dialled = relay.dial(&path, Who::Client).await;
                    beat.odd().await;
                    dialled
                };
                process.through(dialling).await
            }
        };
        match insist(EAGER, ATTEMPTS, attempt, |_| false).await {
            Ok(end) => Line { silence: Mutex::new(Silence::new(end.bytes())), end },
            Err(_) => unreachable!("no failure is fatal"),
        }
    }

    async fn attach_again(&self, mut line: Line) -> (Line, Stream) {
        loop {
            let failure = match self.ask_again(&line).await {
                Ok(stream) => return (line, stream),
                Err(failure) => failure,
            };
            if matches!(failure, Failure::Loss) || line.end.is_over() {
                line.end.close();
                line = self.redial().await;
            } else {
                sleep(PAUSE).await;
            }
        }
    }

    async fn ask_again(&self, line: &Line) -> Result<Stream, Failure> {
        let asked = async {
            let (mut send, mut recv) = line.end.open().map_err(|_| Failure::Loss)?;
            send.send(Bytes::from_static(ASK)).await.map_err(|_| Failure::Loss)?;
            match timeout(ANSWERED_WITHIN, recv.byte()).await {
                Ok(Ok(TAKEN)) => Ok((send, recv)),
                Ok(Ok(_)) => Err(Failure::Refused),
                Ok(Err(_)) | Err(_) => Err(Failure::Loss),
            }
        };
        tokio::select! {
            biased;
            stream = asked => stream,
            () = self.path_lost(line) => Err(Failure::Loss),
        }
    }

    async fn path_lost(&self, line: &Line) {
        let round_trip = self.path.shape.round_trip();
        loop {
            let now = Instant::now().into_std();
            if line.silence.lock().unwrap().judge(line.end.bytes(), round_trip, now) {
                return;
            }
            sleep(Silence::LOOK).await;
        }
    }
}

/// Takes the answer off the front, then passes the bytes.
struct Answered {
    recv: RecvHalf,
    told: watch::Sender<bool>,
}

impl Source for Answered {
    async fn receive(&mut self, pieces: &mut [Bytes]) -> io::Result<Option<usize>> {
        if !*self.told.borrow() {
            if self.recv.byte().await? != TAKEN {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            self.told.send_replace(true);
        }
        Source::receive(&mut self.recv, pieces).await
    }
}
