//! Random values of every message, and random bytes that come near to being one.

use std::time::Duration;

use belay_proto::grant::{Grant, SignedGrant};
use belay_proto::ids::{DeviceId, Epoch, RunId, SessionId, UserId};
use belay_proto::names::{DeviceName, Login, UserName};
use belay_proto::refusal::{Code, Refused};
use belay_proto::time::UnixTime;
use belay_proto::token::{Fingerprint, Invitation, Secret};
use belay_proto::wire::control::{
    Control, Ended, Hello, HelloAnswer, Renamed, Renew, Renewed, Run, Trust, Welcome,
};
use belay_proto::wire::open::{
    Accepted, Deliver, DeliverAnswer, Join, Open, OpenAnswer, Opened, Resume, ResumeWindows,
};
use minicbor::Encoder;
use minicbor::bytes::ByteVec;
use minicbor::data::Type;
use minicbor::encode::Write;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use uuid::Uuid;

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn time() -> impl Strategy<Value = UnixTime> {
    any::<u64>().prop_map(UnixTime)
}

fn bytes() -> impl Strategy<Value = ByteVec> {
    vec(any::<u8>(), 0..80).prop_map(ByteVec::from)
}

fn text() -> impl Strategy<Value = String> {
    any::<String>()
}

fn login() -> impl Strategy<Value = Login> {
    "[a-z_][a-z0-9_.-]{0,30}[$]?".prop_map(|s| s.parse().unwrap())
}

fn device_name() -> impl Strategy<Value = DeviceName> {
    "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?".prop_map(|s| s.parse().unwrap())
}

fn user_name() -> impl Strategy<Value = UserName> {
    "[a-z0-9][a-z0-9._@-]{0,63}".prop_map(|s| s.parse().unwrap())
}

/// As [`Refused::new`] makes them: both parts printable.
fn refused() -> impl Strategy<Value = Refused> {
    (any::<u16>(), text(), text(), any::<Option<u32>>()).prop_map(
        |(number, cause, remedy, wait)| {
            let refused = Refused::new(Code::from_number(number), cause, remedy);
            match wait {
                Some(ms) => refused.retry_after(Duration::from_millis(ms.into())),
                None => refused,
            }
        },
    )
}

fn trust() -> impl Strategy<Value = Trust> {
    (option::of(vec(text(), 0..3)), option::of(vec(bytes(), 0..3)))
        .prop_map(|(ssh_user_cas, grant_keys)| Trust { ssh_user_cas, grant_keys })
}

pub(crate) fn hello() -> impl Strategy<Value = Hello> {
    let versions = (any::<Option<u16>>(), any::<Option<u16>>());
    let texts = (any::<Option<String>>(), any::<Option<String>>(), any::<Option<String>>());
    let sessions = option::of(vec(uuid().prop_map(SessionId::from_uuid), 0..4));
    let run = (uuid(), option::of(uuid())).prop_map(|(this, before)| Run {
        this: RunId::from_uuid(this),
        before: before.map(RunId::from_uuid),
    });
    let keeping = (option::of(run), any::<Option<u32>>());
    let more = (any::<Option<Vec<String>>>(), any::<Option<String>>(), sessions, keeping);
    (versions, option::of(time()), texts, more).prop_map(
        |((newest, oldest), clock, (software, hostname, platform), more)| Hello {
            newest,
            oldest,
            clock,
            software,
            hostname,
            platform,
            capabilities: more.0,
            name: more.1,
            sessions: more.2,
            run: more.3.0,
            ask_seconds: more.3.1,
        },
    )
}

pub(crate) fn hello_answer() -> impl Strategy<Value = HelloAnswer> {
    let welcome = (
        any::<u16>(),
        time(),
        option::of(any::<u64>().prop_map(Epoch)),
        any::<Option<u32>>(),
        any::<Option<bool>>(),
        option::of(trust()),
        any::<Option<Vec<String>>>(),
    )
        .prop_map(|(version, clock, epoch, probe_seconds, renew_only, trust, capabilities)| {
            Welcome { version, clock, epoch, probe_seconds, renew_only, trust, capabilities }
        });
    (option::of(welcome), option::of(refused()))
        .prop_map(|(welcome, refused)| HelloAnswer { welcome, refused })
}

pub(crate) fn control() -> impl Strategy<Value = Control> {
    let renew = (bytes(), any::<Option<String>>())
        .prop_map(|(csr, ssh_host_key)| Renew { csr, ssh_host_key });
    let renewed = (uuid(), bytes(), any::<Option<String>>()).prop_map(
        |(device, certificate, ssh_host_certificate)| Renewed {
            device: DeviceId::from_uuid(device),
            certificate,
            ssh_host_certificate,
        },
    );
    let ended = (uuid(), refused())
        .prop_map(|(session, reason)| Ended { session: SessionId::from_uuid(session), reason });
    let renamed = (device_name(), text())
        .prop_map(|(name, ssh_host_certificate)| Renamed { name, ssh_host_certificate });
    (
        any::<Option<u64>>(),
        any::<Option<u64>>(),
        option::of(renew),
        option::of(renewed),
        option::of(refused()),
        option::of(trust()),
        option::of(ended),
        (option::of(renamed), any::<Option<u32>>()),
    )
        .prop_map(|(ping, pong, renew, renewed, goodbye, trust, ended, last)| Control {
            ping,
            pong,
            renew,
            renewed,
            goodbye,
            trust,
            ended,
            renamed: last.0,
            ask_seconds: last.1,
        })
}

pub(crate) fn open() -> impl Strategy<Value = Open> {
    let which = (uuid(), any::<Option<u32>>(), any::<Option<bool>>(), any::<Option<u32>>());
    let resume = which.prop_map(|(session, wait_seconds, anew, stream)| Resume {
        session: SessionId::from_uuid(session),
        wait_seconds,
        anew,
        stream,
    });
    let words = (any::<Option<String>>(), any::<Option<String>>(), any::<Option<String>>());
    let ends = (option::of(resume), option::of(join()));
    (words, option::of(login()), ends).prop_map(
        |((device, kind, break_glass), login, (resume, join))| Open {
            device,
            kind,
            login,
            resume,
            join,
            break_glass,
        },
    )
}

fn join() -> impl Strategy<Value = Join> {
    (uuid(), any::<Option<u32>>(), any::<Option<bool>>()).prop_map(
        |(session, terminal, read_only)| Join {
            session: SessionId::from_uuid(session),
            terminal,
            read_only,
        },
    )
}

fn windows() -> impl Strategy<Value = ResumeWindows> {
    any::<(u32, u32)>().prop_map(|(interactive, other)| ResumeWindows { interactive, other })
}

pub(crate) fn open_answer() -> impl Strategy<Value = OpenAnswer> {
    let more = (any::<Option<String>>(), option::of(bytes()), option::of(windows()));
    let opened = (uuid(), uuid(), more, any::<(Option<u32>, Option<String>)>()).prop_map(
        |(session, device, (device_name, grant, windows), (stream, break_glass))| Opened {
            session: SessionId::from_uuid(session),
            device: DeviceId::from_uuid(device),
            device_name,
            grant,
            windows,
            stream,
            break_glass,
        },
    );
    (option::of(opened), option::of(refused()))
        .prop_map(|(opened, refused)| OpenAnswer { opened, refused })
}

pub(crate) fn deliver() -> impl Strategy<Value = Deliver> {
    (bytes(), any::<Option<String>>())
        .prop_map(|(grant, break_glass)| Deliver { grant, break_glass })
}

pub(crate) fn deliver_answer() -> impl Strategy<Value = DeliverAnswer> {
    (any::<bool>(), option::of(refused()))
        .prop_map(|(yes, refused)| DeliverAnswer { accepted: yes.then_some(Accepted {}), refused })
}

pub(crate) fn grant() -> impl Strategy<Value = Grant> {
    let who = (uuid(), uuid(), uuid(), user_name(), login());
    let again = (any::<Option<bool>>(), option::of(windows()), any::<Option<bool>>());
    let again = (again.0, again.1, again.2, any::<Option<Vec<String>>>(), option::of(join()));
    let what = (text(), vec(text(), 0..5), any::<Option<Vec<String>>>(), again);
    (any::<u16>(), who, what, (time(), time(), time())).prop_map(
        |(version, (session, device, user, user_name, login), what, (issued, open_by, ends))| {
            Grant {
                version,
                session: SessionId::from_uuid(session),
                device: DeviceId::from_uuid(device),
                user: UserId::from_uuid(user),
                user_name,
                login,
                kind: what.0,
                actions: what.1,
                issued,
                open_by,
                ends,
                obligations: what.2,
                resume: what.3.0,
                windows: what.3.1,
                anew: what.3.2,
                recipients: what.3.3,
                joins: what.3.4,
            }
        },
    )
}

pub(crate) fn signed_grant() -> impl Strategy<Value = SignedGrant> {
    (bytes(), bytes()).prop_map(|(grant, signature)| SignedGrant { grant, signature })
}

pub(crate) fn invitation() -> impl Strategy<Value = Invitation> {
    ("[a-z0-9.-]{1,253}:[0-9]{1,5}", any::<[u8; 20]>(), any::<[u8; 8]>()).prop_map(
        |(relay, secret, ca)| Invitation {
            relay,
            ca: Fingerprint::of_certificate(&ca),
            secret: Secret::from_bytes(secret),
        },
    )
}

#[derive(Debug, Clone)]
enum Cbor {
    Int(u64),
    Negative(i64),
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Cbor>),
    Map(Vec<(u64, Cbor)>),
    Bool(bool),
    Null,
    Float(f64),
    /// A head of this type that promises what does not follow.
    Lie(Type, u64),
}

fn put<W: Write>(e: &mut Encoder<W>, value: &Cbor) {
    match value {
        Cbor::Int(n) => e.u64(*n).map(drop),
        Cbor::Negative(n) => e.i64(*n).map(drop),
        Cbor::Bytes(b) => e.bytes(b).map(drop),
        Cbor::Text(t) => e.str(t).map(drop),
        Cbor::Array(items) => {
            let head = e.array(items.len() as u64).map(drop);
            items.iter().for_each(|item| put(e, item));
            head
        }
        Cbor::Map(entries) => {
            let head = e.map(entries.len() as u64).map(drop);
            for (key, item) in entries {
                put(e, &Cbor::Int(*key));
                put(e, item);
            }
            head
        }
        Cbor::Bool(b) => e.bool(*b).map(drop),
        Cbor::Null => e.null().map(drop),
        Cbor::Float(f) => e.f64(*f).map(drop),
        Cbor::Lie(Type::Map, n) => e.map(*n).map(drop),
        Cbor::Lie(_, n) => e.array(*n).map(drop),
    }
    .ok()
    .expect("a Vec takes every byte");
}

/// CBOR whose maps have small ascending keys, as our messages have: it passes the shape check
/// often, so that the fields behind it are reached.
pub(crate) fn shaped() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        4 => any::<u64>().prop_map(Cbor::Int),
        1 => any::<i64>().prop_map(Cbor::Negative),
        4 => vec(any::<u8>(), 0..40).prop_map(Cbor::Bytes),
        2 => vec(any::<u8>(), 16).prop_map(Cbor::Bytes),
        4 => "[ -~]{0,40}".prop_map(Cbor::Text),
        2 => any::<String>().prop_map(Cbor::Text),
        1 => any::<bool>().prop_map(Cbor::Bool),
        1 => Just(Cbor::Null),
        1 => any::<f64>().prop_map(Cbor::Float),
        1 => any::<u64>().prop_map(|n| Cbor::Lie(Type::Map, n)),
        1 => any::<u64>().prop_map(|n| Cbor::Lie(Type::Array, n)),
    ];
    let value = leaf.prop_recursive(4, 40, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Cbor::Array),
            btree_map(0..13_u64, inner, 0..8).prop_map(|map| Cbor::Map(map.into_iter().collect())),
        ]
    });
    btree_map(0..13_u64, value, 0..9).prop_map(|map| {
        let mut out = Vec::new();
        put(&mut Encoder::new(&mut out), &Cbor::Map(map.into_iter().collect()));
        out
    })
}
