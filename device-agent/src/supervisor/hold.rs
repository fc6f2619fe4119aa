//! Holding one line to its end, or until there is a better one.
//!
//! A line whose path has died looks like a quiet one for a minute or more. While somebody's session
//! waits, that is too long: silence where an answer is due makes this end dial a second line beside
//! the first, and whichever is heard first is the line. A line on the fallback looks for QUIC as
//! well, for as long as it is held ([`super::better`]).

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use belay_proto::keeping::Effect;
use belay_proto::wire::control::{Control, Ended};
use belay_tunnel::address::RelayAddress;
use belay_tunnel::carrier::{Carrier, ResetCode};
use belay_tunnel::framed::{self, MessageError};
use belay_tunnel::reach::{Silence, WatchedRoute};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, interval_at, sleep_until, timeout};

use super::better::{Better, Coming};
use super::line::Line;
use super::mapping::Mapping;
use super::sessions::Departures;
use super::{Agent, eager, renewal, session, upload};

/// Probes the relay may miss before this end takes the line for dead.
const PROBES_MISSED: u32 = 2;

/// While somebody has a session here this end says something so often: it is how it finds out within
/// seconds that its relay was killed, whose answer is a reset then.
const BEAT: Duration = Duration::from_secs(20);

/// An older relay that is later than this with its question is asked.
const LATE: Duration = Duration::from_secs(5);

/// How long the last words of an agent that stops may take.
const DRAIN: Duration = Duration::from_secs(2);

/// Between two looks at the local address, with sessions and without.
const ROUTE_LOOK: Duration = Duration::from_secs(1);
const ROUTE_LOOK_IDLE: Duration = Duration::from_secs(5);

/// How long a path is watched after the local address has changed, or the relay has opened a
/// stream.
const SUSPICION: Duration = Duration::from_secs(30);

/// How long a second line that was under way when the first one ended may still take. The relay
/// ends the old line when it welcomes the new one, and that word may come first.
const NEXT_WITHIN: Duration = Duration::from_secs(5);

/// A control message may wait this long for room. The line is dead by then, or its relay.
const WORD_WITHIN: Duration = Duration::from_secs(20);

/// How a line ended.
pub(super) enum Outcome {
    /// There is none now, and why.
    Lost(Lost),
    /// Another one took its place.
    Moved(Box<Line>),
}

/// Why there is no line.
pub(super) struct Lost {
    /// For a person.
    pub(super) why: String,
    /// When the relay said to dial again.
    pub(super) told_to_wait: Option<Duration>,
    /// Nothing was heard: the carrier may be to blame.
    silent: bool,
}

impl Lost {
    const fn silent(why: String) -> Self {
        Self { why, told_to_wait: None, silent: true }
    }
}

impl From<String> for Lost {
    fn from(why: String) -> Self {
        Self { why, told_to_wait: None, silent: false }
    }
}

/// A line being held.
struct Holding {
    line: Line,
    departures: Departures,
    heard: Instant,
    /// When it was last asked because it was late.
    prodded: Instant,
    renew_at: Instant,
    silence: Silence,
    suspected_until: Instant,
    redial: Option<Coming>,
    better: Better,
}

/// Serves the line until it ends; says how.
pub(super) async fn hold(line: Line, agent: &Arc<Agent>, relay: &RelayAddress) -> Outcome {
    // The sessions that ended since the greeting was written are told of now.
    let mut attachments = JoinSet::new();
    if let Some(spool) = &agent.spool
        && line.takes_recordings()
    {
        attachments.spawn(upload::upload(line.carrier.clone(), Arc::clone(spool)));
    }
    let every = Duration::from_secs(u64::from(line.welcome.probe_seconds.unwrap_or(25)))
        .max(Duration::from_secs(1));
    let now = Instant::now();
    let mut route = WatchedRoute::new(line.carrier.remote_address());
    let mut look = interval(Silence::LOOK);
    let mut beat = interval_at(now + BEAT, BEAT);
    let mut holding = Holding {
        departures: line.departures.clone(),
        heard: now,
        prodded: now,
        renew_at: now + line.renewal_due(agent),
        silence: Silence::new(line.carrier.bytes()),
        suspected_until: now,
        redial: None,
        better: Better::than(&line, agent, relay),
        line,
    };
    let outcome = loop {
        let held = !agent.sessions.is_empty();
        let watching = held || holding.suspected_until > Instant::now();
        let ended = tokio::select! {
            stream = holding.line.carrier.accept() => match stream {
                Ok((send, recv)) => {
                    // It is a session only when its task has run; until then this keeps watching.
                    holding.suspected_until = Instant::now() + SUSPICION;
                    attachments.spawn(session::serve(send, recv, Arc::clone(agent)));
                    None
                }
                Err(error) => Some(match error.peer_said() {
                    Some((_, said)) if !said.is_empty() => {
                        Lost::from(format!("the relay said: {said}"))
                    }
                    _ if error.is_timeout() => Lost::silent(error.to_string()),
                    _ => Lost::from(error.to_string()),
                }),
            },
            Some(ended) = attachments.join_next(), if !attachments.is_empty() => {
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!(%error, "an attachment's task panicked");
                }
                None
            }
            message = holding.line.recv.next::<Control>() => {
                holding.heard = Instant::now();
                match message {
                    Ok(Some(message)) => holding.hear(agent, message).await.err(),
                    Ok(None) => Some("the relay closed the line".to_owned().into()),
                    Err(error) => Some(holding.broke(&error)),
                }
            }
            ended = holding.departures.next() => holding.tell(ended).await.err().map(Lost::from),
            effect = due(
                &mut holding.line.mapping,
                &holding.line.carrier,
                (holding.heard, &mut holding.prodded),
                every,
            ) => match effect {
                Effect::Octet => {
                    holding.line.carrier.keep_mapping();
                    None
                }
                Effect::Ask => holding.ask(agent).await.err().map(Lost::from),
                Effect::Lost => {
                    let quiet = holding.heard.elapsed().as_secs();
                    Some(Lost::silent(format!("nothing from the relay for {quiet} s")))
                }
            },
            _ = beat.tick(), if held => holding.ask(agent).await.err().map(Lost::from),
            () = tokio::time::sleep_until(holding.renew_at) => {
                holding.renew_at = Instant::now() + renewal::AGAIN;
                let asked = holding.line.ask_renewal(agent).await;
                asked.err().map(|_| "the line broke".to_owned().into())
            }
            () = route.changed(if held { ROUTE_LOOK } else { ROUTE_LOOK_IDLE }) => {
                agent.history.elsewhere();
                if !holding.better.is_greeting() {
                    holding.better = Better::than(&holding.line, agent, relay);
                }
                holding.moved(agent).await.err().map(Lost::from)
            }
            _ = look.tick(), if watching => {
                holding.judge(agent, relay);
                None
            }
            dialled = async {
                match &mut holding.redial {
                    Some(redial) => redial.await,
                    None => pending().await,
                }
            } => {
                holding.redial = None;
                match dialled {
                    Ok(next) => {
                        holding.line.silenced(agent);
                        break Outcome::Moved(Box::new(next));
                    }
                    Err(error) => {
                        let error = belay_proto::error_line::one_line(&error);
                        tracing::warn!(error, "no second line");
                    }
                }
                None
            }
            better = holding.better.next(agent) => {
                match better {
                    Ok(next) => {
                        tracing::info!("QUIC gets through again; the line has moved to it");
                        break Outcome::Moved(Box::new(next));
                    }
                    Err(error) => {
                        let error = belay_proto::error_line::one_line(&error);
                        tracing::info!(error, "QUIC got through, but not to a welcome");
                    }
                }
                holding.better = Better::than(&holding.line, agent, relay);
                None
            }
            () = agent.stop.cancelled() => {
                holding.line.send.finish();
                Some("the agent was stopped".to_owned().into())
            }
        };
        if let Some(lost) = ended {
            if lost.silent {
                holding.line.silenced(agent);
            }
            break Outcome::Lost(lost);
        }
    };
    // Their sessions go on without them.
    attachments.shutdown().await;
    holding.line.carrier.close(ResetCode::GONE, "");
    match outcome {
        // Whoever has another line does not wait for the last words of this one.
        Outcome::Moved(_) => outcome,
        Outcome::Lost(why) => {
            if !agent.stop.is_cancelled()
                && let Some(next) = holding.under_way(agent).await
            {
                return Outcome::Moved(Box::new(next));
            }
            holding.line.carrier.drain(DRAIN).await;
            Outcome::Lost(why)
        }
    }
}

/// Waits until something is due for the line to live on, or until it is dead. A relay that does not
/// go by what this end says asks `every` so often.
async fn due(
    mapping: &mut Option<Mapping>,
    carrier: &Carrier,
    (heard, prodded): (Instant, &mut Instant),
    every: Duration,
) -> Effect {
    if let Some(mapping) = mapping {
        return mapping.due(carrier).await;
    }
    if *prodded <= heard {
        sleep_until(heard + every + LATE).await;
        *prodded = Instant::now();
        return Effect::Ask;
    }
    sleep_until(heard + every * (PROBES_MISSED + 1)).await;
    Effect::Lost
}

impl Holding {
    async fn hear(&mut self, agent: &Agent, message: Control) -> Result<(), Lost> {
        let Control { ping, renewed, renamed, goodbye, ended, .. } = message;
        if let Some(mapping) = &mut self.line.mapping {
            mapping.heard();
        }
        if let Some(refused) = goodbye {
            let why = format!("the relay said: {refused}");
            return Err(Lost { told_to_wait: refused.told_to_wait(), ..Lost::from(why) });
        }
        if let Some(renewed) = renewed {
            self.line.keep(agent, &renewed);
            self.renew_at = Instant::now() + self.line.renewal_due(agent);
        }
        if let Some(renamed) = renamed {
            super::certificate::take_name(agent, &renamed);
        }
        if let Some(Ended { session, reason }) = ended {
            agent.sessions.end(session, &reason.to_string());
        }
        match ping {
            Some(number) => {
                let Line { mapping, carrier, .. } = &mut self.line;
                let idle = agent.sessions.is_empty();
                let ask_seconds =
                    mapping.as_mut().and_then(|mapping| mapping.asked(idle, carrier, agent));
                let pong = Control { pong: Some(number), ask_seconds, ..Control::default() };
                Ok(self.say(pong).await?)
            }
            None => Ok(()),
        }
    }

    async fn tell(&mut self, ended: Vec<Ended>) -> Result<(), String> {
        for ended in ended {
            self.say(Control { ended: Some(ended), ..Control::default() }).await?;
        }
        Ok(())
    }

    /// The device has another address. The relay learns of it with the next packet, so there shall
    /// be one.
    async fn moved(&mut self, agent: &Agent) -> Result<(), String> {
        tracing::info!("the way to the relay has changed");
        self.suspected_until = Instant::now() + SUSPICION;
        let Line { mapping, carrier, .. } = &mut self.line;
        let ask_seconds = mapping.as_mut().and_then(|mapping| mapping.moved(carrier, agent));
        self.say(Control { ping: Some(0), ask_seconds, ..Control::default() }).await
    }

    /// Asks the relay whether it is there, and tells it what it does not know yet.
    async fn ask(&mut self, agent: &Agent) -> Result<(), String> {
        let ask_seconds = self.line.mapping.as_mut().and_then(|mapping| mapping.news(agent));
        self.say(Control { ping: Some(0), ask_seconds, ..Control::default() }).await
    }

    async fn say(&mut self, message: Control) -> Result<(), String> {
        match timeout(WORD_WITHIN, framed::write(&mut self.line.send, &message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err("the line broke".to_owned()),
        }
    }

    fn broke(&self, error: &MessageError) -> Lost {
        let why = belay_proto::error_line::one_line(error);
        // Whichever half of the carrier is asked first, how it ended is the same.
        match self.line.carrier.end() {
            Some(end) if end.is_timeout() => Lost::silent(why),
            Some(_) | None => Lost::from(why),
        }
    }

    /// The second line, if one was under way and is welcomed soon.
    async fn under_way(&mut self, agent: &Arc<Agent>) -> Option<Line> {
        let greeting = self.better.is_greeting();
        if !greeting && self.redial.is_none() {
            return None;
        }
        let next = async {
            tokio::select! {
                better = self.better.next(agent), if greeting => better,
                dialled = async {
                    match &mut self.redial {
                        Some(redial) => redial.await,
                        None => pending().await,
                    }
                } => dialled,
            }
        };
        match timeout(NEXT_WITHIN, next).await {
            Ok(Ok(line)) => Some(line),
            Ok(Err(error)) => {
                let error = belay_proto::error_line::one_line(&error);
                tracing::info!(error, "the line ended, and the one to follow it did not come up");
                None
            }
            Err(_) => None,
        }
    }

    /// Dials beside the line while it is silent, and stops when it speaks again.
    fn judge(&mut self, agent: &Arc<Agent>, relay: &RelayAddress) {
        let carrier = &self.line.carrier;
        let silent = self.silence.judge(carrier.bytes(), carrier.round_trip(), StdInstant::now());
        if silent && self.redial.is_none() {
            tracing::info!("the line is silent; dialling another");
            self.redial = Some(Box::pin(eager::dial(Arc::clone(agent), relay.clone(), |_, _| {})));
        } else if !silent && self.redial.take().is_some() {
            tracing::info!("the line is heard again");
        }
    }
}
