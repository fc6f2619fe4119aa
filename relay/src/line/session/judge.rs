//! May this person have this session, and why not?
//!
//! Asked anew whenever a session gets a stream and whenever a change concerns it: a role, a label
//! or a standing may be another by then.

use belay_proto::api::DeviceStatus;
use belay_proto::ids::UserId;
use belay_proto::names::Login;
use belay_proto::policy::{Action, Allowed, BreakGlass, Decision, Facts, NoReason, decide};
use belay_proto::refusal::{Code, Refused};
use belay_proto::wire::open::Open;
use belay_tunnel::clock;

use super::super::admit::span;
use super::super::registry::{Full, LiveDevice};
use super::super::{Limits, Shared};
use crate::store::{DeviceRecord, SessionRecord, StoreError, UserRecord};

pub(super) fn store(error: StoreError) -> Refused {
    Refused::from(&error)
}

/// The person as of now, if they may do anything.
pub(super) async fn person(shared: &Shared, id: UserId) -> Result<UserRecord, Refused> {
    let user = shared.store.user(id).await.map_err(store)?;
    user.filter(|user| !user.disabled).ok_or_else(|| {
        Refused::new(Code::UserDisabled, "your account is disabled", "ask an administrator")
    })
}

/// The device of this name or id. Whoever may not see it is told the same as if it did not exist.
pub(super) async fn device(
    shared: &Shared,
    wanted: &str,
    user: &UserRecord,
) -> Result<DeviceRecord, Refused> {
    let record = shared.store.device_by_name_or_id(wanted).await.map_err(store)?;
    record.filter(|record| user.roles.iter().any(|role| role.covers(&record.labels))).ok_or_else(
        || {
            let (code, remedy) = if user.roles.is_empty() {
                (Code::NotAllowed, "you have no role; ask an administrator for one")
            } else {
                (Code::UnknownDevice, "see: belay devices")
            };
            Refused::new(code, format!("no device \"{wanted}\" that your roles cover"), remedy)
        },
    )
}

/// What the policy allows on a device in good standing; `break_glass` is why it is to be broken.
pub(super) fn permitted(
    user: &UserRecord,
    record: &DeviceRecord,
    kind: &str,
    login: &Login,
    break_glass: Option<&str>,
) -> Result<Allowed, Refused> {
    standing(record)?;
    let break_glass = break_glass.is_some();
    decided(user, record, kind, login, break_glass)
        .map_err(|denied| Refused::new(denied.code, denied.cause, denied.remedy))
}

/// What the policy allows on a device, whatever its standing.
pub(super) fn decided(
    user: &UserRecord,
    record: &DeviceRecord,
    kind: &str,
    login: &Login,
    break_glass: bool,
) -> Decision {
    decide(&Facts { roles: &user.roles, labels: &record.labels, kind, login, break_glass })
}

/// Whether all that was granted to a session would be granted again, by what the store says now, and
/// nobody has ended it for good. So it is not when the store cannot be asked: permission is never assumed.
pub(in crate::line) async fn still_allowed(
    shared: &Shared,
    session: &SessionRecord,
) -> Result<(UserRecord, DeviceRecord), Refused> {
    // Read anew: whoever asks may have read the session before it was killed.
    let now = shared.store.session(session.id).await.map_err(store)?;
    if let Some(line) = now.and_then(|now| now.killed) {
        return Err(Refused::new(Code::SessionOver, line, ""));
    }
    let user = person(shared, session.user).await?;
    let device = shared.store.device_by_id(session.device).await.map_err(store)?;
    let device = device.ok_or_else(|| {
        Refused::new(Code::UnknownDevice, "the device is gone", "see: belay devices")
    })?;
    let changed = |refused: &Refused| {
        Refused::new(
            refused.code(),
            format!("your permission changed: {}", refused.cause()),
            refused.remedy(),
        )
    };
    standing(&device)?;
    let glass = session.break_glass.as_deref();
    let allowed = permitted(&user, &device, &session.kind, &session.login, glass);
    let allowed = allowed.map_err(|refused| changed(&refused))?;
    if let Some(join) = &session.joins {
        let host = shared.store.session(join.session).await.map_err(store)?;
        if host.is_none_or(|host| host.over.is_some() || host.killed.is_some()) {
            let cause = "the session it joined is over";
            return Err(Refused::new(Code::SessionOver, cause, "see: belay sessions"));
        }
    }
    let still = |action: &str| match Action::from_token(action) {
        Some(Action::Join) => session.joins.is_some() && allowed.may_join(),
        Some(action) => allowed.actions().contains(&action),
        None => false,
    };
    if let Some(lost) = session.actions.iter().find(|action| !still(action)) {
        let refused = Refused::new(
            Code::NotAllowed,
            format!("your roles no longer allow {lost} here"),
            "open a new session",
        );
        return Err(changed(&refused));
    }
    Ok((user, device))
}

fn standing(record: &DeviceRecord) -> Result<(), Refused> {
    match record.status {
        DeviceStatus::Active => Ok(()),
        DeviceStatus::Quarantined => Err(Refused::new(
            Code::Quarantined,
            format!("{} is quarantined", record.name),
            format!("an administrator can run: belay device activate {}", record.name),
        )),
        DeviceStatus::Decommissioned => Err(Refused::new(
            Code::Decommissioned,
            format!("{} was decommissioned", record.name),
            "see: belay devices",
        )),
    }
}

pub(super) fn offline(record: &DeviceRecord) -> Refused {
    let since = match record.last_seen {
        Some(seen) => format!("for {}", span(clock::now().distance(seen))),
        None => "and has never held a line".to_owned(),
    };
    let why = match &record.last_end {
        Some(why) => format!(" ({why})"),
        None => String::new(),
    };
    Refused::new(
        Code::Offline,
        format!("{} is offline {since}{why}", record.name),
        "check its power and network; belay devices shows when it is back",
    )
}

/// Why the glass is to be broken, where that is asked for.
pub(super) fn break_glass(open: &Open) -> Result<Option<BreakGlass>, Refused> {
    let parsed = open.break_glass.as_deref().map(str::parse).transpose();
    parsed.map_err(|error: NoReason| {
        Refused::new(Code::BadRequest, error.to_string(), "say what stands still and who asked")
    })
}

/// Whether this device's agent knows how to record as sessions must be recorded here.
pub(super) fn recordable(
    line: &LiveDevice,
    record: &DeviceRecord,
    limits: &Limits,
) -> Result<(), Refused> {
    let how = match (line.able.records, limits.input && !line.able.records_input) {
        (true, false) => return Ok(()),
        (true, true) => "recorded with what is typed",
        (false, _) if !limits.recipients.is_empty() => "recorded and sealed",
        (false, _) => "recorded",
    };
    Err(Refused::new(
        Code::NotAllowed,
        format!("sessions must be {how}, and the agent of {} cannot", record.name),
        "upgrade it, or give its disk room: its log says which; in an emergency, --break-glass",
    ))
}

pub(super) fn too_many(full: Full, record: &DeviceRecord) -> Refused {
    match full {
        Full::Device => Refused::new(
            Code::Busy,
            format!("{} has all the sessions it takes", record.name),
            "close one, or raise sessions_per_device in the relay's configuration",
        ),
        Full::User => Refused::new(
            Code::Busy,
            "you have all the sessions one person may have",
            "close one, or raise sessions_per_user in the relay's configuration",
        ),
    }
}
