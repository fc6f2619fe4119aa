//! A device that is there twice, comes too often, or is sent away with a slot.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use belay_proto::api::{DeviceChange, DeviceStatus};
use belay_proto::ids::{DeviceId, RunId};
use belay_proto::refusal::{Code, Refused};
use belay_proto::version;
use belay_proto::wire::control::{Control, Hello, HelloAnswer, Run};
use belay_relay::store::Decision;
use belay_tunnel::carrier::quic::Dialler;
use belay_tunnel::carrier::{Carrier, RecvHalf, SendHalf};
use belay_tunnel::clock;
use belay_tunnel::framed::{self, Messages};
use uuid::Uuid;

use crate::lines::{Identity, Site, soon};

/// A device's line that does only what it is told to.
struct Raw {
    send: SendHalf,
    control: Messages<RecvHalf>,
    carrier: Carrier,
    _dialler: Dialler,
}

fn run(this: u8, before: u8) -> Option<Run> {
    let id = |n| RunId::from_uuid(Uuid::from_bytes([n; 16]));
    Some(Run { this: id(this), before: Some(id(before)) })
}

async fn greets(site: &Site, who: &Identity, run: Option<Run>) -> Result<Raw, Refused> {
    let (dialler, carrier) = site.dial(who).await;
    let (mut send, recv) = carrier.open().await.unwrap();
    let hello = Hello {
        newest: Some(version::PROTOCOL),
        oldest: Some(version::OLDEST),
        clock: Some(clock::now()),
        sessions: Some(Vec::new()),
        run,
        ..Hello::default()
    };
    framed::write(&mut send, &hello).await.unwrap();
    let mut control = Messages::new(recv);
    let answer = soon("an answer to Hello", control.next::<HelloAnswer>()).await.unwrap().unwrap();
    match answer.refused {
        Some(refused) => Err(refused),
        None => Ok(Raw { send, control, carrier, _dialler: dialler }),
    }
}

impl Raw {
    async fn next(&mut self) -> Control {
        soon("a word of the relay", self.control.next::<Control>()).await.unwrap().unwrap()
    }

    /// Answers the next probe: the line is up.
    async fn probed(&mut self) {
        loop {
            if let Some(ping) = self.next().await.ping {
                let pong = Control { pong: Some(ping), ..Control::default() };
                framed::write(&mut self.send, &pong).await.unwrap();
                return;
            }
        }
    }

    /// Answers probes until the relay says goodbye.
    async fn goodbye(&mut self) -> Refused {
        loop {
            let word = self.next().await;
            if let Some(refused) = word.goodbye {
                return refused;
            }
            if let Some(ping) = word.ping {
                let pong = Control { pong: Some(ping), ..Control::default() };
                framed::write(&mut self.send, &pong).await.unwrap();
            }
        }
    }
}

async fn recorded(site: &Site, kind: &str) -> Vec<Decision> {
    let all = site.store.decisions(0).await.unwrap();
    all.into_iter().filter(|decision| decision.kind == kind).collect()
}

async fn is_kept(site: &Site, device: DeviceId) -> bool {
    site.store.device_by_id(device).await.unwrap().unwrap().clone.is_some()
}

#[tokio::test]
async fn a_copy_of_a_live_device_is_refused_and_reported_until_somebody_decides() {
    let site = Site::start("").await;
    let (id, who) = site.add_device("pump-17").await;
    let mut first = greets(&site, &who, run(1, 0)).await.unwrap();
    first.probed().await;

    let mut copy = greets(&site, &who, run(9, 1)).await.unwrap();
    let asked = async {
        let (_, refused) = tokio::join!(first.probed(), copy.goodbye());
        refused
    };
    let refused = soon("the copy is refused", asked).await;
    assert_eq!(refused.code(), Code::Quarantined, "{refused}");
    assert!(refused.told_to_wait() >= Some(Duration::from_secs(30)), "{refused:?}");
    assert!(first.carrier.end().is_none(), "the first one keeps its line");
    assert_eq!(recorded(&site, "clone-suspected").await.len(), 1);
    assert!(is_kept(&site, id).await);

    // Its next run, and with the first one away too. The first one comes back as it likes.
    let mut copy = greets(&site, &who, run(8, 9)).await.unwrap();
    assert_eq!(copy.goodbye().await.code(), Code::Quarantined);
    first.carrier.close(belay_tunnel::carrier::ResetCode::GONE, "");
    let mut copy = greets(&site, &who, run(8, 9)).await.unwrap();
    assert_eq!(copy.goodbye().await.code(), Code::Quarantined);
    let mut first = greets(&site, &who, run(2, 1)).await.unwrap();
    first.probed().await;
    assert_eq!(recorded(&site, "clone-suspected").await.len(), 2, "once for each run of it");

    let active = DeviceChange { status: Some(DeviceStatus::Active), ..DeviceChange::default() };
    site.patch(&format!("/v1/devices/{id}"), &active).await;
    assert!(!is_kept(&site, id).await);
    first.carrier.close(belay_tunnel::carrier::ResetCode::GONE, "");
    let mut other = greets(&site, &who, run(8, 9)).await.unwrap();
    other.probed().await;
}

#[tokio::test]
async fn a_restarted_agent_takes_its_name_over_from_a_line_that_only_looks_alive() {
    let site = Site::start("").await;
    let (id, who) = site.add_device("pump-17").await;
    let mut dead = greets(&site, &who, run(1, 0)).await.unwrap();
    dead.probed().await;
    // The carrier answers for itself, the agent behind it does not.
    let mut next = greets(&site, &who, run(2, 1)).await.unwrap();
    next.probed().await;
    assert!(next.carrier.end().is_none());
    assert!(!is_kept(&site, id).await);
    assert!(recorded(&site, "clone-suspected").await.is_empty());
}

#[tokio::test]
async fn the_same_run_takes_its_name_over_at_once_even_from_a_line_that_answers() {
    let site = Site::start("").await;
    let (id, who) = site.add_device("pump-17").await;
    let mut first = greets(&site, &who, run(1, 0)).await.unwrap();
    first.probed().await;
    let mut second = greets(&site, &who, run(1, 0)).await.unwrap();
    let goodbye = async { tokio::join!(second.probed(), first.goodbye()).1 };
    assert_eq!(soon("the first one is told", goodbye).await.code(), Code::Busy);
    // The end of the first line, however late, does not take the second one off.
    first.carrier.close(belay_tunnel::carrier::ResetCode::GONE, "");
    while recorded(&site, "line-down").await.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(second.carrier.end().is_none());
    let anna = site.root().await;
    let opens = anna.opens("pump-17");
    let delivered = async {
        let (mut send, mut recv) = second.carrier.accept().await.unwrap();
        framed::read::<belay_proto::wire::open::Deliver, _>(&mut recv).await.unwrap();
        let accepted = Some(belay_proto::wire::open::Accepted {});
        let answer = belay_proto::wire::open::DeliverAnswer { accepted, refused: None };
        framed::write(&mut send, &answer).await.unwrap();
        (send, recv)
    };
    let (opened, _streams) = soon("a session", async { tokio::join!(opens, delivered) }).await;
    assert!(opened.is_ok(), "the newer line is the device's");
    assert!(!is_kept(&site, id).await);
}

#[tokio::test]
async fn a_device_that_comes_again_and_again_is_slowed_down_and_reported_once() {
    let site = Site::start("").await;
    let (_, who) = site.add_device("pump-17").await;
    let (_, other) = site.add_device("pump-18").await;
    let mut refusals = Vec::new();
    for _ in 0..80 {
        match greets(&site, &who, run(1, 0)).await {
            Ok(line) => line.carrier.close(belay_tunnel::carrier::ResetCode::GONE, ""),
            Err(refused) => refusals.push(refused),
        }
    }
    assert!(refusals.len() >= 10, "{}", refusals.len());
    for refused in &refusals {
        assert_eq!(refused.code(), Code::Busy, "{refused}");
        assert!(refused.told_to_wait() >= Some(Duration::from_secs(1)), "{refused:?}");
    }
    assert_eq!(recorded(&site, "line-flapping").await.len(), 1);
    assert!(greets(&site, &other, run(1, 0)).await.is_ok(), "its neighbour is not concerned");
}

#[tokio::test]
async fn a_relay_that_goes_away_gives_every_device_another_slot() {
    const DEVICES: usize = 20;
    let mut site = Site::start("").await;
    let mut lines = Vec::new();
    for n in 0..DEVICES {
        let (_, who) = site.add_device(&format!("pump-{n}")).await;
        let mut line = greets(&site, &who, run(1, 0)).await.unwrap();
        line.probed().await;
        lines.push(line);
    }
    let told = tokio::spawn(async move {
        let mut slots = Vec::new();
        for line in &mut lines {
            let refused = line.goodbye().await;
            assert_eq!(refused.code(), Code::Draining);
            slots.push(refused.told_to_wait().unwrap());
        }
        slots
    });
    site.stop_relay().await;
    let mut slots = told.await.unwrap();
    slots.sort_unstable();
    slots.dedup();
    assert_eq!(slots.len(), DEVICES, "{slots:?}");
    assert!(slots.last().unwrap() < &Duration::from_secs(1), "a thousand a second: {slots:?}");
}
