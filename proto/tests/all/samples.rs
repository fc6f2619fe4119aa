//! One fixed value of every message that travels, with every field set, and the sparse forms that
//! matter. Their bytes are frozen in `golden/v1/`: never change one, add a new one.

use belay_proto::grant::{Grant, SignedGrant};
use belay_proto::ids::{DeviceId, Epoch, RunId, SessionId, UserId};
use belay_proto::recording::{
    End, Opening, Segment, SignedSegment, Upload, Uploaded, VERSION as SEGMENT, stream,
};
use belay_proto::refusal::{Code, Refused};
use belay_proto::time::UnixTime;
use belay_proto::wire::control::{
    Control, Ended, Hello, HelloAnswer, Renamed, Renew, Renewed, Run, Trust, Welcome,
};
use belay_proto::wire::frame::{LENGTH_BYTES, decode_payload, encode_frame};
use belay_proto::wire::open::{
    Accepted, Deliver, DeliverAnswer, Join, Open, OpenAnswer, Opened, Resume, ResumeWindows, kind,
};
use minicbor::{Decode, Encode};
use uuid::Uuid;

/// A message and what must stay true of its bytes.
pub(crate) struct Sample {
    /// Its file, without `.hex`.
    pub(crate) file: &'static str,
    /// One line about it.
    pub(crate) what: &'static str,
    /// What today's encoder makes of it: the payload, without its length.
    pub(crate) encoded: Vec<u8>,
    /// Today's decoder on the frozen bytes; the error says how they differ.
    pub(crate) reads: Box<Reads>,
}

/// Reads bytes and compares.
pub(crate) type Reads = dyn Fn(&[u8]) -> Result<(), String>;

fn sample<M>(file: &'static str, what: &'static str, value: M) -> Sample
where
    M: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + std::fmt::Debug + 'static,
{
    let encoded = encode_frame(&value).unwrap()[LENGTH_BYTES..].to_vec();
    let reads = move |bytes: &[u8]| match decode_payload::<M>(bytes) {
        Ok(read) if read == value => Ok(()),
        Ok(read) => Err(format!("reads as {read:?}, not {value:?}")),
        Err(error) => Err(format!("cannot be read: {error} ({error:?})")),
    };
    Sample { file, what, encoded, reads: Box::new(reads) }
}

pub(crate) const DEVICE: DeviceId =
    DeviceId::from_uuid(Uuid::from_u128(0x0197_a3c2_7a30_7cc1_9d0e_3f2a_1b4c_5d6e));
const SESSION: SessionId =
    SessionId::from_uuid(Uuid::from_u128(0x0197_a3c2_8b41_7dd2_8e1f_4a3b_2c5d_6e7f));
const RUN: RunId = RunId::from_uuid(Uuid::from_u128(0x0197_a3c2_ad63_4ff4_a031_6c5d_4e7f_8091));
const RUN_BEFORE: RunId =
    RunId::from_uuid(Uuid::from_u128(0x0197_a3c2_be74_4005_b142_7d6e_5f80_91a2));
const USER: UserId = UserId::from_uuid(Uuid::from_u128(0x0197_a3c2_9c52_7ee3_9f20_5b4c_3d6e_7f80));

const SSH_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f ca";
const SSH_CERTIFICATE: &str = "ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5 pump-17";

fn refused() -> Refused {
    Refused::new(Code::Offline, "pump-17 is offline since 09:12", "wait, or ask its owner")
}

fn trust() -> Trust {
    Trust {
        ssh_user_cas: Some(vec![SSH_KEY.into()]),
        grant_keys: Some(vec![vec![0x5a; 32].into(), vec![0xa5; 32].into()]),
    }
}

pub(crate) fn grant() -> Grant {
    Grant {
        version: 1,
        session: SESSION,
        device: DEVICE,
        user: USER,
        user_name: "anna.berg@example.com".parse().unwrap(),
        login: "root".parse().unwrap(),
        kind: kind::SSH.into(),
        actions: ["shell", "exec", "sftp", "forward"].map(Into::into).to_vec(),
        issued: UnixTime(1_795_348_800),
        open_by: UnixTime(1_795_348_860),
        ends: UnixTime(1_795_392_000),
        obligations: None,
        resume: None,
        windows: None,
        anew: None,
        recipients: None,
        joins: None,
    }
}

pub(crate) fn signed_grant() -> SignedGrant {
    SignedGrant {
        grant: minicbor::to_vec(grant()).unwrap().into(),
        signature: (0..64).collect::<Vec<u8>>().into(),
    }
}

/// All of them, in the order a line sees them.
pub(crate) fn all() -> Vec<Sample> {
    [handshake(), control(), opening(), recordings()].into_iter().flatten().collect()
}

fn handshake() -> Vec<Sample> {
    let hello = Hello {
        newest: Some(1),
        oldest: Some(1),
        clock: Some(UnixTime(1_795_348_800)),
        software: Some("belay-agent/0.1.0".into()),
        hostname: Some("pump-17.oslo.example".into()),
        platform: Some("linux/aarch64".into()),
        capabilities: Some(vec!["resume".into()]),
        name: Some("pump-17".into()),
        sessions: None,
        run: None,
        ask_seconds: None,
    };
    let run = Run { this: RUN, before: Some(RUN_BEFORE) };
    let running = Hello { run: Some(run), ask_seconds: Some(120), ..hello.clone() };
    let holding = Hello { sessions: Some(vec![SESSION]), ..hello.clone() };
    let welcome = Welcome {
        version: 1,
        clock: UnixTime(1_795_348_801),
        epoch: Some(Epoch(3)),
        probe_seconds: Some(25),
        renew_only: Some(false),
        trust: Some(trust()),
        capabilities: Some(vec!["resume".into()]),
    };
    let short = Welcome {
        epoch: None,
        probe_seconds: None,
        renew_only: None,
        trust: None,
        capabilities: None,
        ..welcome.clone()
    };
    let answer = |welcome, refused| HelloAnswer { welcome, refused };
    vec![
        sample("hello", "Hello of a device", hello),
        sample("hello-holding", "Hello of a device that still has a session", holding),
        sample("hello-running", "Hello of a device that says which run it is", running),
        sample("hello-empty", "Hello with nothing in it: version 0", Hello::default()),
        sample("welcome", "HelloAnswer: a Welcome, every field", answer(Some(welcome), None)),
        sample("welcome-short", "HelloAnswer: a client's Welcome", answer(Some(short), None)),
        sample("hello-refused", "HelloAnswer: Refused", answer(None, Some(refused()))),
    ]
}

fn control() -> Vec<Sample> {
    let none = Control::default;
    let renew = Renew { csr: vec![0x30, 0x03, 1, 2, 3].into(), ssh_host_key: Some(SSH_KEY.into()) };
    let renewed = Renewed {
        device: DEVICE,
        certificate: vec![0x30, 0x02, 5, 0].into(),
        ssh_host_certificate: Some(SSH_CERTIFICATE.into()),
    };
    let renamed =
        Renamed { name: "pump-18".parse().unwrap(), ssh_host_certificate: SSH_CERTIFICATE.into() };
    let goodbye = Refused::new(Code::Draining, "the relay is shutting down", "");
    let slot = goodbye.clone().retry_after(std::time::Duration::from_millis(1_500));
    let ended = Ended { session: SESSION, reason: Refused::new(Code::UserDisabled, "", "") };
    vec![
        sample("ping", "Control: ping", Control { ping: Some(7), ..none() }),
        sample(
            "pong",
            "Control: pong of the largest number",
            Control { pong: Some(u64::MAX), ..none() },
        ),
        sample("renew", "Control: Renew", Control { renew: Some(renew), ..none() }),
        sample("renewed", "Control: Renewed", Control { renewed: Some(renewed), ..none() }),
        sample("goodbye", "Control: goodbye", Control { goodbye: Some(goodbye), ..none() }),
        sample(
            "goodbye-slot",
            "Control: goodbye, with when to dial again",
            Control { goodbye: Some(slot), ..none() },
        ),
        sample(
            "ask-seconds",
            "Control: a pong, and when to ask again",
            Control { pong: Some(7), ask_seconds: Some(285), ..none() },
        ),
        sample("trust", "Control: Trust", Control { trust: Some(trust()), ..none() }),
        sample(
            "ended",
            "Control: Ended, a refusal of a bare code",
            Control { ended: Some(ended), ..none() },
        ),
        sample("renamed", "Control: Renamed", Control { renamed: Some(renamed), ..none() }),
    ]
}

fn opening() -> Vec<Sample> {
    let open = Open {
        device: Some("pump-17".into()),
        kind: Some(kind::SSH.into()),
        login: Some("root".parse().unwrap()),
        resume: None,
        join: None,
        break_glass: None,
    };
    let breaking = Some("pump stands still".to_owned());
    let breaking = Open { break_glass: breaking, ..open.clone() };
    let join = Join { session: SESSION, terminal: Some(2), read_only: Some(true) };
    let joining = Open { join: Some(join.clone()), ..open.clone() };
    let again = Resume { session: SESSION, wait_seconds: Some(60), anew: None, stream: None };
    let taking = Resume { anew: Some(true), ..again.clone() };
    let taking = Open { resume: Some(taking), ..open.clone() };
    let later = Resume { stream: Some(2), ..again.clone() };
    let later = Open { resume: Some(later), ..open.clone() };
    let again = Open { resume: Some(again), ..open.clone() };
    let signed = minicbor::to_vec(signed_grant()).unwrap();
    let opened = Opened {
        session: SESSION,
        device: DEVICE,
        device_name: Some("pump-17".into()),
        grant: Some(signed.clone().into()),
        windows: None,
        stream: None,
        break_glass: None,
    };
    let told = Some("on record as break-glass".to_owned());
    let broken = Opened { break_glass: told, ..opened.clone() };
    let windows = Some(ResumeWindows::default());
    let resumable = Opened { windows, ..opened.clone() };
    let second = Opened { stream: Some(2), ..resumable.clone() };
    let resuming = Grant { resume: Some(true), windows, ..grant() };
    let anew = Grant { anew: Some(true), ..resuming.clone() };
    let sealing = Grant {
        obligations: Some(vec!["record".into(), "seal".into()]),
        recipients: Some(vec![format!("age1{}", "q".repeat(58))]),
        ..grant()
    };
    let joins = Grant { actions: vec!["join".into()], joins: Some(join), ..grant() };
    let obliged = Grant { obligations: Some(vec!["record".into()]), ..grant() };
    let typing = Some(vec!["record-required".into(), "record-input".into()]);
    let typing = Grant { obligations: typing, ..grant() };
    let (no, yes) = (Some(refused()), Some(Accepted {}));
    vec![
        sample("open", "Open", open),
        sample("open-break-glass", "Open: recorded or not, with the reason", breaking),
        sample(
            "opened-break-glass",
            "OpenAnswer: Opened, with who was told that the glass was broken",
            OpenAnswer { opened: Some(broken), refused: None },
        ),
        sample("open-resume", "Open: takes a session up again", again),
        sample("open-attach", "Open: takes a session over with a fresh stream", taking),
        sample("open-resume-stream", "Open: takes a session's second fresh stream up again", later),
        sample(
            "opened-stream",
            "OpenAnswer: Opened, with the stream's number",
            OpenAnswer { opened: Some(second), refused: None },
        ),
        sample(
            "opened-resumable",
            "OpenAnswer: Opened, to be taken up again",
            OpenAnswer { opened: Some(resumable), refused: None },
        ),
        sample("opened", "OpenAnswer: Opened", OpenAnswer { opened: Some(opened), refused: None }),
        sample(
            "open-refused",
            "OpenAnswer: Refused",
            OpenAnswer { opened: None, refused: no.clone() },
        ),
        sample("grant", "Grant: what is signed, its domain string not in it", grant()),
        sample("grant-obliged", "Grant with an obligation", obliged),
        sample("grant-resume", "Grant to take a session up again", resuming),
        sample("grant-sealing", "Grant that obliges to seal a recording", sealing),
        sample("grant-input", "Grant that obliges to record what is typed", typing),
        sample("grant-anew", "Grant to give a session a fresh stream", anew),
        sample("open-join", "Open: joins a terminal of another session, to look on", joining),
        sample("grant-joins", "Grant of a session that joins a terminal of another", joins),
        sample("signed-grant", "SignedGrant", signed_grant()),
        sample(
            "deliver-break-glass",
            "Deliver, with why the glass was broken",
            Deliver { grant: signed.clone().into(), break_glass: Some("pump stands still".into()) },
        ),
        sample("deliver", "Deliver", Deliver { grant: signed.into(), break_glass: None }),
        sample(
            "accepted",
            "DeliverAnswer: Accepted",
            DeliverAnswer { accepted: yes, refused: None },
        ),
        sample(
            "deliver-refused",
            "DeliverAnswer: Refused",
            DeliverAnswer { accepted: None, refused: no },
        ),
    ]
}

pub(crate) fn segment() -> Segment {
    Segment {
        version: SEGMENT,
        session: SESSION,
        device: DEVICE,
        number: 3,
        before: vec![7; 32].into(),
        track: 1,
        first_ms: 1_795_348_800_123,
        last_ms: 1_795_348_803_000,
        compressed: Some(true),
        sealed: None,
        end: None,
        payload: b"[0.000001,\"o\",\"$ \"]\n".to_vec().into(),
        key: None,
    }
}

fn recordings() -> Vec<Sample> {
    let sealed = Segment { sealed: Some(true), end: Some(End::Cut), ..segment() };
    let keyed = Segment { key: Some(b"age-encryption.org/v1\n".to_vec().into()), ..sealed.clone() };
    let encoded = minicbor::to_vec(segment()).unwrap();
    let signed = SignedSegment { segment: encoded.into(), signature: vec![9; 70].into() };
    let upload = Upload { segment: Some(minicbor::to_vec(&signed).unwrap().into()) };
    let uploaded = Uploaded { session: Some(SESSION), number: Some(3), refused: None };
    let refused = Uploaded { refused: Some(refused()), ..uploaded.clone() };
    let opening = Opening { kind: Some(stream::RECORDINGS.into()) };
    vec![
        sample(
            "segment",
            "Segment of a recording: what is signed, its domain not in it",
            segment(),
        ),
        sample("segment-end", "Segment, sealed, with which a recording ends that was cut", sealed),
        sample("segment-key", "Segment of a sealed recording, with its key", keyed),
        sample("signed-segment", "SignedSegment", signed),
        sample("opening", "Opening of a stream for recordings", opening),
        sample("upload", "Upload of a segment", upload),
        sample("uploaded", "Uploaded: it is on the disk", uploaded),
        sample("upload-refused", "Uploaded: it is not", refused),
    ]
}
