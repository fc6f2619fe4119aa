//! The HTTPS interface's bodies, frozen. Client and relay are upgraded at different times: what
//! one of them wrote in the first release, the other still reads.

use std::path::Path;

use belay_proto::api;
use belay_proto::policy::Role;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn frozen(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/v1/api")
        .join(name.to_owned() + ".json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn with_unknown(value: &Value) -> Value {
    let mut value = value.clone();
    value.as_object_mut().unwrap().insert("not_yet_invented".into(), Value::Bool(true));
    value
}

fn read<T: DeserializeOwned + Serialize>(name: &str) -> Value {
    let value = frozen(name);
    let read: T = serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(serde_json::to_value(read).unwrap(), value, "{name} is written differently now");
    value
}

/// A request: an unknown field is refused, so that a misspelt restriction never passes silently.
fn request<T: DeserializeOwned + Serialize>(name: &str) {
    let value = read::<T>(name);
    assert!(serde_json::from_value::<T>(with_unknown(&value)).is_err(), "{name} takes anything");
}

/// An answer: an unknown field is a newer relay's, and ignored.
fn answer<T: DeserializeOwned + Serialize>(name: &str) {
    let value = read::<T>(name);
    let again: T = serde_json::from_value(with_unknown(&value))
        .unwrap_or_else(|e| panic!("{name} of a newer relay: {e}"));
    assert_eq!(serde_json::to_value(again).unwrap(), value);
}

#[test]
fn requests_of_the_first_release_are_read_strictly() {
    request::<api::EnrolRequest>("enrol-request");
    request::<api::LoginRequest>("login-request-code");
    request::<api::LoginRequest>("login-request-password");
    request::<api::DeviceChange>("device-change");
    request::<api::TokenRequest>("token-request");
    request::<api::UserRequest>("user-request");
    request::<api::UserChange>("user-change");
    request::<api::LogEntriesRequest>("log-entries-request");
    request::<api::LogConsistencyRequest>("log-consistency-request");
    request::<api::LogInclusionRequest>("log-inclusion-request");
    request::<api::HoldRequest>("hold-request");
    request::<api::Reason>("reason");
    request::<api::KillRequest>("kill-request");
    request::<api::LogSessionRequest>("log-session-request");
    request::<api::EvidenceRequest>("evidence-request");
    request::<api::SearchRequest>("search-request");
    request::<api::SealedRequest>("sealed-request");
    request::<api::SessionsRequest>("sessions-request");
}

#[test]
fn answers_of_the_first_release_are_read_and_newer_ones_too() {
    answer::<api::ApiError>("error");
    answer::<api::EnrolAnswer>("enrol-answer");
    answer::<api::LoginAnswer>("login-answer");
    answer::<api::WhoAmI>("whoami");
    answer::<api::Device>("device");
    answer::<api::TokenAnswer>("token-answer");
    answer::<api::UserAnswer>("user-answer");
    answer::<api::User>("user");
    answer::<api::User>("user-auditor");
    answer::<api::User>("user-break-glass");
    answer::<api::UserChanged>("user-changed");
    answer::<api::LogCheckpoint>("log-checkpoint");
    answer::<api::LogCheckpoint>("log-checkpoint-cosigned");
    answer::<api::Hold>("hold");
    answer::<api::RecordingDeleted>("recording-deleted");
    answer::<api::LogEntries>("log-entries");
    answer::<api::LogProof>("log-proof");
    answer::<api::Recording>("recording");
    answer::<api::Killed>("killed");
    answer::<api::LogSession>("log-session");
    answer::<api::Evidence>("evidence");
    answer::<api::SessionFacts>("session-facts");
    answer::<api::SearchAnswer>("search-answer");
    answer::<api::SealedPage>("sealed-page");
    answer::<api::Session>("session");
    answer::<api::Session>("session-break-glass");
    answer::<api::SessionsPage>("sessions-page");
}

#[test]
fn every_path_is_the_one_of_the_first_release() {
    use api::path::{
        DEVICE, DEVICES, ENROL, LOGIN, RECORDING, RECORDINGS, TOKENS, USER, USERS, WHOAMI,
    };
    assert_eq!(
        [ENROL, LOGIN, WHOAMI, DEVICES, DEVICE, TOKENS, USERS, USER, RECORDINGS, RECORDING],
        [
            "/v1/enrol",
            "/v1/login",
            "/v1/whoami",
            "/v1/devices",
            "/v1/devices/{device}",
            "/v1/tokens",
            "/v1/users",
            "/v1/users/{user}",
            "/v1/recordings",
            "/v1/recordings/{session}/{from}"
        ]
    );
    assert_eq!(api::path::RECORDING_LIVE, "/v1/recordings/{session}/{from}/live");
    use api::path::{EVIDENCE, LOG_SESSION, SEARCH};
    assert_eq!(
        [LOG_SESSION, EVIDENCE, SEARCH],
        ["/v1/audit/session", "/v1/evidence", "/v1/search"]
    );
    assert_eq!(api::path::SEARCH_SEALED, "/v1/search/sealed");
    use api::path::{SESSION, SESSION_KILL, SESSIONS, SESSIONS_ALL};
    assert_eq!(
        [SESSIONS, SESSION, SESSIONS_ALL, SESSION_KILL],
        [
            "/v1/sessions",
            "/v1/sessions/{session}",
            "/v1/sessions/all",
            "/v1/sessions/{session}/kill"
        ]
    );
    use api::path::{LOG_CHECKPOINT, LOG_CONSISTENCY, LOG_ENTRIES, LOG_INCLUSION};
    assert_eq!(
        [LOG_CHECKPOINT, LOG_ENTRIES, LOG_CONSISTENCY, LOG_INCLUSION],
        [
            "/v1/audit/checkpoint",
            "/v1/audit/entries",
            "/v1/audit/consistency",
            "/v1/audit/inclusion"
        ]
    );
}

/// A role that is misspelt, or of a later version, must never be read as a wider one.
#[test]
fn a_role_with_anything_unknown_is_refused() {
    for text in [
        r#"{"role":"owner"}"#,
        r#"{"role":"auditor","selector":{"site":"oslo"}}"#,
        r#"{"role":"engineer","selector":{"site":"oslo"}}"#,
        r#"{"role":"engineer","selector":{"site":"oslo"},"logins":["root"],"hours":"9-17"}"#,
        r#"{"role":"engineer","selector":{"Site":"oslo"},"logins":["root"]}"#,
        r#"{"role":"engineer","selector":"site=oslo","logins":["root"]}"#,
        r#"{"role":"administrator","selector":{"site":"oslo"}}"#,
        r#"{"role":"administrator","until":1795392000}"#,
        r#"{}"#,
    ] {
        assert!(serde_json::from_str::<Role>(text).is_err(), "{text}");
    }
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    for name in ["login-request-code", "login-request-password"] {
        let request: api::LoginRequest = serde_json::from_value(frozen(name)).unwrap();
        let shown = format!("{request:?}");
        assert!(shown.contains("***") && !shown.contains("correct horse"), "{shown}");
    }
}
