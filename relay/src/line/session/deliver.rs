//! Handing a session to its device: the grant is signed, sent, and answered.

use std::pin::pin;
use std::time::Duration;

use belay_proto::grant::{Grant, VERSION};
use belay_proto::limits::{DELIVER_DEADLINE, GRANT_OPEN_WITHIN};
use belay_proto::recording::{Policy, obligation};
use belay_proto::refusal::{Code, Refused};
use belay_proto::wire::open::{Deliver, DeliverAnswer, Opened, ResumeWindows};
use belay_tunnel::carrier::{RecvHalf, SendHalf};
use belay_tunnel::{clock, framed};
use tokio::time::{sleep, timeout};

use super::super::Shared;
use super::super::registry::LiveDevice;
use super::early::Early;
use super::judge;
use crate::store::{DeviceRecord, SessionRecord, UserRecord};

/// Between two words to a device that does not answer: well below a second, in which somebody who
/// waits for a path expects to have it.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// A session's streams at the device, and what the client is told.
pub(super) type Delivered = (SendHalf, RecvHalf, Opened);

/// Which stream of a session is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// The session begins with it.
    First,
    /// The one the session has; its client is back.
    Same,
    /// A fresh one, for another client.
    Fresh,
}

/// The device did not take it.
pub(super) enum NotTaken {
    /// It said so.
    Refused(Refused),
    /// It said nothing, or its line broke: it may have the session all the same.
    Silent(Refused),
    /// The relay could not make the grant, or keep it.
    Unsigned(Refused),
}

impl NotTaken {
    pub(super) fn into_refusal(self) -> Refused {
        match self {
            Self::Refused(refused) | Self::Silent(refused) | Self::Unsigned(refused) => refused,
        }
    }
}

/// Grants the session and waits for the device's word, passing the client's first ones on. The
/// session is on the disk by now.
pub(super) async fn deliver(
    line: &LiveDevice,
    session: &SessionRecord,
    (user, record): (&UserRecord, &DeviceRecord),
    which: Which,
    early: &mut Early,
    shared: &Shared,
) -> Result<Delivered, NotTaken> {
    let windows = shared.limits.windows;
    let now = clock::now();
    let grant = Grant {
        version: VERSION,
        session: session.id,
        device: session.device,
        user: session.user,
        user_name: user.name.clone(),
        login: session.login.clone(),
        kind: session.kind.clone(),
        actions: session.actions.clone(),
        issued: now,
        open_by: now.plus(GRANT_OPEN_WITHIN).min(session.ends),
        ends: session.ends,
        obligations: obligations(shared, line, session),
        resume: (which != Which::First).then_some(true),
        windows: Some(windows),
        anew: (which == Which::Fresh).then_some(true),
        recipients: (line.able.records && !shared.limits.recipients.is_empty())
            .then(|| shared.limits.recipients.to_vec()),
        joins: session.joins.clone(),
    };
    let signed = shared.authority.sign_grant(&grant).map_err(|error| {
        tracing::error!(%error, "cannot sign a grant");
        let refused = Refused::new(Code::Internal, "the relay cannot sign a grant", "");
        NotTaken::Unsigned(refused)
    })?;
    let key = shared.authority.grant_key();
    let kept = shared.store.keep_grant(session, signed.clone(), key).await;
    kept.map_err(|error| NotTaken::Unsigned(judge::store(error)))?;
    let deliver =
        Deliver { grant: signed.clone().into(), break_glass: session.break_glass.clone() };
    let (to_device, from_device) = exchange(line, &deliver, record, early).await?;
    let kept = windows != ResumeWindows { interactive: 0, other: 0 };
    let opened = Opened {
        session: session.id,
        device: session.device,
        device_name: Some(record.name.to_string()),
        grant: Some(signed.into()),
        windows: kept.then_some(windows),
        stream: Some(session.stream),
        break_glass: session.break_glass.is_some().then(|| told(shared, record)),
    };
    Ok((to_device, from_device, opened))
}

/// What the device must do besides. One that cannot record as is wanted here is obliged to nothing: it
/// has the session because recording is not required, or because its user broke the glass.
fn obligations(shared: &Shared, line: &LiveDevice, session: &SessionRecord) -> Option<Vec<String>> {
    let wanted = shared.limits.recording;
    let is_lenient = wanted == Policy::Required && session.break_glass.is_some();
    let policy = if is_lenient { Policy::BestEffort } else { wanted };
    let record = policy.obligation().filter(|_| line.able.records)?;
    let seal = (!shared.limits.recipients.is_empty()).then_some(obligation::SEAL);
    let input =
        (shared.limits.input && line.able.records_input).then_some(obligation::RECORD_INPUT);
    Some([record].into_iter().chain(seal).chain(input).map(str::to_owned).collect())
}

/// Who was told that the glass was broken, for whoever broke it.
fn told(shared: &Shared, record: &DeviceRecord) -> String {
    let exports = match shared.limits.exports {
        0 => String::new(),
        1 => ", which another system gets".to_owned(),
        more => format!(", which {more} other systems get"),
    };
    let needless = match shared.limits.recording {
        Policy::Required => "",
        Policy::BestEffort | Policy::Off => {
            "; it was not needed: sessions need not be recorded here"
        }
    };
    let name = &record.name;
    format!("it is in the audit log{exports}, and was sent to {name}, with your reason{needless}")
}

async fn exchange(
    line: &LiveDevice,
    deliver: &Deliver,
    record: &DeviceRecord,
    early: &mut Early,
) -> Result<(SendHalf, RecvHalf), NotTaken> {
    let exchange = async {
        let (mut send, mut recv) = line.carrier.open().await.ok()?;
        framed::write(&mut send, deliver).await.ok()?;
        // A device that refuses takes no bytes, and says why.
        let mut taken = send.send_all(&mut early.kept()).await.is_ok();
        let answer = {
            let mut answering = pin!(framed::read::<DeliverAnswer, _>(&mut recv));
            loop {
                tokio::select! {
                    answer = &mut answering => break answer.ok()?,
                    piece = early.more(), if taken => taken = send.send(piece).await.is_ok(),
                }
            }
        };
        Some((send, recv, answer))
    };
    let asking = async {
        loop {
            sleep(ASK_EVERY).await;
            line.ask();
        }
    };
    let answered = async {
        tokio::select! {
            answer = exchange => answer,
            never = asking => never,
        }
    };
    match timeout(DELIVER_DEADLINE, answered).await {
        Ok(Some((send, recv, DeliverAnswer { accepted: Some(_), refused: None }))) => {
            Ok((send, recv))
        }
        Ok(Some((_, _, DeliverAnswer { refused: Some(refused), .. }))) => {
            Err(NotTaken::Refused(Refused::new(
                refusal_of_device(refused.code()),
                format!("{} refused: {}", record.name, refused.cause()),
                refused.remedy(),
            )))
        }
        Ok(Some(_)) | Ok(None) | Err(_) => {
            line.suspect();
            Err(NotTaken::Silent(Refused::new(
                Code::DeviceSilent,
                format!("{} holds a line but does not answer", record.name),
                "try again; belay devices shows whether it is still there",
            )))
        }
    }
}

/// Of what a device says, only codes that are its own to give are passed on.
fn refusal_of_device(code: Code) -> Code {
    let own = [Code::BadGrant, Code::LoginNotAllowed, Code::Busy, Code::SessionOver];
    if own.contains(&code) { code } else { Code::DeviceRefused }
}

/// How long until a session's last second, by the wall clock.
pub(super) fn time_left(session: &SessionRecord) -> Duration {
    Duration::from_secs(session.ends.0.saturating_sub(clock::now().0))
}
