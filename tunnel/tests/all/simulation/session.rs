//! The session at the relay: asked for, held until its device is there, delivered, spliced.

use std::sync::Arc;
use std::time::Duration;

use belay_proto::limits::{DELIVER_DEADLINE, RESUME_WAIT};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::carrier::Gone;
use super::mischief::Culprit;
use super::pipe::{RecvHalf, SendHalf};
use super::relay::{Life, Line};

/// Asks for the session, and hands it to its device.
pub(super) const ASK: &[u8] = &[7];
/// It is there; the session's bytes follow.
pub(super) const TAKEN: u8 = 1;
/// Not now.
pub(super) const REFUSED: u8 = 0;

/// How much the real splice takes at once.
const BATCH: usize = 64;

pub(super) async fn serve(life: Arc<Life>, mut to_client: SendHalf, mut from_client: RecvHalf) {
    if from_client.byte().await.is_err() {
        return;
    }
    let replaced = life.attach();
    let deadline = Instant::now() + RESUME_WAIT;
    let taken = tokio::select! {
        biased;
        () = is_replaced(replaced.clone()) => None,
        () = to_client.stopped() => return,
        taken = delivered(&life, deadline) => taken,
    };
    let Some((to_device, from_device)) = taken else {
        if to_client.send(Bytes::from_static(&[REFUSED])).await.is_ok() {
            to_client.finish();
        }
        return;
    };
    if to_client.send(Bytes::from_static(&[TAKEN])).await.is_err() {
        return;
    }
    let mut passing = life.tally.passes();
    let honest = Culprit::new(super::mischief::Mischief::None);
    let both = async {
        tokio::try_join!(
            splice(from_client, to_device, &honest),
            splice(from_device, to_client, &life.culprit),
        )
    };
    tokio::select! {
        biased;
        done = both => passing.clean = done.is_ok(),
        () = is_replaced(replaced) => {}
    }
}

async fn is_replaced(mut replaced: watch::Receiver<bool>) {
    if replaced.wait_for(|replaced| *replaced).await.is_err() {
        std::future::pending().await
    }
}

/// Waits for the device's line and hands the session over; again, when the line was a dead one and
/// the device comes back on another in time.
async fn delivered(life: &Life, deadline: Instant) -> Option<(SendHalf, RecvHalf)> {
    let mut device = life.device.subscribe();
    if device.borrow().is_none() {
        life.tally.count(|counts| counts.held += 1);
    }
    loop {
        let line = timeout_at(deadline, device.wait_for(Option::is_some)).await.ok()?;
        let line = line.ok()?.clone()?;
        if let Ok(Ok(halves)) = timeout(DELIVER_DEADLINE, exchange(&line)).await {
            return Some(halves);
        }
        let same = device.borrow().as_ref().is_some_and(|now| now.epoch == line.epoch);
        if same || deadline <= Instant::now() {
            return None;
        }
    }
}

async fn exchange(line: &Line) -> Result<(SendHalf, RecvHalf), Gone> {
    let (mut send, mut recv) = line.end.open()?;
    send.send(Bytes::from_static(ASK)).await?;
    recv.byte().await?;
    Ok((send, recv))
}

/// As `belay_tunnel::carrier::splice`, whose halves are a carrier's own.
async fn splice(mut from: RecvHalf, mut to: SendHalf, culprit: &Culprit) -> Result<(), Gone> {
    let mut pieces = [const { Bytes::new() }; BATCH];
    let mut first = true;
    loop {
        let received = tokio::select! {
            biased;
            received = from.receive(&mut pieces) => received?,
            () = to.stopped() => return Err(Gone),
        };
        let Some(count) = received else {
            to.finish();
            return Ok(());
        };
        for piece in &mut pieces[..count] {
            if let Some(bytes) = culprit.handle(std::mem::take(piece), first) {
                to.send(bytes).await?;
            }
            first = false;
        }
    }
}

/// How long an asker waits for an answer: as long as the relay may hold it, and the way.
pub(super) const ANSWERED_WITHIN: Duration = RESUME_WAIT.saturating_add(DELIVER_DEADLINE);
