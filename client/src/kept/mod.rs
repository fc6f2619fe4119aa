//! A session that is kept: over a lost network, a restarted relay, another address.
//!
//! Commands hold the two ends of the session's bytes and notice nothing but a pause. Behind them
//! one task, the keeper, attaches the session to a stream of the line, and to another one whenever
//! that breaks, until the session ends or its window is over. Its law: it gives up only for a
//! reason that no waiting mends ([`verdict`]). What it is not: it knows no SSH.

mod answered;
mod keeper;
mod verdict;
mod weather;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use belay_proto::grant::{Grant, SignedGrant};
use belay_proto::ids::SessionId;
use belay_proto::names::Login as LoginName;
use belay_proto::policy::BreakGlass;
use belay_proto::refusal::Code;
use belay_proto::wire::frame::decode_payload;
use belay_proto::wire::open::{Join, Opened, Resume};
use belay_tunnel::carrier::{RecvHalf, SendHalf};
use belay_tunnel::stream::{self, RecvEnd, SendEnd};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::device_ref::DeviceRef;
use crate::failure::Failure;
use crate::home::Home;
use crate::line::{Line, Which};
use keeper::{Begin, Keeper};
pub use weather::Weather;

/// A session that was asked for. Bytes may be sent at once.
pub struct Session {
    /// To the device.
    pub send: SendEnd,
    /// From it.
    pub recv: RecvEnd,
    /// The rest.
    pub kept: Kept,
}

/// How a session begins.
#[derive(Debug)]
pub enum Entry {
    /// It is new; with a reason, it may go unrecorded.
    New(Option<BreakGlass>),
    /// Another client of this person has or had it.
    TakenOver(SessionId),
    /// It is new, and joins a terminal of another; with a reason, it may go unrecorded.
    Joining(Join, Option<BreakGlass>),
}

/// A session's keeper, as a command sees it.
pub struct Kept {
    line: Arc<Line>,
    answer: Answer,
    weather: watch::Receiver<Weather>,
    keeper: JoinHandle<Result<(), Failure>>,
}

/// The relay's first answer, once it is there.
pub(crate) type Answer = Arc<Mutex<Option<Opened>>>;

impl Session {
    /// Asks for a session over a fresh line; with a reason, for one that may go unrecorded, and says who was
    /// told of that. Refusals and losses before the first answer come from
    /// [`Kept::end`], as everything that ends the session does.
    ///
    /// # Errors
    /// When the line is gone already.
    pub async fn open(
        home: Home,
        line: Line,
        (device, account): (&DeviceRef, &LoginName),
        glass: Option<BreakGlass>,
    ) -> Result<Self, Failure> {
        let line = Arc::new(line);
        let begin = match glass {
            None => Begin::Asked(line.open(device, account, Which::New(None)).await?),
            Some(reason) => {
                Begin::Breaking(line.open(device, account, Which::New(Some(reason))).await?)
            }
        };
        let of = (device, account);
        Ok(Self::keep(home, line, of, Answer::default(), begin))
    }

    /// Takes a session over that another client had, with a fresh stream. Nothing is sent before
    /// the relay has said that it is one: an older relay takes this for the client it was opened
    /// by.
    ///
    /// # Errors
    /// The refusal, or what became of the line.
    pub async fn take_over(
        home: Home,
        line: Line,
        (device, account): (&DeviceRef, &LoginName),
        session: SessionId,
    ) -> Result<Self, Failure> {
        let line = Arc::new(line);
        let resume = Resume { session, wait_seconds: None, anew: Some(true), stream: None };
        let (send, recv, opened) =
            Self::answered(&line, (device, account), Which::Again(resume)).await?;
        if opened.stream.is_none() {
            line.close().await;
            return Err(Failure::new(
                Code::Version.token(),
                "this relay does not give a session to another client",
            )
            .remedy("ask its operator to upgrade it"));
        }
        Ok(Self::begun(home, line, (device, account), (send, recv, opened)))
    }

    /// Opens a session that joins a terminal of another; with a reason, one that may go unrecorded, and
    /// says who was told of that. Nothing is sent before the relay has said that it joins: an older
    /// relay takes this for one of its own, with a shell.
    ///
    /// # Errors
    /// The refusal, or what became of the line.
    pub async fn join(
        home: Home,
        line: Line,
        of: (&DeviceRef, &LoginName),
        (join, glass): (Join, Option<BreakGlass>),
    ) -> Result<Self, Failure> {
        let line = Arc::new(line);
        let breaks = glass.is_some();
        let (send, recv, opened) = Self::answered(&line, of, Which::Joining(join, glass)).await?;
        if !joins(&opened) {
            line.close().await;
            let cause = "this relay does not let anybody join a session";
            return Err(
                Failure::new(Code::Version.token(), cause).remedy("ask its operator to upgrade it")
            );
        }
        if breaks {
            keeper::say_told(&opened);
        }
        Ok(Self::begun(home, line, of, (send, recv, opened)))
    }

    /// The relay's answer, before anything is sent.
    async fn answered(
        line: &Line,
        (device, account): (&DeviceRef, &LoginName),
        which: Which,
    ) -> Result<(SendHalf, RecvHalf, Opened), Failure> {
        let (send, answering) = line.open(device, account, which).await?.split();
        match answering.answer().await {
            Ok((recv, opened)) => Ok((send, recv, opened)),
            Err(failure) => Err(line.explain(failure).await),
        }
    }

    /// One that is open.
    fn begun(
        home: Home,
        line: Arc<Line>,
        of: (&DeviceRef, &LoginName),
        (send, recv, opened): (SendHalf, RecvHalf, Opened),
    ) -> Self {
        let answer = Answer::new(Mutex::new(Some(opened.clone())));
        Self::keep(home, line, of, answer, Begin::Open(Box::new((send, recv, opened))))
    }

    fn keep(
        home: Home,
        line: Arc<Line>,
        (device, account): (&DeviceRef, &LoginName),
        answer: Answer,
        begin: Begin,
    ) -> Self {
        let (send, recv, attacher) = stream::session(stream::Config::default());
        let (report, weather) = watch::channel(Weather::Fair);
        let keeper = Keeper {
            home,
            device: device.clone(),
            account: account.clone(),
            attacher,
            answer: Arc::clone(&answer),
            report,
        };
        let keeper = tokio::spawn(keeper.keep(Arc::clone(&line), begin));
        Self { send, recv, kept: Kept { line, answer, weather, keeper } }
    }
}

/// Whether what was granted is to join, and nothing else.
fn joins(opened: &Opened) -> bool {
    let grant = opened.grant.as_ref().and_then(|signed| {
        let signed: SignedGrant = decode_payload(signed).ok()?;
        decode_payload::<Grant>(&signed.grant).ok()
    });
    grant.is_some_and(|grant| grant.joins.is_some())
}

impl Kept {
    /// What the relay said the session is, once it has.
    pub(crate) fn answer(&self) -> Answer {
        Arc::clone(&self.answer)
    }

    /// The line the session began on.
    pub(crate) fn first_line(&self) -> Arc<Line> {
        Arc::clone(&self.line)
    }

    /// Whether the session has a line now, and since when not.
    pub fn weather(&self) -> watch::Receiver<Weather> {
        self.weather.clone()
    }

    /// Waits for the end: in order, or why not.
    ///
    /// # Errors
    /// The refusal, or what ended the session.
    pub async fn end(&mut self) -> Result<(), Failure> {
        match (&mut self.keeper).await {
            Ok(end) => end,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => Err(Failure::new("internal", error.to_string())),
            },
        }
    }

    /// After our side was finished: lets the last words leave, for at most `patience`, and goes.
    pub async fn leave(mut self, patience: Duration) {
        if timeout(patience, self.end()).await.is_err() {
            self.keeper.abort();
            self.line.close().await;
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}
