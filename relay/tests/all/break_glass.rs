//! A session that need not be recorded where sessions must: who gets it, what is made of it, and who
//! hears of it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use belay_proto::api::{Session, UserChange};
use belay_proto::grant::{Grant, SignedGrant};
use belay_proto::policy::Role;
use belay_proto::recording::obligation;
use belay_proto::refusal::{Code, Refused};
use belay_proto::wire::control::capability;
use belay_proto::wire::frame::decode_payload;
use belay_proto::wire::open::{Accepted, Deliver, DeliverAnswer, Open, Opened, kind};
use belay_tunnel::framed;

use crate::lines::{Client, Device, Site, soon};
use crate::sessions::{granted, kinds, refusal, standard};
use crate::stream::Stream;

const REASON: &str = "pump 17 stands still";
const REQUIRED: &str = "recording = \"required\"\n";
const AUDREY: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

fn engineer(break_glass: bool) -> Vec<Role> {
    let (selector, logins) = ("site=oslo".parse().unwrap(), ["support".parse().unwrap()].into());
    vec![Role::Engineer { selector, logins, break_glass }]
}

/// Asks for a session that may go unrecorded, and says why.
async fn breaks(client: &Client, reason: &str) -> Result<(Opened, Stream), Refused> {
    let open = Open {
        device: Some("pump".to_owned()),
        kind: Some(kind::SSH.to_owned()),
        login: Some("support".parse().unwrap()),
        break_glass: Some(reason.to_owned()),
        ..Open::default()
    };
    client.asks(&open).await
}

/// The next session a device takes, and why the glass was broken for it.
async fn takes_with_note(device: &Device) -> (Grant, Stream, Option<String>) {
    let (mut send, mut recv) = soon("a delivery", device.carrier.accept()).await.unwrap();
    let deliver: Deliver = framed::read(&mut recv).await.unwrap();
    let answer = DeliverAnswer { accepted: Some(Accepted {}), refused: None };
    framed::write(&mut send, &answer).await.unwrap();
    let signed: SignedGrant = decode_payload(&deliver.grant).unwrap();
    (decode_payload(&signed.grant).unwrap(), Stream { send, recv }, deliver.break_glass)
}

async fn labelled(site: &Site) {
    let labels = [("site".parse().unwrap(), "oslo".parse().unwrap())].into();
    let labels = belay_proto::api::DeviceChange { set_labels: labels, ..Default::default() };
    site.patch("/v1/devices/pump", &labels).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_cannot_record_is_opened_for_a_reason_and_that_is_on_record_first() {
    let (site, pump) = standard(REQUIRED).await;
    let device = site.line(&pump, &[]).await;
    let client = site.root().await;
    let refused = refusal(client.opens("pump").await);
    assert!(refused.to_string().contains("--break-glass"), "{refused}");
    let asked = breaks(&client, REASON);
    let ((opened, _near), (grant, _far, note)) = granted(asked, takes_with_note(&device)).await;
    assert_eq!(grant.obligations, None);
    assert_eq!(note.as_deref(), Some(REASON));
    let told = opened.break_glass.unwrap();
    assert!(told.contains("audit log") && !told.contains("not needed"), "{told}");
    let told = site.recorded(opened.session, "session-opened").await;
    assert_eq!(kinds(&told), ["break-glass", "session-opened"]);
    assert_eq!(told[0].detail.as_deref(), Some(REASON));
    assert_eq!((told[0].user, told[0].device), (told[1].user, told[1].device));
    assert_eq!(
        (told[0].login.as_deref(), told[0].source.clone()),
        (Some("support"), told[1].source.clone())
    );
    assert!(told[0].user.is_some() && told[0].source.is_some());
    assert_eq!(site.session(opened.session).await.break_glass.as_deref(), Some(REASON));
    let answer = site.administer("GET", "/v1/sessions", None::<&()>).await;
    let listed: Vec<Session> = answer.json();
    assert_eq!(listed[0].break_glass.as_deref(), Some(REASON));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_recorded_is_and_sealed_where_it_must_be() {
    let sealed = format!("{REQUIRED}recording_recipients = [\"{AUDREY}\"]\n");
    let records = [capability::ATTACH, capability::RECORD];
    let seals = [capability::ATTACH, capability::RECORD, capability::SEAL];
    for (settings, can, wanted, recipients) in [
        (REQUIRED, &records[..], Some(vec![obligation::RECORD]), 0),
        (&sealed[..], &seals[..], Some(vec![obligation::RECORD, obligation::SEAL]), 1),
        // Nothing is recorded in plain.
        (&sealed[..], &records[..], None, 0),
    ] {
        let (site, pump) = standard(settings).await;
        let device = site.capable_line(&pump, &[], can).await;
        let client = site.root().await;
        let asked = breaks(&client, REASON);
        let ((opened, _near), (grant, _far)) = granted(asked, device.takes()).await;
        let obliged = grant.obligations.clone();
        let obliged: Option<Vec<&str>> =
            obliged.as_ref().map(|all| all.iter().map(String::as_str).collect());
        assert_eq!(obliged, wanted, "{settings}");
        assert_eq!(grant.recipients.clone().unwrap_or_default().len(), recipients);
        // Once more, and it is still so.
        client.vanish().await;
        site.recorded(opened.session, "session-detached").await;
        let client = site.root().await;
        let again = client.resumes(opened.session, None);
        let (_, (grant, _far)) = granted(again, device.takes()).await;
        let obliged = grant.obligations.clone();
        let obliged: Option<Vec<&str>> =
            obliged.as_ref().map(|all| all.iter().map(String::as_str).collect());
        assert_eq!(obliged, wanted, "{settings}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_refused_and_whose_right_goes_is_cut() {
    let (site, pump) = standard(REQUIRED).await;
    labelled(&site).await;
    let device = site.recording_line(&pump, &[]).await;
    let eli = site.add_person("eli", engineer(false)).await;
    let client = site.client(eli, "eli").await;
    let refused = refusal(breaks(&client, REASON).await);
    assert_eq!(refused.code(), Code::NotAllowed);
    assert!(refused.to_string().contains("break the glass"), "{refused}");
    let all = site.store.decisions(0).await.unwrap();
    let on_record = all.iter().rev().find(|d| d.kind == "session-refused").unwrap();
    assert_eq!((on_record.user, on_record.code.as_deref()), (Some(eli), Some("not-allowed")));
    assert!(all.iter().all(|d| d.kind != "break-glass"), "nothing was broken");
    // An ordinary session is theirs.
    granted(client.opens("pump"), device.takes()).await;

    let may = UserChange { roles: Some(engineer(true)), ..UserChange::default() };
    site.patch("/v1/users/eli", &may).await;
    let asked = breaks(&client, REASON);
    let ((opened, _near), (grant, _far)) = granted(asked, device.takes()).await;
    assert_eq!(grant.obligations.clone().unwrap(), [obligation::RECORD]);
    let may_not = UserChange { roles: Some(engineer(false)), ..UserChange::default() };
    site.patch("/v1/users/eli", &may_not).await;
    site.recorded(opened.session, "session-closed").await;
    let why = site.session(opened.session).await.over.unwrap().why;
    assert!(why.contains("break the glass"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_that_says_nothing_opens_nothing_and_one_that_was_not_needed_is_an_alarm_too() {
    let (site, pump) = standard("").await;
    let device = site.line(&pump, &[]).await;
    let client = site.root().await;
    for bad in ["", "because", "two\nlines of it", &"x".repeat(300)] {
        assert_eq!(refusal(breaks(&client, bad).await).code(), Code::BadRequest);
    }
    let asked = breaks(&client, REASON);
    let ((opened, _near), _) = granted(asked, device.takes()).await;
    let told = opened.break_glass.unwrap();
    assert!(told.contains("it was not needed"), "{told}");
    let told = site.recorded(opened.session, "session-opened").await;
    assert_eq!(kinds(&told), ["break-glass", "session-opened"]);
}
