#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;

use belay_proto::ids::SessionId;
use belay_proto::limits::DEVICE_SESSIONS;
use belay_proto::time::UnixTime;
use belay_proto::wire::open::Join;

use super::tests::{Fixture, LATER, NOW, fixture, like, name};
use super::*;

async fn device(f: &Fixture, key: u8) -> DeviceId {
    if key == 1 {
        f.token(1, 9, None).await;
    }
    f.enrol(1, key, like("pump")).await.unwrap().id
}

fn id(n: u8) -> SessionId {
    SessionId::from_uuid(uuid::Uuid::from_bytes([n; 16]))
}

fn session(f: &Fixture, device: DeviceId, n: u8) -> SessionRecord {
    SessionRecord {
        id: id(n),
        user: f.admin,
        device,
        login: name("root"),
        kind: "ssh".into(),
        actions: vec!["shell".into(), "exec".into()],
        opened: NOW,
        ends: LATER,
        over: None,
        attachments: 1,
        stream: 0,
        passed: Passed::default(),
        killed: None,
        break_glass: None,
        joins: None,
    }
}

impl Fixture {
    async fn open(&self, device: DeviceId, n: u8) -> SessionRecord {
        let new = session(self, device, n);
        self.store.open_session(new.clone(), new.event(EventKind::SessionOpened)).await.unwrap();
        new
    }

    async fn session(&self, n: u8) -> SessionRecord {
        self.store.session(id(n)).await.unwrap().unwrap()
    }

    /// What was recorded of a session, in order.
    async fn told(&self, n: u8) -> Vec<String> {
        let decisions = self.store.decisions(0).await.unwrap();
        decisions.into_iter().filter(|d| d.session == Some(id(n))).map(|d| d.kind).collect()
    }

    async fn open_ids(&self, whose: Whose) -> Vec<SessionId> {
        self.store.open_sessions(whose).await.unwrap().into_iter().map(|s| s.id).collect()
    }
}

fn ending(session: &SessionRecord, kind: EventKind, why: &str, up: u64) -> Ending {
    Ending {
        session: session.id,
        passed: Passed { up, down: 2 * up },
        why: why.into(),
        event: session.event(kind).detail(why),
    }
}

#[tokio::test]
async fn a_session_is_what_was_opened_until_it_is_closed_once() {
    let f = fixture().await;
    let pump = device(&f, 1).await;
    let opened = f.open(pump, 1).await;
    assert_eq!(f.session(1).await, opened);
    let detached = || ending(&opened, EventKind::SessionDetached, "lost", 100);
    f.store.detach_session(detached()).await.unwrap();
    let resumed = || opened.event(EventKind::SessionResumed);
    assert!(f.store.resume_session(id(1), resumed()).await.unwrap());
    let closed = |why| ending(&opened, EventKind::SessionClosed, why, 1000);
    assert!(f.store.close_session(closed("it ended")).await.unwrap());
    assert!(!f.store.close_session(closed("again")).await.unwrap(), "it was closed");
    f.store.detach_session(detached()).await.unwrap();
    assert!(!f.store.resume_session(id(1), resumed()).await.unwrap(), "it was resumed");
    let now = f.session(1).await;
    assert_eq!(now.over.unwrap().why, "it ended");
    assert_eq!(now.attachments, 2);
    assert_eq!(now.passed, Passed { up: 2200, down: 4400 }, "late bytes count all the same");
    let told = ["session-opened", "session-detached", "session-resumed", "session-closed"];
    assert_eq!(f.told(1).await, told);
    assert!(
        !f.store
            .close_session(ending(&session(&f, pump, 9), EventKind::SessionClosed, "", 1))
            .await
            .unwrap()
    );
    assert!(f.told(9).await.is_empty(), "of an unknown session nothing is recorded");
}

#[tokio::test]
async fn that_the_glass_was_broken_is_recorded_with_the_session_and_before_it() {
    let f = fixture().await;
    let fan = device(&f, 1).await;
    let reason = Some("the plant stands still".to_owned());
    let new = SessionRecord { break_glass: reason.clone(), ..session(&f, fan, 1) };
    let event = new.event(EventKind::SessionOpened).detail("ssh: shell");
    f.store.open_session(new, event).await.unwrap();
    assert_eq!(f.told(1).await, ["break-glass", "session-opened"]);
    assert_eq!(f.session(1).await.break_glass, reason);
    let all = f.store.decisions(0).await.unwrap();
    let alarm = all.iter().find(|d| d.kind == "break-glass").unwrap();
    assert_eq!((alarm.detail.clone(), alarm.device), (reason, Some(fan)));
    assert_eq!((alarm.user, alarm.login.as_deref()), (Some(f.admin), Some("root")));
    f.open(fan, 2).await;
    assert_eq!(f.told(2).await, ["session-opened"]);
}

#[tokio::test]
async fn what_a_device_refuses_is_closed_with_the_refusal() {
    let f = fixture().await;
    let pump = device(&f, 1).await;
    let opened = f.open(pump, 1).await;
    let refused = |n| session(&f, pump, n).event(EventKind::SessionRefused);
    f.store.refuse_session(id(1), "no such account".into(), refused(1)).await.unwrap();
    f.store.refuse_session(id(2), "no role".into(), refused(2)).await.unwrap();
    assert_eq!(f.session(1).await.over.unwrap().why, "no such account");
    assert_eq!(f.told(1).await, ["session-opened", "session-refused"]);
    assert_eq!(f.told(2).await, ["session-refused"]);
    assert!(!f.store.resume_session(opened.id, refused(1)).await.unwrap());
}

#[tokio::test]
async fn a_device_that_comes_back_settles_what_was_missed() {
    let f = fixture().await;
    let (pump, fan) = (device(&f, 1).await, device(&f, 2).await);
    for n in 1..=4 {
        f.open(pump, n).await;
    }
    let fans = f.open(fan, 5).await;
    let closed = ending(&session(&f, pump, 4), EventKind::SessionClosed, "cut", 0);
    f.store.close_session(closed).await.unwrap();
    // 1 is still there, 2 is not, 3 is being given back now, 4 is closed, 5 is another device's,
    // 6 is nobody's.
    let alive: BTreeSet<_> = [1, 4, 5, 6].map(id).into();
    let over = f.store.reconcile(pump, alive.clone(), |session| session == id(3)).await.unwrap();
    let over: Vec<_> = over.iter().map(|over| (over.session, over.why.as_str())).collect();
    let unknown = "the relay knows no such session";
    let lost = "ended while the line was down";
    assert_eq!(over, [(id(2), lost), (id(4), "cut"), (id(5), unknown), (id(6), unknown)]);
    assert_eq!(f.open_ids(Whose::Device(pump)).await, [id(1), id(3)]);
    assert_eq!(f.open_ids(Whose::Device(fan)).await, [fans.id], "not this device's to end");
    assert_eq!(f.told(2).await, ["session-opened", "session-closed"]);
    let before = f.kinds().await.len();
    let again = f.store.reconcile(pump, [id(1)].into(), |session| session == id(3)).await.unwrap();
    assert!(again.is_empty(), "{again:?}");
    assert!(f.store.reconcile(pump, BTreeSet::new(), |_| true).await.unwrap().is_empty());
    assert_eq!(f.kinds().await.len(), before, "nothing was recorded twice");
    f.store.reconcile(pump, BTreeSet::new(), |_| false).await.unwrap();
    assert!(f.open_ids(Whose::Device(pump)).await.is_empty());
}

#[tokio::test]
async fn a_session_is_killed_once_while_it_is_open_and_its_device_is_told() {
    let f = fixture().await;
    let pump = device(&f, 1).await;
    let opened = f.open(pump, 1).await;
    let mut changes = f.store.changes();
    let event = || opened.event(EventKind::SessionKilled);
    let kill = |line: &str| f.store.kill_session(id(1), line.to_owned(), event());
    assert!(kill("olga ended this session: x").await.unwrap());
    assert_eq!(changes.recv().await, Ok(Change::SessionKilled(id(1))));
    assert!(!kill("root ended this session: y").await.unwrap(), "it was");
    assert_eq!(f.session(1).await.killed.as_deref(), Some("olga ended this session: x"));
    assert_eq!(f.told(1).await, ["session-opened", "session-killed"]);
    assert_eq!(f.open_ids(Whose::One(id(1))).await, [id(1)], "whoever holds it closes it");
    // Nobody could: the device, when it is back, ends it all the same.
    let over = f.store.reconcile(pump, [id(1)].into(), |_| false).await.unwrap();
    assert_eq!(over[0].why, "olga ended this session: x");
    let closed = ending(&opened, EventKind::SessionClosed, "olga ended this session: x", 1);
    assert!(f.store.close_session(closed).await.unwrap());
    assert!(f.open_ids(Whose::One(id(1))).await.is_empty());
    f.open(pump, 2).await;
    let closed = ending(&session(&f, pump, 2), EventKind::SessionClosed, "it ended", 1);
    assert!(f.store.close_session(closed).await.unwrap());
    let late = f.store.kill_session(id(2), "late".into(), event()).await.unwrap();
    assert!(!late && f.session(2).await.killed.is_none(), "what is over is not killed");
}

#[tokio::test]
async fn open_sessions_are_found_by_whose_they_are() {
    let f = fixture().await;
    let (pump, fan) = (device(&f, 1).await, device(&f, 2).await);
    let code = LoginCode { digest: [9; 32], expires: LATER };
    let olga = f.store.add_user(name("olga"), vec![], code, Actor::Machine).await.unwrap();
    f.open(pump, 1).await;
    f.open(fan, 2).await;
    let hers = SessionRecord { user: olga, ends: NOW, ..session(&f, fan, 3) };
    f.store.open_session(hers.clone(), hers.event(EventKind::SessionOpened)).await.unwrap();
    assert_eq!(f.open_ids(Whose::All).await, [1, 2, 3].map(id));
    assert_eq!(f.open_ids(Whose::User(olga)).await, [id(3)]);
    assert_eq!(f.open_ids(Whose::Device(fan)).await, [2, 3].map(id));
    assert!(f.open_ids(Whose::DueBefore(NOW)).await.is_empty(), "its last second is still its own");
    assert_eq!(f.open_ids(Whose::DueBefore(UnixTime(NOW.0 + 1))).await, [id(3)]);
}

#[tokio::test]
async fn a_device_has_so_many_sessions_and_no_more() {
    let f = fixture().await;
    let (pump, fan) = (device(&f, 1).await, device(&f, 2).await);
    let most = u8::try_from(DEVICE_SESSIONS).unwrap();
    for n in 1..=most {
        f.open(pump, n).await;
    }
    let one_more = session(&f, pump, 200);
    let event = || one_more.event(EventKind::SessionOpened);
    let refused = f.store.open_session(one_more.clone(), event()).await;
    assert!(matches!(refused, Err(OpenSessionError::DeviceFull)), "{refused:?}");
    assert!(f.told(200).await.is_empty());
    f.open(fan, 201).await;
    let closed = ending(&session(&f, pump, 1), EventKind::SessionClosed, "it ended", 0);
    assert!(f.store.close_session(closed).await.unwrap());
    f.store.open_session(one_more.clone(), event()).await.unwrap();
}

#[tokio::test]
async fn a_session_outlives_the_relays_process() {
    let f = fixture().await;
    let pump = device(&f, 1).await;
    let opened = f.open(pump, 1).await;
    f.store.close().await;
    let store = Store::open(f.dir.path()).await.unwrap();
    assert_eq!(store.open_sessions(Whose::All).await.unwrap(), [opened]);
}

#[tokio::test]
async fn what_a_session_joins_is_kept_and_both_are_told() {
    let f = fixture().await;
    let pump = device(&f, 1).await;
    let host = f.open(pump, 1).await;
    for (n, terminal, read_only) in [(2, None, None), (3, Some(7), Some(true))] {
        let joins = Some(Join { session: host.id, terminal, read_only });
        let guest = SessionRecord { joins, actions: vec!["join".into()], ..session(&f, pump, n) };
        let (opened, joined) =
            (guest.event(EventKind::SessionOpened), host.event(EventKind::SessionJoined));
        f.store.join_session(guest.clone(), opened, joined).await.unwrap();
        assert_eq!(f.session(n).await, guest);
    }
    assert_eq!(f.told(1).await, ["session-opened", "session-joined", "session-joined"]);
    assert_eq!(f.open_ids(Whose::Joining).await, [id(2), id(3)]);
}
