//! The one gate: whatever a client asks for passes [`Gate::admit`] or does not
//! happen.
//!
//! A gate is made from a verified identity only. What it lets through is an
//! [`Admitted`], which nothing else can make and which everything that opens a
//! program, a file or a connection must be given. Each decision is an event,
//! and the event is on its way before the thing happens: a supervisor that does
//! not listen stops the session, it does not blind it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use thiserror::Error;
use tokio::sync::mpsc;

use super::event::{ChannelKind, WorkerEvent, bounded};
use super::record::Recorder;
use super::ssh::Rights;

/// The actions a grant allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    shell: bool,
    exec: bool,
    sftp: bool,
    forward: bool,
    reverse: bool,
    agent: bool,
    join: bool,
}

impl Actions {
    /// Every token of a session of its own, for the help of the standard-input mode.
    pub const TOKENS: [&'static str; 6] = ["shell", "exec", "sftp", "forward", "reverse", "agent"];

    /// Reads a grant's tokens; one that is not known allows nothing.
    pub fn from_tokens<T: AsRef<str>>(tokens: &[T]) -> Self {
        let mut actions = Self::default();
        for token in tokens {
            match token.as_ref() {
                "shell" => actions.shell = true,
                "exec" => actions.exec = true,
                "sftp" => actions.sftp = true,
                "forward" => actions.forward = true,
                "reverse" => actions.reverse = true,
                "agent" => actions.agent = true,
                "join" => actions.join = true,
                other => tracing::warn!(action = other, "an action this version does not know"),
            }
        }
        actions
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    Shell,
    Exec(&'a str),
    Sftp,
    Terminal(&'a str),
    /// A target as the client wrote it.
    Forward(&'a str),
    /// The address to listen on.
    Reverse(&'a str),
    Agent,
    X11,
    /// A terminal of this session, and what it runs: a command, or the shell.
    Attach(Option<&'a str>),
    /// The terminal of another session that this one was made to join: which, and how.
    Join(&'a str),
    /// A subsystem or channel type nobody serves.
    Unknown(&'a str),
}

impl Request<'_> {
    fn kind(&self) -> ChannelKind {
        match self {
            Self::Shell => ChannelKind::Shell,
            Self::Exec(_) => ChannelKind::Exec,
            Self::Sftp => ChannelKind::Sftp,
            Self::Terminal(_) => ChannelKind::Terminal,
            Self::Forward(_) => ChannelKind::Forward,
            Self::Reverse(_) => ChannelKind::Reverse,
            Self::Agent => ChannelKind::Agent,
            Self::X11 => ChannelKind::X11,
            Self::Attach(_) => ChannelKind::Attach,
            Self::Join(_) => ChannelKind::Join,
            Self::Unknown(_) => ChannelKind::Other,
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::Exec(text)
            | Self::Terminal(text)
            | Self::Forward(text)
            | Self::Reverse(text)
            | Self::Attach(Some(text))
            | Self::Join(text)
            | Self::Unknown(text) => bounded(text),
            Self::Attach(None) | Self::Shell | Self::Sftp | Self::Agent | Self::X11 => {
                String::new()
            }
        }
    }
}

/// Why not, in one line for the engineer.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Denied(String);

impl Denied {
    /// A refusal found after admission, such as a target that may not be dialled.
    pub(super) fn because(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// The way events take. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Events {
    sender: mpsc::Sender<WorkerEvent>,
    recorder: Recorder,
}

impl Events {
    pub(super) fn new(sender: mpsc::Sender<WorkerEvent>, recorder: Recorder) -> Self {
        Self { sender, recorder }
    }

    /// The session's recording, in which events are as well.
    pub(super) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Waits for room.
    pub(super) async fn send(&self, event: WorkerEvent) -> Result<(), Denied> {
        self.recorder.note(&event);
        self.sender.send(event).await.map_err(|_| going_down())
    }

    /// Waits for room for an event that a destructor will send, and keeps it.
    async fn reserve(&self) -> Result<mpsc::OwnedPermit<WorkerEvent>, Denied> {
        self.sender.clone().reserve_owned().await.map_err(|_| going_down())
    }
}

fn going_down() -> Denied {
    Denied("the agent of this device is going down: try again".into())
}

/// See the module.
#[derive(Debug)]
pub struct Gate {
    actions: Actions,
    rights: Rights,
    events: Events,
}

impl Gate {
    /// Only [`ssh`](super::ssh) calls this, with what a verified identity carries.
    pub(super) fn new(actions: Actions, rights: Rights, events: Events) -> Self {
        Self { actions, rights, events }
    }

    /// Decides, and tells the supervisor what was decided.
    pub(super) async fn admit(
        &self,
        channel: u32,
        request: Request<'_>,
    ) -> Result<Admitted, Denied> {
        let (kind, detail) = (request.kind(), request.detail());
        if let Err(denied) = self.decide(&request) {
            self.refuse(channel, &request, &denied).await?;
            return Err(denied);
        }
        let closing = self.events.reserve().await?;
        self.events
            .send(WorkerEvent::ChannelOpened { channel, kind: Some(kind), detail: detail.clone() })
            .await?;
        Ok(Admitted {
            channel,
            kind,
            detail,
            closing: Some(closing),
            recorder: self.events.recorder.clone(),
            meter: Meter::default(),
            outcome: Outcome::default(),
        })
    }

    /// Tells of a refusal that some later check made.
    pub(super) async fn refuse(
        &self,
        channel: u32,
        request: &Request<'_>,
        denied: &Denied,
    ) -> Result<(), Denied> {
        tracing::info!(channel, kind = request.kind().word(), reason = %denied, "refused");
        self.events
            .send(WorkerEvent::ChannelRefused {
                channel,
                kind: Some(request.kind()),
                detail: request.detail(),
                reason: denied.0.clone(),
            })
            .await
    }

    fn decide(&self, request: &Request<'_>) -> Result<(), Denied> {
        let Self { actions, rights, .. } = self;
        match request {
            Request::Shell => granted("shell", actions.shell),
            Request::Exec(_) => granted("exec", actions.exec),
            Request::Sftp => granted("sftp", actions.sftp),
            Request::Terminal(_) => {
                granted("shell", actions.shell || actions.exec || actions.join)?;
                certified("terminals", rights.terminal)
            }
            Request::Attach(command) => {
                match command {
                    // Of a session that joins, all that runs on terminals is joining.
                    Some(_) => granted("exec", actions.exec || actions.join)?,
                    None => granted("shell", actions.shell)?,
                }
                certified("terminals", rights.terminal)
            }
            Request::Join(_) => {
                granted("join", actions.join)?;
                certified("terminals", rights.terminal)
            }
            Request::Forward(_) => {
                granted("forward", actions.forward)?;
                certified("port forwarding", rights.forwarding)
            }
            Request::Reverse(_) => {
                granted("reverse", actions.reverse)?;
                certified("port forwarding", rights.forwarding)
            }
            Request::Agent => {
                granted("agent", actions.agent)?;
                certified("agent forwarding", rights.agent)
            }
            Request::X11 => Err(Denied("X11 forwarding is not served: use `ssh -x`".into())),
            Request::Unknown(name) => {
                Err(Denied(format!("`{}` is not served by this device", super::ssh::shown(name))))
            }
        }
    }
}

fn granted(action: &str, allowed: bool) -> Result<(), Denied> {
    if allowed {
        return Ok(());
    }
    Err(Denied(format!("the grant does not allow `{action}`: ask for a role that does")))
}

fn certified(what: &str, allowed: bool) -> Result<(), Denied> {
    if allowed {
        return Ok(());
    }
    Err(Denied(format!("the certificate does not permit {what}: run `belay login`")))
}

#[derive(Debug, Default)]
struct Meter {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    sending: AtomicBool,
}

/// How far a channel's output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) bytes_out: u64,
    /// Bytes were read and wait for the client to take them.
    pub(super) sending: bool,
}

#[derive(Debug, Default)]
struct Outcome {
    exit: Option<i32>,
    signal: Option<String>,
}

/// Leave to do one thing. Dropping it says that the thing is over.
#[derive(Debug)]
pub struct Admitted {
    channel: u32,
    kind: ChannelKind,
    detail: String,
    /// Room for the event that it is over: no full queue loses it.
    closing: Option<mpsc::OwnedPermit<WorkerEvent>>,
    recorder: Recorder,
    meter: Meter,
    outcome: Outcome,
}

impl Admitted {
    pub(super) fn kind(&self) -> ChannelKind {
        self.kind
    }

    pub(super) fn channel(&self) -> u32 {
        self.channel
    }

    pub(super) fn received(&self, bytes: u64) {
        self.meter.bytes_in.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes are about to wait for the client.
    pub(super) fn sending(&self) {
        self.meter.sending.store(true, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.meter.bytes_out.fetch_add(bytes, Ordering::Relaxed);
        self.meter.sending.store(false, Ordering::Relaxed);
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            bytes_out: self.meter.bytes_out.load(Ordering::Relaxed),
            sending: self.meter.sending.load(Ordering::Relaxed),
        }
    }

    /// How the program ended, for the closing event.
    pub(super) fn ended(&mut self, exit: Option<i32>, signal: Option<String>) {
        self.outcome = Outcome { exit, signal };
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.over();
    }
}

impl Admitted {
    /// The thing is over, whatever is still kept of it.
    pub(super) fn over(&mut self) {
        let Some(closing) = self.closing.take() else { return };
        let closed = WorkerEvent::ChannelClosed {
            channel: self.channel,
            kind: Some(self.kind),
            detail: std::mem::take(&mut self.detail),
            exit: self.outcome.exit,
            signal: self.outcome.signal.take(),
            bytes_in: self.meter.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.meter.bytes_out.load(Ordering::Relaxed),
        };
        self.recorder.note(&closed);
        closing.send(closed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    const REQUESTS: [(Request<'static>, &str); 8] = [
        (Request::Shell, "shell"),
        (Request::Exec("id"), "exec"),
        (Request::Sftp, "sftp"),
        (Request::Forward("h:1"), "forward"),
        (Request::Reverse("h:1"), "reverse"),
        (Request::Agent, "agent"),
        (Request::Attach(None), "shell"),
        (Request::Attach(Some("top")), "exec"),
    ];

    fn gate(tokens: &[&str], rights: Rights) -> (Gate, mpsc::Receiver<WorkerEvent>) {
        let (tx, rx) = mpsc::channel(8);
        (Gate::new(Actions::from_tokens(tokens), rights, Events::new(tx, Recorder::default())), rx)
    }

    #[tokio::test]
    async fn each_action_opens_its_own_door_and_no_other() {
        for token in Actions::TOKENS {
            for (request, wanted) in REQUESTS {
                let (gate, _events) = gate(&[token], Rights::ALL);
                let verdict = gate.admit(0, request).await;
                assert_eq!(verdict.is_ok(), token == wanted, "{token} {request:?}");
            }
        }
    }

    #[tokio::test]
    async fn who_joins_has_no_shell_of_their_own_and_who_has_one_joins_nothing() {
        for (request, _) in REQUESTS {
            let (joins, _events) = gate(&["join"], Rights::ALL);
            let is_its_own = matches!(request, Request::Attach(Some(_)));
            assert_eq!(joins.admit(0, request).await.is_ok(), is_its_own, "{request:?}");
        }
        let (joins, _events) = gate(&["join"], Rights::ALL);
        assert!(joins.admit(0, Request::Terminal("xterm")).await.is_ok());
        assert!(joins.admit(0, Request::Join("1 of another")).await.is_ok());
        let (all, _events) = gate(&Actions::TOKENS, Rights::ALL);
        assert!(all.admit(0, Request::Join("1 of another")).await.is_err());
        let no_terminal = Rights { terminal: false, forwarding: true, agent: true };
        let (joins, _events) = gate(&["join"], no_terminal);
        assert!(joins.admit(0, Request::Join("1 of another")).await.is_err());
    }

    #[tokio::test]
    async fn nothing_is_allowed_by_default_and_x11_never() {
        let (none, _events) = gate(&["everything"], Rights::ALL);
        for (request, _) in REQUESTS {
            assert!(none.admit(0, request).await.is_err());
        }
        let (all, _events) = gate(&Actions::TOKENS, Rights::ALL);
        assert!(all.admit(0, Request::X11).await.is_err());
        assert!(all.admit(0, Request::Unknown("netconf")).await.is_err());
    }

    #[tokio::test]
    async fn a_certificate_restricts_what_a_grant_allows() {
        let rights = Rights { terminal: false, forwarding: false, agent: false };
        let (gate, _events) = gate(&Actions::TOKENS, rights);
        for request in [
            Request::Terminal("xterm"),
            Request::Attach(None),
            Request::Forward("h:1"),
            Request::Reverse("h:1"),
            Request::Agent,
        ] {
            assert!(gate.admit(0, request).await.is_err(), "{request:?}");
        }
        assert!(gate.admit(0, Request::Shell).await.is_ok());
    }

    #[tokio::test]
    async fn every_decision_and_every_end_is_told() {
        let (gate, mut events) = gate(&["exec"], Rights::ALL);
        let mut admitted = gate.admit(4, Request::Exec("id")).await.unwrap();
        assert!(matches!(
            events.try_recv().unwrap(),
            WorkerEvent::ChannelOpened { channel: 4, .. }
        ));
        admitted.received(3);
        admitted.ended(Some(2), None);
        drop(admitted);
        assert!(matches!(
            events.try_recv().unwrap(),
            WorkerEvent::ChannelClosed { channel: 4, exit: Some(2), bytes_in: 3, .. }
        ));
        gate.admit(5, Request::Shell).await.unwrap_err();
        assert!(matches!(
            events.try_recv().unwrap(),
            WorkerEvent::ChannelRefused { channel: 5, .. }
        ));
    }

    #[tokio::test]
    async fn without_a_supervisor_to_tell_nothing_is_admitted() {
        let (gate, events) = gate(&["exec"], Rights::ALL);
        drop(events);
        assert!(gate.admit(0, Request::Exec("id")).await.is_err());
    }
}
