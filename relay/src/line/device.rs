//! One device's line: its control stream, its presence, its renewals.
//!
//! One task a line, and nothing else while it is idle.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use belay_proto::names::DeviceName;
use belay_proto::presence::{Effect, Presence, Probing};
use belay_proto::refusal::{Code, Refused};
use belay_proto::wire::control::{Control as Message, Renamed};
use belay_tunnel::carrier::Carrier;
use belay_tunnel::carrier::quic::LineId;
use belay_tunnel::pki::DeviceKey;
use belay_tunnel::{clock, framed};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::admit::{AdmittedDevice, Control};
use super::registry::{DeviceGuard, LiveDevice, Order};
use super::renewal::{answer_renewal, renew_only_line};
use super::{Shared, held, revoke, twin};
use crate::recordings::{Desk, receive};
use crate::store::{LineDown, LineUp};

/// Streams a device may have open: its control stream, one for recordings, and another one while the
/// end of that is on its way.
const DEVICE_STREAMS: u32 = 3;

/// How long a control message may take to be taken from us. A device that reads nothing is gone.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// Renewals of one line: one is due every 60 days.
const MAX_RENEWALS: u32 = 8;

/// Words of one line about the end of sessions that are closed, unknown or another device's. A
/// device that ends what it was told to end says such a word for each.
const MAX_STRAYS: u32 = 1024;

/// A device's line that is up. As long as it is idle this and one task are all the relay keeps of
/// it beside the transport, so what only its beginning or its end needs is not in here.
pub(super) struct Line {
    device: Arc<LiveDevice>,
    guard: DeviceGuard,
    control: Control,
    name: DeviceName,
    id: Option<LineId>,
}

/// Takes an admitted device's line up; `None` when it was not to be held.
pub(super) async fn begin(
    carrier: Carrier,
    id: Option<LineId>,
    admitted: AdmittedDevice,
    shared: &Arc<Shared>,
) -> Option<Line> {
    let AdmittedDevice {
        record,
        certificate,
        epoch,
        renew_only,
        clock_ahead,
        reported,
        known_as,
        sessions,
        run,
        ask_every,
        able,
        mut control,
    } = admitted;
    let peer = carrier.remote_address();
    if renew_only {
        renew_only_line(&carrier, record.id, control, shared).await;
        return None;
    }
    // Before it can say anything of the device's sessions.
    if let Err(refused) = Box::pin(twin::claim(&record, run, peer, shared)).await {
        goodbye(&carrier, &mut control, &refused).await;
        return None;
    }
    // Before anybody can take a session up over this line.
    let named = sessions.iter().copied().collect();
    let over = match held::reconcile(record.id, sessions, shared).await {
        Ok(over) => over,
        Err(refused) => {
            goodbye(&carrier, &mut control, &refused).await;
            return None;
        }
    };
    let up = LineUp {
        device: record.id,
        key_digest: certificate.key_digest,
        at: clock::now(),
        hostname: reported.hostname,
        platform: reported.platform,
        software: reported.software,
        source: peer,
        id,
        detail: format!("{}, epoch {}", carrier.kind(), epoch.0),
    };
    if let Err(error) = shared.store.note_line_up(up).await {
        goodbye(&carrier, &mut control, &Refused::from(&error)).await;
        return None;
    }
    carrier.admit(DEVICE_STREAMS, u32::MAX);
    let device = Arc::new(LiveDevice::new(
        record.id,
        epoch,
        carrier,
        clock_ahead,
        named,
        run.map(|run| run.this),
        able,
    ));
    device.ask_every(ask_every);
    for ended in over {
        device.end_session(ended);
    }
    let (guard, old) = shared.registry.insert(&device);
    if let Some(old) = old {
        old.end(Refused::new(
            Code::Busy,
            "the device opened a newer line",
            "if it did not, another machine has its key: quarantine it",
        ));
    }
    // A change of its standing that came before it was in the registry has not found it there.
    revoke::judge_device(shared, record.id).await;
    tracing::info!(device = %record.name, id = %record.id, %peer, "line up");
    if known_as.as_deref() != Some(record.name.as_str()) {
        device.rename(record.name.clone());
    }
    Some(Line { device, guard, control, name: record.name, id })
}

impl Line {
    /// Holds the line until it ends.
    pub(super) async fn hold(mut self, shared: &Shared) {
        let reason = converse(&self.device, self.id, &mut self.control, shared).await;
        Box::pin(self.end(reason, shared)).await;
    }

    async fn end(self, reason: End, shared: &Shared) {
        let Self { device, guard, mut control, name, id: line } = self;
        drop(guard);
        let peer = device.carrier.remote_address();
        if let End::Told(refused) = &reason {
            goodbye(&device.carrier, &mut control, refused).await;
        } else {
            super::hang_up(&device.carrier);
        }
        let (id, reason) = (device.id, reason.to_string());
        tracing::info!(device = %name, %id, %peer, reason, "line down");
        let down =
            LineDown { device: id, last_seen: device.last_seen(), reason, source: peer, id: line };
        if let Err(error) = shared.store.note_line_down(down).await {
            tracing::warn!(device = %id, %error, "cannot record why a line ended");
        }
    }
}

/// Why a line ended.
#[derive(Debug)]
pub(super) enum End {
    /// We ended it; the device is told.
    Told(Refused),
    /// It did not answer a probe.
    Silent,
    /// The device closed it, or its transport did.
    Closed(String),
    /// It broke the protocol.
    Broke(String),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Told(refused) => f.write_str(&refused.cause()),
            Self::Silent => f.write_str("it stopped answering"),
            Self::Closed(why) => f.write_str(why),
            Self::Broke(why) => write!(f, "it broke the protocol: {why}"),
        }
    }
}

async fn converse(
    device: &Arc<LiveDevice>,
    id: Option<LineId>,
    control: &mut Control,
    shared: &Shared,
) -> End {
    let start = Instant::now();
    let mut presence = Presence::new(Probing::default(), Duration::ZERO);
    presence.ask_every(device.asked_every());
    let mut address = device.carrier.remote_address();
    let (mut renewals, mut strays) = (0, 0);
    // Two at most: see DEVICE_STREAMS.
    let mut uploads = JoinSet::new();
    // The first question whose answer proves that the device is there now.
    let mut proof = u64::MAX;
    loop {
        let due = start + presence.poll_timeout();
        tokio::select! {
            order = device.order() => match order {
                Order::End(reason) => return End::Told(reason),
                Order::EndSession(ended) => {
                    let order = Message { ended: Some(ended), ..Message::default() };
                    if let Err(end) = Box::pin(send(control, order)).await { return end; }
                }
                Order::Rename(name) => {
                    // Boxed, like the rest that is rare: an idle line's task has no room for it.
                    let told = Box::pin(tell_name(device, name, control, shared));
                    if let Err(end) = told.await { return end; }
                }
                Order::Prove => {
                    proof = presence.ask(start.elapsed());
                    let ping = Message { ping: Some(proof), ..Message::default() };
                    if let Err(end) = Box::pin(send(control, ping)).await { return end; }
                }
                Order::Ask => {
                    // Presence never gives this number, and takes no answer it did not ask for.
                    let ping = Message { ping: Some(0), ..Message::default() };
                    if let Err(end) = Box::pin(send(control, ping)).await { return end; }
                }
            },
            Ok((send, recv)) = device.carrier.accept() => {
                while let Some(ended) = uploads.try_join_next() {
                    report(ended);
                }
                match desk(device, shared) {
                    Some(desk) => drop(uploads.spawn(receive(send, recv, desk))),
                    None => tracing::warn!(device = %device.id, "a stream of no device"),
                }
            }
            () = tokio::time::sleep_until(due) => {
                match presence.handle_timeout(start.elapsed()) {
                    Some(Effect::Ping(number)) => {
                        let ping = Message { ping: Some(number), ..Message::default() };
                        if let Err(end) = Box::pin(send(control, ping)).await { return end; }
                    }
                    Some(Effect::Gone) => return End::Silent,
                    None => {}
                }
            }
            message = control.recv.next::<Message>() => {
                let message = match message {
                    Ok(Some(message)) => message,
                    Ok(None) => return End::Closed("the device said goodbye".into()),
                    Err(framed::MessageError::Frame(error)) => return End::Broke(error.to_string()),
                    Err(_) => return End::Closed(closed_how(&device.carrier).await),
                };
                // Only what is looked at stays while the answers are sent.
                let Message { ping, pong, renew, ended, ask_seconds, .. } = message;
                if let Some(seconds) = ask_seconds {
                    presence.ask_every(Duration::from_secs(seconds.into()));
                    device.ask_every(presence.every());
                }
                if let Some(number) = pong && presence.handle_pong(number, start.elapsed()) {
                    device.answered(presence.round_trip());
                    let now = device.carrier.remote_address();
                    if let Some(id) = id && now != address {
                        address = now;
                        Box::pin(moved(device, id, now, shared)).await;
                    }
                    if number >= proof {
                        proof = u64::MAX;
                        device.proved();
                    }
                }
                if let Some(number) = ping {
                    presence.handle_question(start.elapsed());
                    device.answered(None);
                    let answer = Message { pong: Some(number), ..Message::default() };
                    if let Err(end) = Box::pin(send(control, answer)).await { return end; }
                }
                if let Some(ended) = ended {
                    match Box::pin(held::ended(device.id, &ended, shared)).await {
                        Ok(held::Known::Yes) => {}
                        Ok(held::Known::No) => strays += 1,
                        Err(refused) => return End::Told(refused),
                    }
                    if strays > MAX_STRAYS {
                        return End::Broke("it ended sessions it never had, without end".into());
                    }
                }
                if let Some(renew) = renew {
                    renewals += 1;
                    if renewals > MAX_RENEWALS {
                        return End::Broke("it asked for certificates without end".into());
                    }
                    let answered = Box::pin(answer_renewal(device.id, &device.carrier, control, &renew, shared));
                    if let Err(end) = answered.await {
                        return end;
                    }
                }
            }
        }
    }
}

/// Where a device's segments are taken in.
fn desk(device: &LiveDevice, shared: &Shared) -> Option<Desk> {
    let key = DeviceKey::proved(device.carrier.peer_certificate()?).ok()?;
    let (store, recordings) = (shared.store.clone(), Arc::clone(&shared.recordings));
    Some(Desk { store, recordings, key: Arc::new(key) })
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a stream of recordings failed");
    }
}

/// Where the device is now, for a relay that is killed after this.
async fn moved(device: &LiveDevice, id: LineId, address: SocketAddr, shared: &Shared) {
    if let Err(error) = shared.store.note_line_moved(device.id, id, address).await {
        tracing::warn!(device = %device.id, %error, "cannot keep where a device is now");
    }
}

/// The name stands in the SSH host certificate, so a renamed device needs another one.
async fn tell_name(
    device: &LiveDevice,
    name: DeviceName,
    control: &mut Control,
    shared: &Shared,
) -> Result<(), End> {
    let record = match shared.store.device_by_id(device.id).await {
        Ok(Some(record)) => record,
        Ok(None) => return Ok(()),
        Err(error) => return Err(End::Told(Refused::from(&error))),
    };
    let now = clock::now();
    match shared.authority.issue_host(device.id, &name, &record.ssh_host_key, now) {
        Ok(ssh_host_certificate) => {
            let renamed = Renamed { name, ssh_host_certificate };
            send(control, Message { renamed: Some(renamed), ..Message::default() }).await
        }
        Err(error) => Err(End::Told(Refused::from(&error))),
    }
}

/// Why the transport says it ended, in words of ours.
async fn closed_how(carrier: &Carrier) -> String {
    match timeout(Duration::from_millis(200), carrier.closed()).await {
        Ok(error) if error.is_timeout() => "the network went silent".to_owned(),
        Ok(error) if error.closed_by_peer() => "the device closed it".to_owned(),
        Ok(error) => error.to_string(),
        Err(_) => "its control stream broke".to_owned(),
    }
}

pub(super) async fn send(control: &mut Control, message: Message) -> Result<(), End> {
    match timeout(WRITE_DEADLINE, framed::write(&mut control.send, &message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Closed("the line broke".into())),
        Err(_) => Err(End::Silent),
    }
}

pub(super) async fn goodbye(carrier: &Carrier, control: &mut Control, refused: &Refused) {
    let message = Message { goodbye: Some(refused.clone()), ..Message::default() };
    if send(control, message).await.is_ok() {
        control.send.finish();
        // Reading it takes half a round trip; a device that does not is closed all the same.
        let read = timeout(Duration::from_secs(1), control.send.stopped()).await;
        tracing::trace!(read = read.is_ok(), "said goodbye");
    }
    super::admit::close(carrier, refused);
}
