//! Passing a session's bytes on, and what becomes of it when they end.
//!
//! Only three things end a session here: both directions ended cleanly, somebody cut it, or the
//! device said that it is over. Anything else is a lost stream: both sides are told, and the
//! session waits for its client.

use std::pin::pin;
use std::time::{Duration, Instant};

use belay_proto::limits::HELLO_DEADLINE;
use belay_proto::refusal::{Code, Refused};
use belay_proto::time::UnixTime;
use belay_proto::wire::control::Ended;
use belay_tunnel::carrier::{Carrier, RecvHalf, ResetCode, SendHalf, StreamError, pass_on, splice};
use belay_tunnel::clock;
use bytes::Bytes;
use tokio::time::timeout;

use super::super::registry::{Ending, LiveDevice};
use super::super::{Shared, client};
use super::deliver::time_left;
use super::{Caller, Taken};
use crate::store::{self, EventKind, Passed, SessionRecord};

/// The device ends a session by itself when its time is over; this is for one that does not.
const OVERTIME: Duration = Duration::from_secs(60);

/// How long the last bytes may take after the device said that the session is over.
const FAREWELL: Duration = Duration::from_secs(5);

/// How an attachment ended.
enum End {
    /// Both directions, cleanly: the session is over.
    Clean,
    /// The device ended the session.
    AtDevice(Refused),
    /// The session was ended.
    Cut(Refused),
    /// The stream was lost.
    Lost(String),
}

/// Passes bytes until both directions have ended, one has broken, or somebody ends the session.
/// Settles what comes of it. `said`: bytes of the client that were passed on before.
pub(super) async fn pass(
    to_client: SendHalf,
    (from_client, said): (RecvHalf, u64),
    taken: Taken,
    caller: &Caller,
    shared: &Shared,
) {
    let Taken { session, guard, line, to_device, from_device, .. } = taken;
    let began = Began { at: clock::now(), instant: Instant::now() };
    let counted = guard.counted();
    counted.count_up(said);
    let end = {
        let up = splice(from_client, to_device, |bytes| counted.count_up(bytes));
        let down = (from_device, to_client, |bytes| counted.count_down(bytes));
        let both = both_ways(up, down, caller);
        tokio::pin!(both);
        tokio::select! {
            done = &mut both => done.map_or_else(|e| lost(&e, caller, &line, shared), |()| End::Clean),
            ending = guard.ended() => match ending {
                Ending::Cut(reason) => End::Cut(reason),
                Ending::Replaced => End::Lost("it was taken up on another stream".to_owned()),
                Ending::OverAtDevice(reason) => tokio::select! {
                    done = timeout(FAREWELL, &mut both) => match done {
                        Ok(Ok(())) => End::Clean,
                        Ok(Err(_)) | Err(_) => End::AtDevice(reason),
                    },
                    reason = guard.cut() => End::Cut(reason),
                },
            },
            () = tokio::time::sleep(time_left(&session) + OVERTIME) => End::Cut(Refused::new(
                Code::SessionOver, "the session's time is over", "open a new one",
            )),
            // The old line may be a dead one, whose end nobody hears of for seconds.
            _ = shared.registry.newer_line(&line) => {
                End::Lost(MOVED.to_owned())
            }
            () = shared.stop.cancelled() => End::Lost(STOPPING.to_owned()),
        }
    };
    // From here on nobody else ends this attachment; who did until now is heard.
    let end = match (end, guard.release()) {
        (End::Lost(_) | End::AtDevice(_), Some(Ending::Cut(reason))) => End::Cut(reason),
        (End::Lost(_), Some(Ending::OverAtDevice(reason))) => End::AtDevice(reason),
        (end, _) => end,
    };
    let attachment = Attachment { session: &session, line: &line, began, passed: counted.passed() };
    settle(end, &attachment, caller, shared).await;
    // Whoever takes the session up has waited for the record.
    drop(guard);
}

/// Until both directions have ended or one has broken, which takes the other with it: half a stream
/// is of no use to a session that can have a whole one again.
///
/// But a client that has said all may leave without hearing the device's end. What it said is still
/// passed on then, and the device is listened to until it ends too: told that nobody reads, it might
/// give the stream up before the last words are there.
async fn both_ways(
    up: impl Future<Output = Result<(), StreamError>>,
    (mut from_device, to_client, count): (RecvHalf, SendHalf, impl Fn(u64)),
    caller: &Caller,
) -> Result<(), StreamError> {
    let mut up = pin!(up);
    let mut up_ended = false;
    let down = {
        let mut down = pin!(pass_on(&mut from_device, to_client, count));
        loop {
            tokio::select! {
                ended = &mut up, if !up_ended => {
                    ended?;
                    up_ended = true;
                }
                ended = &mut down => break ended,
            }
        }
    };
    let last_words = async { if up_ended { Ok(()) } else { up.await } };
    let Err(error) = down else { return last_words.await };
    if has_left(caller) {
        let farewell = async { tokio::try_join!(last_words, heard_out(&mut from_device)) };
        if let Ok(Ok(_)) = timeout(FAREWELL, farewell).await {
            return Ok(());
        }
    }
    Err(error)
}

/// Whether the client has closed its line because it was done.
fn has_left(caller: &Caller) -> bool {
    let end = caller.carrier.end();
    end.is_some_and(|end| end.peer_said().is_some_and(|(code, _)| code == ResetCode::DONE))
}

/// Takes a stream to its end, for nobody.
async fn heard_out(from: &mut RecvHalf) -> Result<(), StreamError> {
    let mut piece = [Bytes::new()];
    while from.receive(&mut piece).await?.is_some() {}
    Ok(())
}

const MOVED: &str = "the device has another line";

const STOPPING: &str = "this relay is shutting down";

/// When an attachment began.
struct Began {
    at: UnixTime,
    instant: Instant,
}

/// An attachment that has ended.
struct Attachment<'a> {
    session: &'a SessionRecord,
    line: &'a LiveDevice,
    began: Began,
    passed: Passed,
}

impl Attachment<'_> {
    fn ending(&self, kind: EventKind, how: &str, why: String, caller: &Caller) -> store::Ending {
        let Passed { up, down } = self.passed;
        let detail = format!(
            "{how} after {} s; {up} bytes to the device, {down} from it",
            self.began.instant.elapsed().as_secs(),
        );
        let event = self.session.event(kind).source(caller.address).detail(&detail);
        store::Ending { session: self.session.id, passed: self.passed, why, event }
    }

    /// Whether the device, back on a newer line, did not name the session, though it had it long
    /// enough to do so.
    fn is_forgotten(&self, shared: &Shared) -> bool {
        let newer = shared.registry.device(self.session.device);
        newer.filter(|newer| newer.epoch > self.line.epoch).is_some_and(|newer| {
            !newer.has_named(self.session.id) && self.began.at.plus(HELLO_DEADLINE) < newer.since()
        })
    }
}

async fn settle(end: End, attachment: &Attachment<'_>, caller: &Caller, shared: &Shared) {
    let id = attachment.session.id;
    let closed = |how: &str, why| attachment.ending(EventKind::SessionClosed, how, why, caller);
    let (ending, reason) = match end {
        End::Clean => (closed("ended", "it ended".to_owned()), None),
        End::AtDevice(reason) => {
            let cause = reason.cause();
            (closed(&format!("ended by the device ({cause})"), cause), Some(reason))
        }
        End::Cut(reason) => {
            end_at_device(attachment.session, &reason, shared);
            let cause = reason.cause();
            (closed(&format!("cut ({cause})"), cause), Some(reason))
        }
        End::Lost(why) if attachment.is_forgotten(shared) => {
            let gone = Refused::new(Code::SessionOver, "the device no longer has it", "");
            end_at_device(attachment.session, &gone, shared);
            (closed(&format!("ended with its line ({why})"), gone.cause()), Some(gone))
        }
        End::Lost(why) => {
            let ending = attachment.ending(EventKind::SessionDetached, &why, String::new(), caller);
            tracing::info!(session = %id, user = %caller.user.name, why, "session detached");
            if let Err(error) = shared.store.detach_session(ending).await {
                tracing::error!(session = %id, %error, "cannot record that a session was detached");
            }
            return;
        }
    };
    // The queue is full only when the client reads nothing; its stream is reset anyway.
    if let Some(reason) = &reason
        && caller.notices.try_send(client::notice(id, reason)).is_err()
    {
        tracing::debug!(session = %id, "a client did not take the word about its session");
    }
    tracing::info!(session = %id, user = %caller.user.name, why = ending.why, "session closed");
    close(ending, shared).await;
}

/// The client was gone before it heard that its session is open, so it cannot name it.
pub(super) async fn unanswered(taken: Taken, caller: &Caller, shared: &Shared) {
    let Taken { session, guard, line, again, .. } = taken;
    let began = Began { at: clock::now(), instant: Instant::now() };
    let ended = guard.release();
    let attachment =
        Attachment { session: &session, line: &line, began, passed: Passed::default() };
    let end = match ended {
        Some(Ending::Cut(reason)) => End::Cut(reason),
        Some(Ending::OverAtDevice(reason)) => End::AtDevice(reason),
        Some(Ending::Replaced) | None if again => End::Lost("the client went away".to_owned()),
        Some(Ending::Replaced) | None => End::Cut(Refused::new(
            Code::SessionOver,
            "the client went away before it began",
            "open a new one",
        )),
    };
    settle(end, &attachment, caller, shared).await;
    drop(guard);
}

/// Tells the device, if it has a line; if not, it hears of it when it connects.
pub(in crate::line) fn end_at_device(session: &SessionRecord, reason: &Refused, shared: &Shared) {
    if let Some(line) = shared.registry.device(session.device) {
        line.end_session(Ended { session: session.id, reason: reason.clone() });
    }
}

/// Closes a session in the store.
pub(in crate::line) async fn close(ending: store::Ending, shared: &Shared) {
    let id = ending.session;
    match shared.store.close_session(ending).await {
        Ok(true) => {}
        Ok(false) => tracing::debug!(session = %id, "the session was closed before"),
        // It is closed when the device connects next, or when its time is over.
        Err(error) => tracing::error!(session = %id, %error, "cannot record that a session closed"),
    }
}

/// Why a stream broke, by what is known of the two lines it ran over.
fn lost(error: &StreamError, caller: &Caller, line: &LiveDevice, shared: &Shared) -> End {
    let now = shared.registry.device(line.id);
    if now.is_some_and(|now| now.epoch != line.epoch) {
        return End::Lost(MOVED.to_owned());
    }
    let how = |carrier: &Carrier, whose: &str| {
        let end = carrier.end()?;
        Some(if end.peer_said().is_some_and(|(code, _)| code == ResetCode::DONE) {
            format!("{whose} went away")
        } else if end.closed_by_peer() {
            format!("{whose} closed its line")
        } else if end.is_timeout() {
            format!("the line of {whose} went silent")
        } else if shared.draining.is_cancelled() {
            STOPPING.to_owned()
        } else {
            format!("the line of {whose} was ended")
        })
    };
    End::Lost(
        how(&caller.carrier, "the client")
            .or_else(|| how(&line.carrier, "the device"))
            .unwrap_or_else(|| match error {
                StreamError::Reset(ResetCode::DONE) => "the client went away".to_owned(),
                StreamError::Reset(_) => "its stream was broken off".to_owned(),
                StreamError::Carrier => "a line was lost".to_owned(),
            }),
    )
}
