#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::net::SocketAddr;

use belay_proto::api::{DeviceChange, UserChange};
use belay_proto::names::{DeviceName, UserName};
use belay_proto::policy::Role;
use belay_proto::time::UnixTime;
use uuid::Uuid;

use belay_tunnel::carrier::quic::LineId;

use super::*;

pub(super) const NOW: UnixTime = UnixTime(1_800_000_000);
pub(super) const LATER: UnixTime = UnixTime(NOW.0 + 3600);

pub(super) struct Fixture {
    pub(super) store: Store,
    pub(super) admin: UserId,
    pub(super) dir: tempfile::TempDir,
}

fn peer() -> SocketAddr {
    "192.0.2.7:1000".parse().unwrap()
}

pub(super) fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn login_code(n: u8, expires: UnixTime) -> LoginCode {
    LoginCode { digest: [n; 32], expires }
}

pub(super) async fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let roles = vec![Role::Administrator];
    let admin =
        store.add_user(name("root"), roles, login_code(1, LATER), Actor::Machine).await.unwrap();
    Fixture { store, admin, dir }
}

impl Fixture {
    pub(super) async fn token(&self, n: u8, uses: u32, pattern: Option<&str>) {
        let token = NewToken {
            digest: [n; 32],
            expires: LATER,
            uses,
            pattern: pattern.map(name),
            labels: [(name("site"), name("oslo"))].into(),
        };
        self.store.create_token(token, self.admin, peer()).await.unwrap();
    }

    pub(super) async fn enrol(
        &self,
        token: u8,
        key: u8,
        wish: NameWish,
    ) -> Result<Enrolled, EnrolError> {
        self.store.enrol(enrolment(token, key, wish)).await
    }

    async fn device(&self, text: &str) -> DeviceRecord {
        self.store.device_by_name_or_id(text).await.unwrap().unwrap()
    }

    async fn change(
        &self,
        device: &str,
        change: DeviceChange,
    ) -> Result<DeviceRecord, DeviceChangeError> {
        self.store.change_device(device, change, Actor::User(self.admin, peer())).await
    }

    pub(super) async fn kinds(&self) -> Vec<String> {
        self.store.decisions(0).await.unwrap().into_iter().map(|d| d.kind).collect()
    }
}

fn enrolment(token: u8, key: u8, wish: NameWish) -> Enrolment {
    Enrolment {
        token: [token; 32],
        key_digest: [key; 32],
        wish,
        ssh_host_key: "ssh-ed25519 AAAA".into(),
        hostname: "pump".into(),
        platform: "linux/aarch64".into(),
        software: "belay-agent/0.1.0".into(),
        now: NOW,
        certificate_ends: LATER,
        source: peer(),
        note: String::new(),
    }
}

fn exactly(text: &str) -> NameWish {
    NameWish::Exactly(name(text))
}

pub(super) fn like(text: &str) -> NameWish {
    NameWish::Like(name(text))
}

fn status(status: DeviceStatus) -> DeviceChange {
    DeviceChange { status: Some(status), ..DeviceChange::default() }
}

#[tokio::test]
async fn a_token_takes_in_as_many_as_it_says_and_labels_them() {
    let f = fixture().await;
    f.token(1, 2, None).await;
    let a = f.enrol(1, 1, like("pump")).await.unwrap();
    let b = f.enrol(1, 2, like("pump")).await.unwrap();
    assert_eq!((a.name.as_str(), b.name.as_str()), ("pump", "pump-2"));
    assert!(matches!(f.enrol(1, 3, like("pump")).await, Err(EnrolError::UsedUp)));
    assert!(matches!(f.enrol(9, 3, like("pump")).await, Err(EnrolError::UnknownToken)));
    let late = Enrolment { now: LATER.plus(Duration::from_secs(1)), ..enrolment(1, 3, like("x")) };
    assert!(
        matches!(f.store.enrol(late).await, Err(EnrolError::Expired(ago)) if ago.as_secs() == 1)
    );
    let record = f.store.device_by_id(a.id).await.unwrap().unwrap();
    assert_eq!(record.labels[&name("site")].as_str(), "oslo");
    assert_eq!(record.key_digest, [1; 32]);
    assert_eq!(f.store.devices().await.unwrap().len(), 2);
    // What is put out of service is no device any more, but what it did is still told by its name.
    f.change("pump", status(DeviceStatus::Decommissioned)).await.unwrap();
    assert_eq!(f.store.devices().await.unwrap().len(), 1);
    let names = f.store.device_names().await.unwrap();
    assert_eq!(names.get(&a.id), Some(&a.name));
    assert_eq!(names.len(), 2);
}

#[tokio::test]
async fn the_same_key_and_token_again_is_the_same_device_and_costs_nothing() {
    let f = fixture().await;
    f.token(1, 1, None).await;
    f.token(2, 9, None).await;
    let first = f.enrol(1, 1, like("pump")).await.unwrap();
    let again = f.enrol(1, 1, like("pump")).await.unwrap();
    assert_eq!(again, Enrolled { again: true, ..first.clone() });
    let other_token = f.enrol(2, 1, like("pump")).await;
    assert!(matches!(other_token, Err(EnrolError::KeyKnown(..))));
    f.change("pump", status(DeviceStatus::Quarantined)).await.unwrap();
    assert!(matches!(f.enrol(1, 1, like("pump")).await, Err(EnrolError::KeyKnown(..))));
    assert_eq!(f.store.devices().await.unwrap().len(), 1);
}

#[tokio::test]
async fn names_are_unique_among_the_living_and_never_read_as_an_id() {
    let f = fixture().await;
    f.token(1, 99, None).await;
    let first = f.enrol(1, 1, exactly("pump")).await.unwrap();
    assert!(matches!(f.enrol(1, 2, exactly("pump")).await, Err(EnrolError::NameTaken(_))));
    for id in [first.id.to_string(), first.id.to_string().replace('-', "")] {
        assert!(matches!(f.enrol(1, 2, exactly(&id)).await, Err(EnrolError::NameIsId(_))));
        let rename = DeviceChange { name: Some(name(&id)), ..DeviceChange::default() };
        assert!(matches!(f.change("pump", rename).await, Err(DeviceChangeError::NameIsId(_))));
    }
    f.change("pump", status(DeviceStatus::Decommissioned)).await.unwrap();
    assert_eq!(f.device("pump").await.status, DeviceStatus::Decommissioned, "told what became");
    let second = f.enrol(1, 2, exactly("pump")).await.unwrap();
    assert_eq!(f.device("pump").await.id, second.id);
    assert_eq!(f.device(&first.id.to_string()).await.status, DeviceStatus::Decommissioned);
    let revive = f.change(&first.id.to_string(), status(DeviceStatus::Active)).await;
    assert!(matches!(revive, Err(DeviceChangeError::Gone(_))));
    assert!(matches!(f.enrol(1, 1, like("pump")).await, Err(EnrolError::KeyKnown(..))));
}

#[tokio::test]
async fn a_fleet_of_one_host_name_gets_numbers_and_fits_its_pattern() {
    let f = fixture().await;
    f.token(1, 200, None).await;
    let mut names = Vec::new();
    for key in 0..100 {
        names.push(f.enrol(1, key, like("pump")).await.unwrap().name.to_string());
    }
    assert_eq!(names[..4], ["pump", "pump-2", "pump-3", "pump-4"]);
    assert_eq!(names[99], "pump-100");
    let long: DeviceName = name(&"x".repeat(63));
    f.enrol(1, 100, NameWish::Like(long.clone())).await.unwrap();
    let cut = f.enrol(1, 101, NameWish::Like(long)).await.unwrap();
    assert_eq!(cut.name.as_str(), format!("{}-2", "x".repeat(61)));

    f.token(2, 9, Some("oslo-*")).await;
    let outside = f.enrol(2, 110, like("bergen-1")).await;
    assert!(matches!(outside, Err(EnrolError::NotOfPattern { .. })));
    assert_eq!(f.enrol(2, 110, exactly("oslo-1")).await.unwrap().name.as_str(), "oslo-1");
    f.token(3, 2, Some("the-one")).await;
    assert_eq!(f.enrol(3, 120, like("whatever")).await.unwrap().name.as_str(), "the-one");
    assert!(matches!(f.enrol(3, 121, like("whatever")).await, Err(EnrolError::NameTaken(_))));
}

#[tokio::test]
async fn a_change_is_whole_recorded_and_told_after_it_is_kept() {
    let f = fixture().await;
    f.token(1, 9, None).await;
    let pump = f.enrol(1, 1, exactly("pump")).await.unwrap();
    f.enrol(1, 2, exactly("fan")).await.unwrap();
    let mut changes = f.store.changes();
    let change = DeviceChange {
        name: Some(name("pump-17")),
        set_labels: [(name("line"), name("3"))].into(),
        remove_labels: [name("site")].into(),
        status: Some(DeviceStatus::Quarantined),
        reason: Some("odd\ntraffic".into()),
    };
    let now = f.change("pump", change.clone()).await.unwrap();
    assert_eq!((now.name.as_str(), now.status), ("pump-17", DeviceStatus::Quarantined));
    assert_eq!(now.labels, [(name("line"), name("3"))].into());
    assert_eq!(changes.try_recv(), Ok(Change::DeviceEdited(pump.id)));
    let quarantined = Change::DeviceStatus(pump.id, DeviceStatus::Quarantined);
    assert_eq!(changes.try_recv(), Ok(quarantined));
    let told = f.store.decisions(0).await.unwrap().pop().unwrap();
    assert_eq!(told.kind, "device-status");
    assert_eq!(told.detail.as_deref(), Some("active -> quarantined: odd\u{fffd}traffic"));

    let before = f.kinds().await.len();
    let clash = DeviceChange {
        name: Some(name("fan")),
        set_labels: [(name("line"), name("4"))].into(),
        ..DeviceChange::default()
    };
    assert!(matches!(f.change("pump-17", clash).await, Err(DeviceChangeError::NameTaken(_))));
    assert_eq!(f.device("pump-17").await, now, "nothing of a refused change is kept");
    let crowd = (0..65).map(|n| (name(&format!("l{n}")), name("x"))).collect();
    let crowd = DeviceChange { set_labels: crowd, ..DeviceChange::default() };
    assert!(matches!(f.change("pump-17", crowd).await, Err(DeviceChangeError::TooManyLabels)));
    assert_eq!(f.device("pump-17").await, now);
    assert_eq!(f.kinds().await.len(), before);
    assert!(changes.try_recv().is_err());
    assert!(matches!(f.change("none", change).await, Err(DeviceChangeError::Unknown(_))));
}

#[tokio::test]
async fn the_last_administrator_stays() {
    let f = fixture().await;
    let disable = UserChange { disabled: Some(true), ..UserChange::default() };
    let demote = UserChange { roles: Some(vec![]), ..UserChange::default() };
    for change in [disable.clone(), demote] {
        let refused = f.store.change_user(name("root"), change, None, Actor::Machine).await;
        assert!(matches!(refused, Err(UserError::LastAdministrator(_))));
    }
    let roles = vec![Role::Administrator];
    f.store.add_user(name("two"), roles, login_code(2, LATER), Actor::Machine).await.unwrap();
    let mut changes = f.store.changes();
    let root = f.store.change_user(name("root"), disable, None, Actor::Machine).await.unwrap();
    assert!(root.disabled);
    assert_eq!(changes.try_recv(), Ok(Change::UserDisabled(root.id)));
    let taken = f.store.add_user(name("two"), vec![], login_code(3, LATER), Actor::Machine).await;
    assert!(matches!(taken, Err(UserError::NameTaken(_))));
}

#[tokio::test]
async fn a_code_works_once_in_time_and_a_newer_one_replaces_it() {
    let f = fixture().await;
    let hash = || PasswordHash::from_phc("$x".into());
    let redeem = |n: u8, now| f.store.redeem_code([n; 32], hash(), now, peer());
    assert!(matches!(redeem(9, NOW).await, Err(CodeError::Unknown)));
    let late = LATER.plus(Duration::from_secs(1));
    assert!(matches!(redeem(1, late).await, Err(CodeError::Expired(_))));
    f.store.new_code(name("root"), login_code(2, LATER), Actor::Machine).await.unwrap();
    assert!(matches!(redeem(1, NOW).await, Err(CodeError::Used)), "replaced");
    assert_eq!(redeem(2, NOW).await.unwrap().id, f.admin);
    assert!(matches!(redeem(2, NOW).await, Err(CodeError::Used)));
    let root: UserName = name("root");
    assert!(f.store.user_for_login(&root).await.unwrap().unwrap().1.is_some());
    assert!(matches!(
        f.store.new_code(name("nobody"), login_code(3, LATER), Actor::Machine).await,
        Err(UserError::Unknown(_))
    ));
    f.store.sweep(LATER.plus(Duration::from_secs(31 * 24 * 3600))).await.unwrap();
    assert!(matches!(redeem(2, NOW).await, Err(CodeError::Unknown)), "swept");
}

#[tokio::test]
async fn until_a_new_key_is_used_the_old_one_still_opens() {
    let f = fixture().await;
    f.token(1, 9, None).await;
    f.token(2, 9, None).await;
    let pump = f.enrol(1, 1, exactly("pump")).await.unwrap();
    f.enrol(1, 2, exactly("fan")).await.unwrap();
    let renewal = |key: u8| Renewal {
        device: pump.id,
        key_digest: [key; 32],
        ssh_host_key: Some("ssh-ed25519 BBBB".into()),
        certificate_ends: LATER,
        source: peer(),
    };
    let line_up = |key: u8| LineUp {
        device: pump.id,
        key_digest: [key; 32],
        at: NOW,
        hostname: "pump".into(),
        platform: "linux".into(),
        software: "belay-agent/9".into(),
        source: peer(),
        id: Some(LineId([key; 8])),
        detail: "quic".into(),
    };
    let stolen = f.store.note_renewal(renewal(2)).await;
    assert!(matches!(stolen, Err(RenewalError::KeyOfAnother)));
    f.store.note_renewal(renewal(7)).await.unwrap();
    f.store.note_line_up(line_up(1)).await.unwrap();
    let record = f.device("pump").await;
    assert!(record.has_key(&[1; 32]) && record.has_key(&[7; 32]) && !record.has_key(&[2; 32]));
    assert_eq!((record.software.as_str(), record.last_seen), ("belay-agent/9", Some(NOW)));
    assert!(matches!(f.enrol(2, 7, like("x")).await, Err(EnrolError::KeyKnown(..))));
    f.store.note_line_up(line_up(7)).await.unwrap();
    let record = f.device("pump").await;
    assert!(!record.has_key(&[1; 32]) && record.has_key(&[7; 32]));
    let down = LineDown {
        device: pump.id,
        last_seen: LATER,
        reason: "silent".into(),
        source: peer(),
        id: None,
    };
    f.store.note_line_down(down).await.unwrap();
    let record = f.device("pump").await;
    assert_eq!((record.last_seen, record.last_end.as_deref()), (Some(LATER), Some("silent")));
    f.change("pump", status(DeviceStatus::Quarantined)).await.unwrap();
    assert!(matches!(f.store.note_renewal(renewal(8)).await, Err(RenewalError::Standing(_))));
    let kinds = f.kinds().await;
    for kind in ["renewed", "line-up", "line-down", "device-status"] {
        assert!(kinds.iter().any(|k| k == kind), "{kind}");
    }
}

#[tokio::test]
async fn lines_that_a_killed_relay_left_are_handed_out_once_and_by_their_newest() {
    let f = fixture().await;
    f.token(1, 9, None).await;
    let pump = f.enrol(1, 1, exactly("pump")).await.unwrap();
    let fan = f.enrol(1, 2, exactly("fan")).await.unwrap();
    let up = |device, id: u8| LineUp {
        device,
        key_digest: [1; 32],
        at: NOW,
        hostname: String::new(),
        platform: String::new(),
        software: String::new(),
        source: peer(),
        id: Some(LineId([id; 8])),
        detail: String::new(),
    };
    let down = |device, id: u8| LineDown {
        device,
        last_seen: NOW,
        reason: "late".into(),
        source: peer(),
        id: Some(LineId([id; 8])),
    };
    f.store.note_line_up(up(pump.id, 1)).await.unwrap();
    f.store.note_line_up(up(fan.id, 2)).await.unwrap();
    f.store.note_line_up(up(pump.id, 3)).await.unwrap();
    f.store.note_line_down(down(pump.id, 1)).await.unwrap();
    f.store.note_line_down(down(fan.id, 2)).await.unwrap();
    let moved: SocketAddr = "[2001:db8::7]:9".parse().unwrap();
    f.store.note_line_moved(pump.id, LineId([1; 8]), peer()).await.unwrap();
    f.store.note_line_moved(pump.id, LineId([3; 8]), moved).await.unwrap();
    let left = LeftLine { device: pump.id, address: moved, id: LineId([3; 8]) };
    assert_eq!(f.store.take_left_lines().await.unwrap(), [left]);
    assert_eq!(f.device("pump").await.last_end.as_deref(), Some("the relay was killed"));
    assert_eq!(f.device("fan").await.last_end.as_deref(), Some("late"));
    assert_eq!(f.store.take_left_lines().await.unwrap(), []);
}

#[tokio::test]
async fn what_is_recorded_cannot_be_changed_or_removed() {
    let f = fixture().await;
    let mut conn = schema::writing(&f.dir.path().join(FILE)).connect().await.unwrap();
    for sql in ["UPDATE decisions SET detail = 'x'", "DELETE FROM decisions"] {
        let error = sqlx::query(sql).execute(&mut conn).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{error}");
    }
}

#[tokio::test]
async fn roles_that_cannot_be_read_open_nothing() {
    let f = fixture().await;
    let mut conn = schema::writing(&f.dir.path().join(FILE)).connect().await.unwrap();
    let sql = "UPDATE users SET roles = '[{\"role\":\"administrator\",\"but\":\"not really\"}]'";
    sqlx::query(sql).execute(&mut conn).await.unwrap();
    let read = f.store.user(f.admin).await;
    assert!(matches!(read, Err(StoreError::Unreadable("roles"))), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_refused_operation_harms_no_neighbour_in_its_transaction() {
    let f = fixture().await;
    f.token(1, 50, None).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..200_u8 {
        let store = f.store.clone();
        tasks.spawn(async move {
            if n % 2 == 0 {
                store.enrol(enrolment(1, n, like("pump"))).await.is_ok()
            } else {
                store.record(Event::new(EventKind::LineRefused)).await.unwrap();
                false
            }
        });
    }
    let enrolled = tasks.join_all().await.into_iter().filter(|ok| *ok).count();
    assert_eq!(enrolled, 50, "as many as the token allows, however they raced");
    let kinds = f.kinds().await;
    assert_eq!(kinds.iter().filter(|k| *k == "line-refused").count(), 100);
    assert_eq!(kinds.iter().filter(|k| *k == "enrolled").count(), 50);
    let decisions = f.store.decisions(0).await.unwrap();
    assert!(decisions.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1), "no gap");
}

#[tokio::test]
async fn a_closed_store_refuses_and_a_reopened_one_has_it_all() {
    let f = fixture().await;
    let id = DeviceId::from_uuid(Uuid::now_v7());
    f.store.record(Event::new(EventKind::LineUp).device(id).source(peer())).await.unwrap();
    f.store.close().await;
    assert!(matches!(f.store.record(Event::new(EventKind::LineUp)).await, Err(StoreError::Closed)));
    let store = Store::open(f.dir.path()).await.unwrap();
    let last = store.decisions(0).await.unwrap().pop().unwrap();
    assert_eq!((last.device, last.source.as_deref()), (Some(id), Some("192.0.2.7")));
    assert!(store.user(f.admin).await.unwrap().is_some());
}

#[tokio::test]
async fn a_big_batch_is_recorded_whole() {
    let f = fixture().await;
    let before = f.kinds().await.len();
    f.store.record_batch(vec![Event::new(EventKind::LineDown); 1000]).await.unwrap();
    assert_eq!(f.kinds().await.len(), before + 1000);
}
