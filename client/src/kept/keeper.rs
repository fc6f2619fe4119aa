//! The keeper: attaches a session to one stream after another.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use belay_proto::error_line::printable;
use belay_proto::limits::{HELLO_DEADLINE, RESUME_WAIT};
use belay_proto::names::Login as LoginName;
use belay_proto::reconnect::LONGEST_SLOT;
use belay_proto::wire::open::{Opened, Resume, ResumeWindows};
use belay_tunnel::carrier::picker::History;
use belay_tunnel::carrier::{RecvHalf, SendHalf};
use belay_tunnel::reach::insist;
use belay_tunnel::stream::{Attacher, Carried, Link};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::Answer;
use super::answered::Answered;
use super::verdict::is_final;
use super::weather::Weather;
use crate::device_ref::DeviceRef;
use crate::failure::Failure;
use crate::home::Home;
use crate::line::{Line, Opening, Which};
use crate::output;

/// Between two attempts to reach the relay: with a session in the hand, somebody is waiting.
const EAGER: Duration = Duration::from_secs(1);

/// For so long. Then the network is not coming back soon, and attempts cost battery and data.
const EAGER_FOR: Duration = Duration::from_secs(15 * 60);

/// Between two attempts after that.
const PATIENT: Duration = Duration::from_secs(5);

/// Attempts under way at once: a handshake over a satellite takes longer than [`EAGER`].
const ATTEMPTS: usize = 4;

/// Before a question that was refused for now is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// What keeps one session.
pub(super) struct Keeper {
    pub(super) home: Home,
    pub(super) device: DeviceRef,
    pub(super) account: LoginName,
    pub(super) attacher: Attacher,
    pub(super) answer: Answer,
    pub(super) report: watch::Sender<Weather>,
}

/// A stream the session can be attached to.
type Stream = (SendHalf, RecvHalf);

/// How a session begins here.
pub(super) enum Begin {
    /// It was asked for; the answer comes in front of its bytes.
    Asked(Opening),
    /// The same, and it may go unrecorded.
    Breaking(Opening),
    /// It is open.
    Open(Box<(SendHalf, RecvHalf, Opened)>),
}

/// How one attachment ended.
enum Turn {
    /// The session is over, in order.
    Closed,
    /// Its stream broke.
    Lost,
    /// It went silent, and here is another line.
    Moved(Arc<Line>),
    /// It is well, and here is a better line, welcomed by the relay.
    Better(Arc<Line>),
}

/// How long the relay may take to give a session that is well over to a better line. Less than a
/// person would take for an end.
const MOVES_WITHIN: Duration = Duration::from_secs(3);

/// Says who was told that the glass was broken. A relay that does not say it has told nobody.
pub(super) fn say_told(opened: &Opened) {
    output::note(match &opened.break_glass {
        Some(told) => format!("belay: break-glass: {}", printable(told)),
        None => "belay: this relay knows no break-glass: the session is like any other".to_owned(),
    });
}

impl Keeper {
    /// Keeps the session to its end.
    pub(super) async fn keep(self, line: Arc<Line>, begin: Begin) -> Result<(), Failure> {
        let ended = self.hold(line, begin).await;
        if let Err(failure) = &ended {
            self.attacher.end(failure.to_string());
        }
        ended
    }

    async fn hold(&self, mut line: Arc<Line>, begin: Begin) -> Result<(), Failure> {
        let (mut turn, opened) = match begin {
            Begin::Asked(opening) => self.first_turn(&line, opening, |_| {}).await?,
            Begin::Breaking(opening) => self.first_turn(&line, opening, say_told).await?,
            Begin::Open(open) => {
                let (send, recv, opened) = *open;
                (self.turn(&line, ready(()), self.attacher.carry(recv, send)).await, opened)
            }
        };
        loop {
            match turn? {
                Turn::Closed => {
                    line.close().await;
                    return Ok(());
                }
                Turn::Moved(other) => {
                    line.note_silence();
                    line.close().await;
                    line = other;
                }
                Turn::Better(other) => {
                    let asked = timeout(MOVES_WITHIN, self.ask_again(&other, &opened)).await;
                    if let Ok(Ok((send, recv))) = asked {
                        line.close().await;
                        line = other;
                        let carrying = self.attacher.carry(recv, send);
                        turn = self.turn(&line, ready(()), carrying).await;
                        continue;
                    }
                    // The line that was well is there to go on with.
                    other.note_silence();
                    other.close().await;
                }
                Turn::Lost => {
                    // A line that lives is asked at once: the answer says as much as a word would.
                    if line.is_over()
                        && let Some(word) = line.word().await
                        && is_final(&word)
                    {
                        return Err(word);
                    }
                    if let Some(slot) = line.told_to_wait() {
                        sleep(slot.min(LONGEST_SLOT)).await;
                    }
                }
            }
            let since = Instant::now();
            let window = window(&opened);
            let (other, (send, recv)) = timeout(window, self.attach_again(line, &opened, since))
                .await
                .map_err(|_| too_late(window))??;
            line = other;
            self.report.send_replace(Weather::Fair);
            turn = self.turn(&line, ready(()), self.attacher.carry(recv, send)).await;
        }
    }

    /// The attachment the answer comes on, and the answer.
    async fn first_turn(
        &self,
        line: &Line,
        opening: Opening,
        tell: impl FnOnce(&Opened) + Send,
    ) -> Result<(Result<Turn, Failure>, Opened), Failure> {
        let (send, answering) = opening.split();
        let (source, mut outcome) = Answered::new(answering, Arc::clone(&self.answer));
        let told = outcome.clone();
        // When it ends without an answer, so does the attachment, which is then noticed.
        let answered = async {
            if let Ok(answer) = outcome.wait_for(Option::is_some).await
                && let Some(Ok(opened)) = &*answer
            {
                tell(opened);
            }
        };
        let turn = self.turn(line, answered, self.attacher.carry(source, send)).await;
        let answer = told.borrow().clone();
        match answer {
            Some(Ok(opened)) => Ok((turn, opened)),
            Some(Err(refused)) => Err(line.explain(refused).await),
            // Nothing is kept before there is something to keep.
            None => Err(line.explain(Failure::line_lost("no answer from the relay")).await),
        }
    }

    /// One attachment, to its end or until another line is there for it. Before the session is
    /// `open` its silence means nothing: the device may take its time to answer.
    async fn turn(
        &self,
        line: &Line,
        open: impl Future<Output = ()>,
        carrying: impl Future<Output = Carried>,
    ) -> Result<Turn, Failure> {
        let another_line = async {
            open.await;
            tokio::select! {
                other = self.another_line(line) => other.map(Turn::Moved),
                better = self.better_line(line) => Ok(Turn::Better(better)),
                never = line.watch_young() => match never {},
            }
        };
        tokio::pin!(carrying);
        tokio::select! {
            carried = &mut carrying => match carried {
                Carried::Closed => Ok(Turn::Closed),
                // What it may still miss is only the word that we have everything.
                Carried::Lost(_) if self.attacher.is_closed() => Ok(Turn::Closed),
                Carried::Lost(why) => {
                    self.foul(Instant::now(), &why.to_string());
                    Ok(Turn::Lost)
                }
                // Nobody else attaches or ends it.
                Carried::Replaced | Carried::Ended => Ok(Turn::Lost),
                Carried::Violation(violation) => Err(Failure::new(
                    "protocol",
                    format!("the session cannot go on: {violation}"),
                )
                .remedy("open a new one; if it happens again, upgrade client and agent")),
            },
            () = self.attacher.over() => Ok(Turn::Closed),
            other = another_line => other,
        }
    }

    /// Waits until the attachment is silent, then for another line. An attachment that speaks
    /// again meanwhile is kept.
    async fn another_line(&self, line: &Line) -> Result<Arc<Line>, Failure> {
        let mut link = self.attacher.link();
        loop {
            self.attacher.silent().await;
            self.foul(Instant::now(), "no answer");
            tokio::select! {
                other = self.redial(line.history()) => return other,
                // It cannot fail: the attacher is ours.
                _ = link.wait_for(|link| !matches!(link, Link::Silent { .. })) => {
                    self.report.send_replace(Weather::Fair);
                }
            }
        }
    }

    /// Waits for QUIC, while the line is on the fallback, and for the relay's welcome over it.
    async fn better_line(&self, line: &Line) -> Arc<Line> {
        loop {
            let carrier = line.quic_again(&self.home).await;
            let greeted = async {
                let better = Line::over(&self.home.live_login()?, carrier, line.history()).await?;
                match timeout(HELLO_DEADLINE, better.welcome()).await {
                    Ok(Ok(_)) => return Ok(better),
                    // A refusal; the line that is held will hear of it too.
                    Ok(Err(_)) => {}
                    Err(_) => better.note_silence(),
                }
                better.close().await;
                Err(Failure::line_lost("no welcome"))
            };
            if let Ok(better) = greeted.await {
                return Arc::new(better);
            }
        }
    }

    fn foul(&self, since: Instant, why: &str) {
        self.report.send_if_modified(|weather| match weather {
            Weather::Foul { .. } => false,
            Weather::Fair => {
                *weather = Weather::Foul { since, why: why.to_owned() };
                true
            }
        });
    }

    /// A line to the relay, however long it takes.
    async fn redial(&self, history: &Arc<History>) -> Result<Arc<Line>, Failure> {
        let attempt = || {
            let (home, history) = (self.home.clone(), Arc::clone(history));
            async move {
                // Read anew each time: somebody may have logged in again.
                let login = home.live_login()?;
                Line::connect_again(&login, &history).await.map(Arc::new)
            }
        };
        match timeout(EAGER_FOR, insist(EAGER, ATTEMPTS, attempt, is_final)).await {
            Ok(line) => line,
            Err(_) => insist(PATIENT, ATTEMPTS, attempt, is_final).await,
        }
    }

    /// Takes the session up again, over this line or another.
    async fn attach_again(
        &self,
        mut line: Arc<Line>,
        opened: &Opened,
        since: Instant,
    ) -> Result<(Arc<Line>, Stream), Failure> {
        loop {
            let failure = match self.ask_again(&line, opened).await {
                Ok(stream) => return Ok((line, stream)),
                Err(failure) => line.explain(failure).await,
            };
            if is_final(&failure) {
                // The word with which the relay ended the session says more than that it is over.
                return Err(line.word().await.unwrap_or(failure));
            }
            self.foul(since, &failure.to_string());
            if failure.is_loss() || line.is_over() {
                line.note_silence();
                line.close().await;
                line = self.redial(line.history()).await?;
            } else {
                sleep(PAUSE).await;
            }
        }
    }

    async fn ask_again(&self, line: &Line, opened: &Opened) -> Result<Stream, Failure> {
        let resume = Resume {
            session: opened.session,
            wait_seconds: u32::try_from(RESUME_WAIT.as_secs()).ok(),
            anew: None,
            stream: opened.stream,
        };
        let asked = async {
            let opening = line.open(&self.device, &self.account, Which::Again(resume)).await?;
            let (send, answering) = opening.split();
            let (recv, _) = answering.answer_within(RESUME_WAIT).await?;
            Ok((send, recv))
        };
        tokio::select! {
            stream = asked => stream,
            () = line.path_lost() => Err(Failure::line_lost("no answer")),
        }
    }
}

fn window(opened: &Opened) -> Duration {
    let windows = opened.windows.unwrap_or(ResumeWindows { interactive: 0, other: 0 });
    Duration::from_secs(u64::from(windows.interactive.max(windows.other)))
}

fn too_late(window: Duration) -> Failure {
    let hours = crate::span::rough(window);
    Failure::new("session-over", format!("the line did not come back within {hours}"))
        .remedy("open a new session")
}
