//! Sessions that lose their stream and get another: whose they are, what they wait for, and what
//! ends them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::time::{Duration, Instant};

use belay_proto::api::{DeviceChange, DeviceStatus, UserChange};
use belay_proto::ids::SessionId;
use belay_proto::limits::{DEVICE_SESSIONS, HELLO_DEADLINE};
use belay_proto::policy::Role;
use belay_proto::refusal::{Code, Refused};
use belay_proto::wire::open::{Open, Opened, ResumeWindows};
use belay_relay::store::{Decision, Whose};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::lines::{Client, Device, Identity, Site, soon};
use crate::stream::{Stream, both_ways};

pub(crate) type Enrolled = (belay_proto::ids::DeviceId, Identity);

/// A session open between `root` and `pump`.
pub(crate) struct Open1 {
    pub(crate) id: SessionId,
    pub(crate) client: Client,
    pub(crate) near: Stream,
    pub(crate) far: Stream,
}

pub(crate) async fn opened(site: &Site, device: &Device) -> Open1 {
    let client = site.root().await;
    let ((opened, near), (grant, far)) = granted(client.opens("pump"), device.takes()).await;
    assert_eq!((grant.session, grant.resume), (opened.session, None));
    Open1 { id: opened.session, client, near, far }
}

/// What is asked for and what the device does meanwhile; a refusal is not waited through.
pub(crate) async fn granted<T>(
    asked: impl Future<Output = Result<(Opened, Stream), Refused>>,
    device: impl Future<Output = T>,
) -> ((Opened, Stream), T) {
    tokio::join!(
        async { asked.await.unwrap_or_else(|refused| panic!("refused: {refused}")) },
        device
    )
}

pub(crate) async fn standard(settings: &str) -> (Site, Enrolled) {
    let site = Site::start(settings).await;
    let pump = site.add_device("pump").await;
    (site, pump)
}

pub(crate) fn kinds(told: &[Decision]) -> Vec<&str> {
    told.iter().map(|d| d.kind.as_str()).collect()
}

pub(crate) fn refusal<T>(answer: Result<T, Refused>) -> Refused {
    answer.err().unwrap()
}

fn engineer(labels: &str) -> Vec<Role> {
    let selector = labels.parse().unwrap();
    let logins = ["support".parse().unwrap()].into();
    vec![Role::Engineer { selector, logins, break_glass: false }]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_its_client_its_relay_and_its_devices_line() {
    let (mut site, pump) = standard("").await;
    let device = site.line(&pump, &[]).await;
    let Open1 { id, client, mut near, mut far } = opened(&site, &device).await;
    both_ways(&mut near, &mut far, b"first").await;
    let ends = site.session(id).await.ends;

    client.vanish().await;
    far.breaks().await;
    site.recorded(id, "session-detached").await;
    let client = site.root().await;
    let ((opened, mut near), (grant, mut far)) =
        granted(client.resumes(id, None), device.takes()).await;
    assert_eq!((opened.session, opened.device_name.as_deref()), (id, Some("pump")));
    assert_eq!((grant.session, grant.resume, grant.ends), (id, Some(true), ends));
    assert_eq!((grant.login.as_str(), grant.kind.as_str()), ("support", "ssh"));
    both_ways(&mut near, &mut far, b"again").await;

    site.stop_relay().await;
    near.breaks().await;
    let told = site.recorded(id, "session-detached").await;
    assert!(told.last().unwrap().detail.as_ref().unwrap().contains("shutting down"), "{told:?}");
    site.start_relay().await;
    let device = site.line(&pump, &[id]).await;
    let client = site.root().await;
    let ((_, mut near), (_, mut far)) = granted(client.resumes(id, None), device.takes()).await;
    both_ways(&mut near, &mut far, b"at last").await;
    near.send.finish();
    far.ends().await;
    far.send.finish();
    near.ends().await;

    let told = site.recorded(id, "session-closed").await;
    let (detached, resumed) = ("session-detached", "session-resumed");
    let order = ["session-opened", detached, resumed, detached, resumed, "session-closed"];
    assert_eq!(kinds(&told), order);
    assert!(told[1].detail.as_ref().unwrap().starts_with("the client went away"), "{told:?}");
    assert!(told[1].detail.as_ref().unwrap().ends_with("5 bytes to the device, 5 from it"));
    let session = site.session(id).await;
    assert_eq!((session.attachments, session.passed.up, session.passed.down), (3, 17, 17));
    assert_eq!(session.over.unwrap().why, "it ended");
    // The device's own word comes late, and changes nothing.
    device.says_ended(id, "exit");
    let other = site.root().await.resumes(id, None).await;
    assert_eq!(refusal(other).to_string(), "the session is over: it ended; open a new session");
    let told = site.recorded(id, "session-refused").await;
    assert_eq!(told.iter().filter(|d| d.kind == "session-closed").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_given_back_to_nobody_else_and_as_nothing_else() {
    let (site, pump) = standard("").await;
    let olga = site.add_person("olga", vec![Role::Administrator]).await;
    site.add_device("fan").await;
    let device = site.line(&pump, &[]).await;
    let Open1 { id, client, mut near, mut far } = opened(&site, &device).await;
    let hers = site.client(olga, "olga").await;
    let never = SessionId::from_uuid(Uuid::from_bytes([9; 16]));
    let another = refusal(hers.resumes(id, Some(5)).await);
    assert_eq!(another.code(), Code::SessionOver);
    assert_eq!(another, refusal(hers.resumes(never, Some(5)).await), "one cannot tell them apart");
    for (open, what) in [
        (Open { login: Some("root".parse().unwrap()), ..Open::default() }, "login"),
        (Open { kind: Some("forward".into()), ..Open::default() }, "kind"),
        (Open { device: Some("fan".into()), ..Open::default() }, "device"),
        (Open { device: Some(Uuid::now_v7().to_string()), ..Open::default() }, "device"),
    ] {
        let refused = refusal(client.resumes_as(id, None, open).await);
        assert_eq!(refused.code(), Code::BadRequest);
        assert_eq!(refused.cause(), format!("the session has another {what}"));
    }
    both_ways(&mut near, &mut far, b"none of that touched it").await;
    let told = site.recorded(id, "session-refused").await;
    assert_eq!(told[1].user, Some(olga));
    assert_eq!(told[1].code.as_deref(), Some("session-over"));
    assert_eq!(told[1].device, None, "a stranger's attempt says nothing of the session");
    assert!(site.session(id).await.over.is_none());
    // A device that was renamed is the same.
    let rename = DeviceChange { name: Some("pump-2".parse().unwrap()), ..DeviceChange::default() };
    site.patch("/v1/devices/pump", &rename).await;
    let named = Open { device: Some("pump".into()), ..Open::default() };
    let ((opened, _), _) = granted(client.resumes_as(id, None, named), device.takes()).await;
    assert_eq!(opened.device_name.as_deref(), Some("pump-2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_a_session_up_again_replaces_the_stream_it_had() {
    let (site, pump) = standard("sessions_per_user = 1\n").await;
    let device = site.line(&pump, &[]).await;
    let Open1 { id, client: _still_there, mut near, mut far } = opened(&site, &device).await;
    let client = site.root().await;
    let ((_, mut near_again), (_, mut far_again)) =
        granted(client.resumes(id, None), device.takes()).await;
    near.breaks().await;
    far.breaks().await;
    both_ways(&mut near_again, &mut far_again, b"on the newer one").await;
    let told = site.recorded(id, "session-resumed").await;
    assert_eq!(kinds(&told), ["session-opened", "session-detached", "session-resumed"]);
    assert!(told[1].detail.as_ref().unwrap().starts_with("it was taken up on another stream"));
    assert_eq!(refusal(client.opens("pump").await).code(), Code::Busy, "it is still one session");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_devices_line_is_answered_when_it_comes_up() {
    let (site, pump) = standard("").await;
    let device = site.line(&pump, &[]).await;
    let Open1 { id, mut near, client, .. } = opened(&site, &device).await;
    device.vanish().await;
    near.breaks().await;
    let began = Instant::now();
    assert_eq!(refusal(client.resumes(id, None).await).code(), Code::Offline);
    assert_eq!(refusal(client.resumes(id, Some(1)).await).code(), Code::Offline);
    assert!(began.elapsed() >= Duration::from_secs(1));
    let ((_, mut near), (_device, mut far)) = granted(client.resumes(id, Some(60)), async {
        sleep(Duration::from_millis(300)).await;
        let device = site.line(&pump, &[id]).await;
        let (_, far) = device.takes().await;
        (device, far)
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(30), "it was not woken");
    both_ways(&mut near, &mut far, b"back").await;
    assert_eq!(site.session(id).await.attachments, 2, "only one that got a line counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_line_is_not_waited_for_when_the_device_is_back_on_another() {
    let (site, pump) = standard("").await;
    let device = site.line(&pump, &[]).await;
    let Open1 { id, client, .. } = opened(&site, &device).await;
    // It takes the stream and answers nothing, as a line does whose far end is gone.
    let ((_, mut near), (_newer, mut far)) = granted(client.resumes(id, Some(60)), async {
        let (grant, _silent) = device.delivered().await;
        assert_eq!(grant.session, id);
        let newer = site.line(&pump, &[id]).await;
        let (_, far) = newer.takes().await;
        (newer, far)
    })
    .await;
    both_ways(&mut near, &mut far, b"over the newer line").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_over_a_line_that_has_a_successor_is_lost_at_once() {
    let (site, pump) = standard("").await;
    let device = site.line(&pump, &[]).await;
    let Open1 { id, client: _client, mut near, far: _far } = opened(&site, &device).await;
    let _newer = site.line(&pump, &[id]).await;
    near.breaks().await;
    let told = site.recorded(id, "session-detached").await;
    let why = told.last().unwrap().detail.clone().unwrap();
    assert!(why.starts_with("the device has another line"), "it waited for the old line: {why}");
}

/// By then the relay has heard what it was asked, however busy the machine is.
const HEARD: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn the_wait_ends_with_its_client_and_with_the_relay() {
    let (mut site, pump) = standard("sessions_per_user = 1\n").await;
    let device = site.line(&pump, &[]).await;
    let Open1 { id, client, .. } = opened(&site, &device).await;
    device.vanish().await;
    site.recorded(id, "session-detached").await;
    let began = Instant::now();
    {
        let impatient = site.root().await;
        let waiting = impatient.resumes(id, Some(60));
        assert!(timeout(HEARD, waiting).await.is_err());
        impatient.vanish().await;
    }
    let told = site.recorded(id, "session-refused").await;
    assert_eq!(told.last().unwrap().code.as_deref(), Some("busy"));
    let (answer, ()) = tokio::join!(client.resumes(id, Some(60)), async {
        sleep(HEARD).await;
        site.stop_relay().await;
    });
    assert_eq!(refusal(answer).code(), Code::Draining);
    assert!(began.elapsed() < Duration::from_secs(30), "somebody waited to the end");
    assert!(site.session(id).await.over.is_none(), "the session waits on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_what_was_granted_is_no_longer_allowed() {
    let (site, pump) = standard("").await;
    let olga = site.add_person("olga", vec![Role::Administrator]).await;
    let mut device = site.line(&pump, &[]).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let client = site.client(olga, "olga").await;
        let ((opened, near), (_, far)) = granted(client.opens("pump"), device.takes()).await;
        open.push((opened.session, client, near, far));
    }
    let (waits, gone, _, mut far) = open.remove(0);
    gone.vanish().await;
    far.breaks().await;
    site.recorded(waits, "session-detached").await;
    // Still an engineer of this device and login, but not with every action of an administrator.
    let roles = UserChange { roles: Some(engineer("site=oslo")), ..UserChange::default() };
    site.patch("/v1/users/olga", &roles).await;
    let (attached, mut client, mut near, mut far) = open.remove(0);
    let word = client.told().await;
    assert_eq!((word.session, word.reason.code()), (attached, Code::NotAllowed));
    near.breaks().await;
    far.breaks().await;
    let mut told = vec![device.told_to_end().await.unwrap().session];
    while told.len() < 2 {
        let next = device.told_to_end().await.unwrap().session;
        if !told.contains(&next) {
            told.push(next);
        }
    }
    assert!(told.contains(&waits) && told.contains(&attached));
    for id in [waits, attached] {
        site.recorded(id, "session-closed").await;
        let refused = refusal(client.resumes(id, None).await);
        assert_eq!(refused.code(), Code::SessionOver);
        assert!(refused.cause().contains("your permission changed"), "{refused}");
    }
    // What is allowed now opens.
    granted(client.opens("pump"), device.takes()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantined_device_is_told_to_end_its_sessions_before_its_line_ends() {
    let (site, pump) = standard("").await;
    let mut device = site.line(&pump, &[]).await;
    let first = opened(&site, &device).await;
    let second = opened(&site, &device).await;
    first.client.vanish().await;
    site.recorded(first.id, "session-detached").await;
    let status =
        DeviceChange { status: Some(DeviceStatus::Quarantined), ..DeviceChange::default() };
    site.patch("/v1/devices/pump", &status).await;
    let mut told = Vec::new();
    while let Some(ended) = device.told_to_end().await {
        told.push(ended.session);
    }
    assert!(told.contains(&first.id) && told.contains(&second.id), "{told:?}");
    for id in [first.id, second.id] {
        site.recorded(id, "session-closed").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn permission_that_ended_while_no_relay_ran_is_found_out() {
    let (mut site, pump) = standard("").await;
    let device = site.line(&pump, &[]).await;
    let Open1 { id, .. } = opened(&site, &device).await;
    site.add_person("two", vec![Role::Administrator]).await;
    site.stop_relay().await;
    let disable = UserChange { disabled: Some(true), ..UserChange::default() };
    let by = belay_relay::store::Actor::Machine;
    site.store.change_user("root".parse().unwrap(), disable, None, by).await.unwrap();
    site.start_relay().await;
    site.recorded(id, "session-closed").await;
    let mut device = site.line(&pump, &[id]).await;
    let ended = device.told_to_end().await.unwrap();
    assert_eq!((ended.session, ended.reason.cause().as_str()), (id, "your account is disabled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_device_ends_its_own_sessions_and_no_others() {
    let (site, pump) = standard("").await;
    let fan = site.add_device("fan").await;
    let fan = site.line(&fan, &[]).await;
    let mut device = site.line(&pump, &[]).await;
    let Open1 { id, mut client, mut near, mut far } = opened(&site, &device).await;
    fan.says_ended(id, "not its own");
    both_ways(&mut near, &mut far, b"unharmed").await;
    // Attached, and it breaks: its last bytes count, and its client hears why.
    device.says_ended(id, "killed\nby its owner");
    device.is_heard().await;
    far.says(b"last words").await;
    near.hears(b"last words").await;
    drop(far);
    let word = client.told().await;
    assert_eq!((word.session, word.reason.code()), (id, Code::SessionOver));
    assert_eq!(word.reason.cause(), "killed\u{fffd}by its owner");
    near.breaks().await;
    let told = site.recorded(id, "session-closed").await;
    let detail = told.last().unwrap().detail.as_deref().unwrap();
    assert!(detail.starts_with("ended by the device (killed\u{fffd}by its owner)"), "{detail}");
    assert!(detail.ends_with("8 bytes to the device, 18 from it"), "{detail}");
    // Without a stream.
    let Open1 { id, client, .. } = opened(&site, &device).await;
    client.vanish().await;
    site.recorded(id, "session-detached").await;
    fan.says_ended(id, "not its own");
    device.says_ended(id, "nobody came back");
    let told = site.recorded(id, "session-closed").await;
    let detail = told.last().unwrap().detail.as_deref().unwrap();
    assert_eq!(detail, "ended by the device while detached (nobody came back)");
}

#[tokio::test(flavor = "multi_thread")]
async fn words_about_sessions_nobody_knows_have_an_end() {
    let (site, pump) = standard("").await;
    let device = site.line(&pump, &[]).await;
    for _ in 0..1024 {
        device.says_ended(SessionId::from_uuid(Uuid::now_v7()), "x");
    }
    let Open1 { id, .. } = opened(&site, &device).await;
    device.says_ended(id, "its own counts for nothing");
    site.recorded(id, "session-closed").await;
    assert!(device.carrier.end().is_none(), "the line ended too soon");
    device.says_ended(id, "but not twice");
    soon("the line ends", device.carrier.closed()).await;
    let down = soon("it is recorded", async {
        loop {
            let all = site.store.decisions(0).await.unwrap();
            if let Some(down) = all.into_iter().find(|d| d.kind == "line-down") {
                return down;
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(down.await.detail.unwrap().contains("broke the protocol"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hello_brings_record_and_device_together() {
    let (site, pump) = standard("").await;
    let device = site.line(&pump, &[]).await;
    let kept = opened(&site, &device).await;
    let lost = opened(&site, &device).await;
    kept.client.vanish().await;
    lost.client.vanish().await;
    site.recorded(kept.id, "session-detached").await;
    site.recorded(lost.id, "session-detached").await;
    device.vanish().await;
    let unknown = SessionId::from_uuid(Uuid::now_v7());
    let mut device = site.line(&pump, &[kept.id, unknown]).await;
    let mut told = Vec::new();
    for _ in 0..2 {
        let ended = device.told_to_end().await.unwrap();
        assert_eq!(ended.reason.code(), Code::SessionOver);
        told.push(ended.session);
    }
    told.sort_unstable();
    let mut expected = [lost.id, unknown];
    expected.sort_unstable();
    assert_eq!(told, expected);
    assert_eq!(site.session(lost.id).await.over.unwrap().why, "ended while the line was down");
    assert!(site.session(kept.id).await.over.is_none());

    let too_many: Vec<_> =
        (0..=DEVICE_SESSIONS).map(|_| SessionId::from_uuid(Uuid::now_v7())).collect();
    let refused = refusal(site.try_line(&pump.1, &too_many).await);
    assert_eq!(refused.code(), Code::Protocol);
    assert!(site.session(kept.id).await.over.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_restarted_and_left_its_old_line_standing_has_no_sessions() {
    let (site, pump) = standard("").await;
    let device = site.line(&pump, &[]).await;
    let Open1 { id, mut client, mut near, far: _far } = opened(&site, &device).await;
    // Longer than a Hello may be under way: the device had the session when it wrote it.
    sleep(HELLO_DEADLINE + Duration::from_secs(2)).await;
    let young = opened(&site, &device).await;
    let mut device = site.line(&pump, &[]).await;
    near.breaks().await;
    assert_eq!(client.told().await.reason.cause(), "the device no longer has it");
    assert_eq!(device.told_to_end().await.unwrap().session, id);
    let told = site.recorded(id, "session-closed").await;
    assert_eq!(kinds(&told), ["session-opened", "session-closed"]);
    // One that may have been opened after the Hello was written is not taken for lost.
    site.recorded(young.id, "session-detached").await;
    assert!(site.session(young.id).await.over.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_device_does_not_take_is_over_or_waits_by_what_it_says() {
    let (site, pump) = standard("").await;
    let device = site.line(&pump, &[]).await;
    let client = site.root().await;
    let (answer, grant) =
        tokio::join!(client.opens("pump"), device.refuses(Code::LoginNotAllowed, "locked"));
    let refused = refusal(answer);
    assert_eq!(refused.to_string(), "pump refused: locked");
    let told = site.recorded(grant.session, "session-refused").await;
    assert_eq!(kinds(&told), ["session-opened", "session-refused"]);
    assert_eq!(site.session(grant.session).await.over.unwrap().why, "pump refused: locked");

    let Open1 { id, .. } = opened(&site, &device).await;
    let (answer, _) = tokio::join!(client.resumes(id, None), device.refuses(Code::Busy, "full"));
    assert_eq!(refusal(answer).code(), Code::Busy);
    assert!(site.session(id).await.over.is_none(), "busy passes");
    let over = device.refuses(Code::SessionOver, "no such session");
    let (answer, _) = tokio::join!(client.resumes(id, None), over);
    assert_eq!(refusal(answer).code(), Code::SessionOver);
    assert_eq!(site.session(id).await.over.unwrap().why, "pump refused: no such session");
    let open = site.store.open_sessions(Whose::All).await.unwrap();
    assert!(open.is_empty(), "{open:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_no_session_that_can_be_taken_up_again() {
    let (mut site, pump) = standard("drain_seconds = 3600\n").await;
    let device = site.line(&pump, &[]).await;
    let mut session = opened(&site, &device).await;
    site.stop_relay().await;
    session.near.breaks().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_a_session_go_on_that_nobody_could_take_up_again() {
    let settings = "drain_seconds = 3600\nresume_other_seconds = 0\n";
    let (mut site, pump) = standard(settings).await;
    let device = site.line(&pump, &[]).await;
    let Open1 { client: _client, mut near, mut far, .. } = opened(&site, &device).await;
    let newcomer = site.dialled(&pump.1);
    tokio::join!(site.stop_relay(), async {
        both_ways(&mut near, &mut far, b"not yet").await;
        // Neither taken in nor turned away: what it repeats is for the relay that follows.
        let unanswered = timeout(Duration::from_millis(700), newcomer).await;
        assert!(unanswered.is_err(), "a relay that stops answers a newcomer");
        both_ways(&mut near, &mut far, b"last words").await;
        near.send.finish();
        far.ends().await;
        far.send.finish();
        near.ends().await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_says_how_long_a_session_waits() {
    for (settings, windows) in [
        ("", ResumeWindows::default()),
        (
            "resume_interactive_seconds = 7\nresume_other_seconds = 0\n",
            ResumeWindows { interactive: 7, other: 0 },
        ),
        (
            "resume_interactive_seconds = 0\nresume_other_seconds = 0\n",
            ResumeWindows { interactive: 0, other: 0 },
        ),
    ] {
        let (site, pump) = standard(settings).await;
        let device = site.line(&pump, &[]).await;
        let client = site.root().await;
        let ((opened, _near), (grant, _far)) = granted(client.opens("pump"), device.takes()).await;
        assert_eq!(grant.windows, Some(windows));
        let kept = windows.interactive > 0;
        assert_eq!(opened.windows, kept.then_some(windows));
    }
}
