//! The line from this laptop to the relay, and the streams opened over it.
//!
//! Round trips are what an engineer waits for, so nothing is waited for that need not be: the
//! first `Open` and the first bytes of the session travel right behind `Hello`, and a refusal of
//! either is told apart afterwards.
//!
//! One task answers the relay's questions on the control stream; it ends with the [`Line`].

pub(crate) mod dial;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use belay_proto::limits::DELIVER_DEADLINE;
use belay_proto::names::Login as LoginName;
use belay_proto::policy::BreakGlass;
use belay_proto::refusal::{Code, Refused};
use belay_proto::time::UnixTime;
use belay_proto::version;
use belay_proto::wire::control::{Control, Hello, HelloAnswer, Welcome};
use belay_proto::wire::open::{Join, Open, OpenAnswer, Opened, Resume, kind};
use belay_tunnel::carrier::picker::{self, History, Kind, SOON};
use belay_tunnel::carrier::{Carrier, CarrierError, RecvHalf, ResetCode, SendHalf};
use belay_tunnel::clock;
use belay_tunnel::framed::{self, MessageError};
use belay_tunnel::reach::Silence;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::device_ref::DeviceRef;
use crate::failure::Failure;
use crate::home::{Home, Login};

/// From `Open` to its answer: the relay gives the device [`DELIVER_DEADLINE`]; the rest is for our
/// own way to the relay.
const ANSWER_WITHIN: Duration = Duration::from_secs(DELIVER_DEADLINE.as_secs() + 10);

/// How long a closed line may take to say goodbye. The words are sent at once; this only lets the
/// endpoint's task run.
const GOODBYE: Duration = Duration::from_millis(2);

/// A line that is given up when it has been waiting for an answer this long has gone silent: a lost
/// packet is repeated within it.
const UNANSWERED: Duration = Duration::from_secs(1);

/// How long a refusal on the control stream may come after the stream it also killed.
const AFTERWORD: Duration = Duration::from_millis(250);

/// A line to the relay.
pub struct Line {
    carrier: Carrier,
    greeting: watch::Receiver<Greeting>,
    relay: String,
    /// Seconds from this machine's clock to the relay's, as the last login knew it.
    correction: i64,
    history: Arc<History>,
    /// Since its handshake.
    began: Instant,
    path: Mutex<Silence>,
    _control: JoinSet<()>,
}

/// Which session is asked for.
#[derive(Debug)]
pub enum Which {
    /// A new one; with a reason, one that may go unrecorded.
    New(Option<BreakGlass>),
    /// One to take up again.
    Again(Resume),
    /// A new one that joins a terminal of another; with a reason, one that may go unrecorded.
    Joining(Join, Option<BreakGlass>),
}

/// What the relay has said on the control stream so far.
#[derive(Debug, Clone, Default)]
enum Greeting {
    #[default]
    Waiting,
    Welcome(Welcome, UnixTime),
    Refused(Refused),
}

impl Line {
    /// Dials the relay and says hello. Returns as soon as TLS has proved the relay; whether it
    /// takes us shows with the first stream.
    ///
    /// # Errors
    /// When the relay cannot be reached or is not the one that was pinned.
    pub async fn connect(login: &Login) -> Result<Self, Failure> {
        Self::connect_again(login, &Arc::default()).await
    }

    /// The same, by one who has seen something of the carriers before.
    ///
    /// # Errors
    /// As [`Line::connect`].
    pub async fn connect_again(login: &Login, history: &Arc<History>) -> Result<Self, Failure> {
        let dialled = picker::dial(&dial::wanted(login, history)?).await?;
        Self::over(login, dialled.carrier, history).await
    }

    /// Says hello over this carrier.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn over(
        login: &Login,
        carrier: Carrier,
        history: &Arc<History>,
    ) -> Result<Self, Failure> {
        let (began, path) = (Instant::now(), Mutex::new(Silence::new(carrier.bytes())));
        let (report, greeting) = watch::channel(Greeting::Waiting);
        let (send, recv) = carrier.open().await.map_err(|e| gone(&e))?;
        let mut control = JoinSet::new();
        control.spawn(converse(send, recv, report));
        Ok(Self {
            carrier,
            greeting,
            relay: login.relay().to_string(),
            correction: login.record().clock_correction_s,
            history: Arc::clone(history),
            began,
            path,
            _control: control,
        })
    }

    /// Waits until there is QUIC to the relay again, when this line is on the fallback; for ever
    /// when it is not. Who asks is read anew from `home` for each look.
    pub async fn quic_again(&self, home: &Home) -> Carrier {
        if !self.carrier.is_fallback() {
            return std::future::pending().await;
        }
        let wanted = || home.live_login().and_then(|login| dial::wanted(&login, &self.history));
        picker::quic_again(|| wanted().ok()).await
    }

    /// What was seen of the carriers, over all lines of this session.
    pub const fn history(&self) -> &Arc<History> {
        &self.history
    }

    /// Keeps looking at the path while the line is young: when it then goes silent, that says
    /// something of its carrier ([`Line::note_silence`]). Looking sends nothing.
    pub async fn watch_young(&self) -> Infallible {
        while self.began.elapsed() < SOON {
            self.look();
            tokio::time::sleep(Silence::LOOK).await;
        }
        std::future::pending().await
    }

    /// The line is given up. When it had gone silent, that is kept in mind of its carrier.
    pub fn note_silence(&self) {
        let timed_out = self.carrier.end().is_some_and(|end| end.is_timeout());
        let waited = self.path().waited(Instant::now());
        if timed_out || waited.is_some_and(|waited| waited >= UNANSWERED) {
            self.history.silenced(Kind::of(&self.carrier), self.began.elapsed());
        }
    }

    fn path(&self) -> MutexGuard<'_, Silence> {
        self.path.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the path: whether it is silent.
    fn look(&self) -> bool {
        self.path().judge(self.carrier.bytes(), self.carrier.round_trip(), Instant::now())
    }

    /// What it runs over.
    pub const fn carrier_name(&self) -> &'static str {
        self.carrier.kind()
    }

    /// Waits for the relay's welcome.
    ///
    /// # Errors
    /// When it refuses, or does not answer in time.
    pub async fn welcome(&self) -> Result<Welcome, Failure> {
        let mut greeting = self.greeting.clone();
        let waited = timeout(ANSWER_WITHIN, greeting.wait_for(|g| !matches!(g, Greeting::Waiting)));
        match waited.await {
            Ok(Ok(found)) => match &*found {
                Greeting::Welcome(welcome, _) => {
                    self.history.welcomed(Kind::of(&self.carrier));
                    Ok(welcome.clone())
                }
                Greeting::Refused(refused) => Err(Failure::from(refused.clone())),
                Greeting::Waiting => Err(self.silent()),
            },
            Ok(Err(_)) => Err(Failure::line_lost("the relay closed the line")),
            Err(_) => Err(self.silent()),
        }
    }

    fn silent(&self) -> Failure {
        Failure::new("relay-silent", format!("{} took the line and said nothing", self.relay))
            .remedy("try again; if it stays so, tell the relay's operator")
    }

    /// The relay's time, from its welcome or else from the last login.
    pub fn relay_time(&self) -> UnixTime {
        match &*self.greeting.borrow() {
            Greeting::Welcome(welcome, at) => {
                clock::now().corrected(welcome.clock.correction_from(*at))
            }
            Greeting::Waiting | Greeting::Refused(_) => clock::now().corrected(self.correction),
        }
    }

    /// The transport's estimate of the round trip to the relay.
    pub fn round_trip(&self) -> Duration {
        self.carrier.round_trip()
    }

    /// Asks for a session. Bytes may be sent at once; what comes back begins with the answer.
    ///
    /// # Errors
    /// When the line is gone.
    pub async fn open(
        &self,
        device: &DeviceRef,
        login: &LoginName,
        which: Which,
    ) -> Result<Opening, Failure> {
        let asked = asked_for(device, login);
        let broken = |reason: Option<BreakGlass>| reason.map(|reason| reason.to_string());
        let open = match which {
            Which::New(reason) => Open { break_glass: broken(reason), ..asked },
            Which::Again(resume) => Open { resume: Some(resume), ..asked },
            Which::Joining(join, reason) => {
                Open { join: Some(join), break_glass: broken(reason), ..asked }
            }
        };
        let (mut send, recv) = self.carrier.open().await.map_err(|e| gone(&e))?;
        if let Err(error) = framed::write(&mut send, &open).await {
            return Err(self.explain(Failure::line_lost(&error.to_string())).await);
        }
        Ok(Opening { send, recv, greeting: self.greeting.clone() })
    }

    /// Puts the relay's own word in place of a loss: it says why it ended the line or a session on
    /// the control stream, which may arrive a little after the stream broke.
    pub async fn explain(&self, failure: Failure) -> Failure {
        if !failure.is_loss() {
            return failure;
        }
        if let Some(word) = last_word(&mut self.greeting.clone()).await {
            return word;
        }
        match timeout(AFTERWORD, self.carrier.closed()).await {
            Ok(end) if end.refuses_certificate() => Failure::new(
                Code::ForeignCertificate.token(),
                format!(
                    "{} does not accept your certificate: it is not one of its own",
                    self.relay
                ),
            )
            .remedy("run: belay login"),
            Ok(end) => match end.peer_said() {
                Some((_, said)) if !said.is_empty() => Failure::new("line-lost", said),
                Some(_) | None => failure,
            },
            Err(_) => failure,
        }
    }

    /// Whether the carrier has ended.
    pub fn is_over(&self) -> bool {
        self.carrier.end().is_some()
    }

    /// What the relay has said about an end, if it has, or says within [`AFTERWORD`].
    pub async fn word(&self) -> Option<Failure> {
        last_word(&mut self.greeting.clone()).await
    }

    /// When the relay said to dial again, if it ended this line with such a word.
    pub fn told_to_wait(&self) -> Option<Duration> {
        match &*self.greeting.borrow() {
            Greeting::Refused(refused) => refused.told_to_wait(),
            Greeting::Waiting | Greeting::Welcome(..) => None,
        }
    }

    /// Waits until the path to the relay answers nothing that is sent.
    pub async fn path_lost(&self) {
        while !self.look() {
            tokio::time::sleep(Silence::LOOK).await;
        }
    }

    /// Says goodbye.
    pub async fn close(&self) {
        // Lets the carrier's own task send what was finished just now: closing drops the rest.
        tokio::task::yield_now().await;
        self.carrier.close(ResetCode(0), "done");
        self.carrier.drain(GOODBYE).await;
    }
}

fn asked_for(device: &DeviceRef, login: &LoginName) -> Open {
    Open {
        device: Some(device.to_string()),
        kind: Some(kind::SSH.into()),
        login: Some(login.clone()),
        ..Open::default()
    }
}

/// `Hello`, its answer, then pings until the line ends.
async fn converse(mut send: SendHalf, mut recv: RecvHalf, report: watch::Sender<Greeting>) {
    // Whatever breaks here breaks the carrier too, and is told by the stream that needed it.
    drop(talk(&mut send, &mut recv, &report).await);
}

async fn talk(
    send: &mut SendHalf,
    recv: &mut RecvHalf,
    report: &watch::Sender<Greeting>,
) -> Result<(), MessageError> {
    let hello = Hello {
        newest: Some(version::PROTOCOL),
        oldest: Some(version::OLDEST),
        clock: Some(clock::now()),
        software: Some(concat!("belay/", env!("CARGO_PKG_VERSION")).into()),
        platform: Some(format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH)),
        ..Hello::default()
    };
    framed::write(send, &hello).await?;
    let answer: HelloAnswer = framed::read(recv).await?;
    match answer {
        HelloAnswer { refused: Some(refused), .. } => {
            report.send_replace(Greeting::Refused(refused));
            return Ok(());
        }
        HelloAnswer { welcome: Some(welcome), .. } => {
            report.send_replace(Greeting::Welcome(welcome, clock::now()));
        }
        HelloAnswer { welcome: None, refused: None } => {
            let refused = Refused::new(
                Code::Version,
                "the relay answered in a way this client does not know",
                "upgrade this client",
            );
            report.send_replace(Greeting::Refused(refused));
            return Ok(());
        }
    }
    loop {
        let control: Control = framed::read(recv).await?;
        if let Some(number) = control.ping {
            let pong = Control { pong: Some(number), ..Control::default() };
            framed::write(send, &pong).await?;
        }
        // One line carries one session here, so its end is the line's.
        if let Some(refused) = control.goodbye.or(control.ended.map(|ended| ended.reason)) {
            report.send_replace(Greeting::Refused(refused));
        }
    }
}

/// A session asked for and not yet answered.
pub struct Opening {
    send: SendHalf,
    recv: RecvHalf,
    greeting: watch::Receiver<Greeting>,
}

/// The answer of a session, still to come.
pub struct Answering {
    recv: RecvHalf,
    greeting: watch::Receiver<Greeting>,
}

impl Opening {
    /// The sending half, usable at once, and the rest.
    pub fn split(self) -> (SendHalf, Answering) {
        (self.send, Answering { recv: self.recv, greeting: self.greeting })
    }
}

impl Answering {
    /// Waits for the answer; what follows it are the session's bytes.
    ///
    /// # Errors
    /// The refusal, or what became of the line.
    pub async fn answer(self) -> Result<(RecvHalf, Opened), Failure> {
        self.answer_within(Duration::ZERO).await
    }

    /// The same, when the relay may take `more` time.
    ///
    /// # Errors
    /// The refusal, or what became of the line.
    pub async fn answer_within(mut self, more: Duration) -> Result<(RecvHalf, Opened), Failure> {
        let read = framed::read::<OpenAnswer, _>(&mut self.recv);
        match timeout(ANSWER_WITHIN + more, read).await {
            Ok(Ok(OpenAnswer { refused: Some(refused), .. })) => Err(refused.into()),
            Ok(Ok(OpenAnswer { opened: Some(opened), .. })) => Ok((self.recv, opened)),
            Ok(Ok(OpenAnswer { opened: None, refused: None })) => Err(Failure::new(
                Code::Version.token(),
                "the relay answered in a way this client does not know",
            )
            .remedy("upgrade this client")),
            Ok(Err(error)) => Err(self.explain(&error).await),
            Err(_) => Err(Failure::new(
                Code::DeviceSilent.token(),
                format!("no answer within {} s", ANSWER_WITHIN.as_secs()),
            )
            .remedy("run: belay doctor")),
        }
    }

    /// When the relay refuses our `Hello` it also drops the stream; its reason is on the other one.
    async fn explain(&mut self, error: &MessageError) -> Failure {
        if let Some(word) = last_word(&mut self.greeting).await {
            return word;
        }
        match error {
            MessageError::Frame(_) => Failure::new(
                Code::Protocol.token(),
                format!(
                    "the relay broke the protocol: {}",
                    belay_proto::error_line::one_line(error)
                ),
            )
            .remedy("check that relay and client are of compatible versions"),
            MessageError::Ended | MessageError::Stream(_) => Failure::line_lost(&error.to_string()),
        }
    }
}

/// What the relay says within [`AFTERWORD`]. Does not wait once the control stream is over.
async fn last_word(greeting: &mut watch::Receiver<Greeting>) -> Option<Failure> {
    let refused = greeting.wait_for(|g| matches!(g, Greeting::Refused(_)));
    match timeout(AFTERWORD, refused).await {
        Ok(Ok(found)) => match &*found {
            Greeting::Refused(refused) => Some(Failure::from(refused.clone())),
            Greeting::Waiting | Greeting::Welcome(..) => None,
        },
        Ok(Err(_)) | Err(_) => None,
    }
}

/// A carrier that ended under us. The relay judges our certificate after our side of the handshake
/// is done, so its verdict may come as late as this.
fn gone(end: &CarrierError) -> Failure {
    if end.refuses_certificate() {
        Failure::new(
            Code::ForeignCertificate.token(),
            "the relay does not accept your certificate: it is not one of its own",
        )
        .remedy("run: belay login")
    } else {
        Failure::line_lost(&end.to_string())
    }
}
