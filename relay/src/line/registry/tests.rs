#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use belay_proto::refusal::Code;
use uuid::Uuid;

use super::*;

fn registry() -> Arc<Registry> {
    Arc::new(Registry::default())
}

fn session(n: u8) -> SessionId {
    SessionId::from_uuid(Uuid::from_bytes([n; 16]))
}

fn user(n: u8) -> UserId {
    UserId::from_uuid(Uuid::from_bytes([n; 16]))
}

fn device(n: u8) -> DeviceId {
    DeviceId::from_uuid(Uuid::from_bytes([n; 16]))
}

fn reason(text: &str) -> Refused {
    Refused::new(Code::NotAllowed, text, "")
}

const MANY: (u32, u32) = (9, 9);

#[tokio::test]
async fn a_newer_attachment_ends_the_older_and_is_not_taken_off_by_it() {
    let registry = registry();
    let whose = (session(1), user(1), device(1));
    let (first, none) = registry.attach(whose, MANY).ok().unwrap();
    assert!(none.is_none());
    let (second, old) = registry.attach(whose, MANY).ok().unwrap();
    assert_eq!(first.ended().await, Ending::Replaced);
    let old = old.unwrap();
    let left = tokio::spawn(async move { old.left().await });
    assert_eq!(first.release(), Some(Ending::Replaced));
    assert!(registry.is_attached(session(1)), "the newer one is still there");
    assert!(!left.is_finished(), "released is not recorded");
    drop(first);
    left.await.unwrap();
    assert!(registry.cut(session(1), reason("cut")));
    assert_eq!(second.release(), Some(Ending::Cut(reason("cut"))));
    assert!(!registry.is_attached(session(1)));
    assert_eq!(registry.session_count(), 0);
}

#[tokio::test]
async fn whoever_finds_an_attachment_is_heard_and_after_its_release_nobody_finds_it() {
    let registry = registry();
    let (guard, _) = registry.attach((session(1), user(1), device(1)), MANY).ok().unwrap();
    assert!(!registry.over_at_device(session(1), device(2), reason("not its own")));
    assert!(!registry.cut(session(2), reason("another")));
    assert!(registry.over_at_device(session(1), device(1), reason("exit")));
    assert_eq!(guard.ended().await, Ending::OverAtDevice(reason("exit")));
    assert!(registry.cut(session(1), reason("disabled")), "a cut waits for no farewell");
    assert_eq!(guard.cut().await, reason("disabled"));
    assert!(registry.over_at_device(session(1), device(1), reason("late")));
    assert!(registry.cut(session(1), reason("again")));
    assert_eq!(guard.release(), Some(Ending::Cut(reason("disabled"))), "the first cut stands");
    assert!(!registry.cut(session(1), reason("too late")));
    assert_eq!(guard.release(), Some(Ending::Cut(reason("disabled"))));
}

#[test]
fn places_are_sessions_not_attachments() {
    let registry = registry();
    let attach = |n, who, on| registry.attach((session(n), user(who), device(on)), (2, 3));
    let one = attach(1, 1, 1).ok().unwrap();
    let two = attach(2, 1, 1).ok().unwrap();
    assert_eq!(attach(3, 2, 1).err(), Some(Full::Device));
    let again = attach(2, 1, 1).ok().unwrap();
    drop(two);
    assert_eq!(attach(3, 2, 1).err(), Some(Full::Device), "the older's end gave no place back");
    let three = attach(3, 1, 2).ok().unwrap();
    assert_eq!(attach(4, 1, 2).err(), Some(Full::User));
    let four = attach(4, 2, 2).ok().unwrap();
    drop((one, again, three, four));
    assert!(registry.by_device.is_empty() && registry.by_user.is_empty(), "all places are back");
    assert!(attach(5, 1, 1).is_ok());
}

#[tokio::test]
async fn who_waits_for_a_line_and_goes_away_leaves_nothing() {
    let registry = registry();
    let waiting = |registry: &Arc<Registry>| {
        let registry = Arc::clone(registry);
        tokio::spawn(async move { registry.line_up(device(1)).await.epoch })
    };
    let (first, second) = (waiting(&registry), waiting(&registry));
    while registry.awaited.get(&device(1)).is_none_or(|awaited| !awaited.is_by(2)) {
        tokio::task::yield_now().await;
    }
    first.abort();
    first.await.unwrap_err();
    assert!(registry.awaited.get(&device(1)).unwrap().is_by(1));
    second.abort();
    second.await.unwrap_err();
    assert!(registry.awaited.is_empty());
}

/// A line of this device over a carrier that goes nowhere.
async fn line(of: DeviceId) -> Arc<LiveDevice> {
    let (end, _) = tokio::io::duplex(64);
    let peer = ([192, 0, 2, 7], 1).into();
    let (carrier, _) =
        belay_tunnel::carrier::websocket::accepted(end, Vec::new(), peer, None).await;
    let able = Able { attaches: false, records: false, records_input: false, joins: false };
    Arc::new(LiveDevice::new(of, next_epoch(), carrier, 0, Box::default(), None, able))
}

#[tokio::test]
async fn a_late_goodbye_of_an_older_line_takes_nothing_off_and_an_older_line_takes_nothing_over() {
    let registry = registry();
    let (older, newer) = (line(device(1)).await, line(device(1)).await);
    let (first, none) = registry.insert(&older);
    assert!(none.is_none());
    let (second, old) = registry.insert(&newer);
    assert_eq!(old.unwrap().epoch, older.epoch);
    drop(first);
    assert_eq!(registry.device(device(1)).unwrap().epoch, newer.epoch, "by its epoch");
    // One that was admitted before and comes to be entered after is the old one itself.
    let (late, old) = registry.insert(&older);
    assert_eq!(old.unwrap().epoch, older.epoch);
    assert_eq!(registry.device(device(1)).unwrap().epoch, newer.epoch);
    drop(late);
    drop(second);
    assert!(registry.device(device(1)).is_none());
}

#[tokio::test]
async fn of_devices_that_are_sent_away_those_somebody_waits_for_come_back_first() {
    let registry = registry();
    let mut held = Vec::new();
    for n in 1..=20 {
        let line = line(device(n)).await;
        held.push((registry.insert(&line), line));
    }
    let waited_for = registry.attach((session(1), user(1), device(7)), MANY).ok().unwrap();
    registry.end_all(&reason("bye"));
    let mut slots = Vec::new();
    for (_, line) in &held {
        match line.order().await {
            Order::End(refused) => slots.push((refused.told_to_wait().unwrap(), line.id)),
            Order::EndSession(_) | Order::Rename(_) | Order::Prove | Order::Ask => {
                panic!("another order")
            }
        }
    }
    slots.sort_unstable();
    assert_eq!(slots[0].1, device(7));
    slots.dedup_by_key(|(slot, _)| *slot);
    assert_eq!(slots.len(), 20, "each its own");
    drop(waited_for);
}
