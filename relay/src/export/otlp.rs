//! OpenTelemetry logs: OTLP/HTTP 1.x in its JSON form, of which a log record is all that is needed
//! (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>). Small enough to be written by serde: the
//! SDK would bring a runtime of its own for it.

use std::borrow::Cow;

use axum::http::HeaderValue;
use axum::http::header::{AUTHORIZATION, HeaderMap};
use belay_tunnel::clock;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::entry::{self, Severity};
use super::{Batch, DeliverError};
use crate::outbound::Peer;

/// Longest reason of a receiver that is logged, in bytes.
const MAX_REASON: usize = 200;

pub(super) struct Sink {
    peer: Peer,
    bearer: Option<HeaderValue>,
    host: String,
}

/// The header for a token; `None` when it has what no header may have.
pub(super) fn bearer(token: &[u8]) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_bytes(&[b"Bearer ".as_slice(), token].concat()).ok()?;
    value.set_sensitive(true);
    (!token.is_empty()).then_some(value)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'l> {
    resource_logs: [ResourceLogs<'l>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceLogs<'l> {
    resource: Resource<'l>,
    scope_logs: [ScopeLogs<'l>; 1],
}

#[derive(Serialize)]
struct Resource<'l> {
    attributes: [Attribute<'l>; 3],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ScopeLogs<'l> {
    scope: Scope<'l>,
    log_records: Vec<Record<'l>>,
}

#[derive(Serialize)]
struct Scope<'l> {
    name: &'l str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Record<'l> {
    time_unix_nano: String,
    observed_time_unix_nano: &'l str,
    severity_number: u8,
    severity_text: &'static str,
    event_name: String,
    body: Any<'l>,
    attributes: Vec<Attribute<'l>>,
}

#[derive(Serialize)]
struct Attribute<'l> {
    key: Cow<'l, str>,
    value: Any<'l>,
}

/// A value, under the name of its kind.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Any<'l> {
    StringValue(Cow<'l, str>),
    /// As JSON of protocol buffers has numbers of 64 bits.
    IntValue(String),
}

/// What a receiver says that took a part only.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Answer {
    partial_success: Partial,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Partial {
    /// A number, or one in quotation marks, as JSON of protocol buffers has it.
    rejected_log_records: Value,
    error_message: String,
}

impl Sink {
    pub(super) fn new(peer: Peer, bearer: Option<HeaderValue>, host: &str) -> Self {
        Self { peer, bearer, host: host.to_owned() }
    }

    pub(super) async fn deliver(&self, batch: &Batch) -> Result<(), DeliverError> {
        let body = body(batch, &self.host)?;
        let mut headers = HeaderMap::new();
        headers.extend(self.bearer.clone().map(|bearer| (AUTHORIZATION, bearer)));
        let answer = self.peer.post("application/json", headers, body).await?;
        if !answer.status.is_success() {
            return Err(DeliverError::Status(self.peer.url().to_string(), answer.status));
        }
        // "The client MUST NOT retry the request when it receives a partial success response."
        let said: Answer = serde_json::from_slice(&answer.body).unwrap_or_default();
        let Partial { rejected_log_records: rejected, error_message } = said.partial_success;
        if rejected.as_u64().is_some_and(|n| n > 0) || rejected.as_str().is_some_and(|n| n != "0") {
            let mut why = belay_proto::error_line::printable(&error_message);
            why.truncate(why.floor_char_boundary(MAX_REASON));
            let (first, last) = (batch.first, batch.last);
            tracing::warn!(first, last, %rejected, why, "a collector did not keep all entries");
        }
        Ok(())
    }
}

fn text<'l>(key: impl Into<Cow<'l, str>>, value: impl Into<Cow<'l, str>>) -> Attribute<'l> {
    Attribute { key: key.into(), value: Any::StringValue(value.into()) }
}

fn body(batch: &Batch, host: &str) -> Result<Vec<u8>, DeliverError> {
    let observed = format!("{}000000000", clock::now().0);
    let mut log_records = Vec::with_capacity(batch.lines.len());
    for line in &batch.lines {
        let entry: belay_proto::audit::Entry =
            serde_json::from_str(line).map_err(DeliverError::Form)?;
        let (severity_number, severity_text) = match entry::severity(&entry) {
            Severity::Info => (9, "INFO"),
            Severity::Warning => (13, "WARN"),
            // What its data model maps syslog's alert to.
            Severity::Alert => (19, "ALERT"),
        };
        let seq = Any::IntValue(entry.seq.to_string());
        let mut attributes = vec![Attribute { key: "belay.seq".into(), value: seq }];
        for (name, value) in entry::fields(&entry) {
            attributes.push(text(format!("belay.{name}"), value));
        }
        log_records.push(Record {
            time_unix_nano: format!("{}000000000", entry.at.0),
            observed_time_unix_nano: &observed,
            severity_number,
            severity_text,
            event_name: format!("belay.{}", entry.kind),
            body: Any::StringValue(line.into()),
            attributes,
        });
    }
    let attributes = [
        text("service.name", "belay-relay"),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("server.address", host),
    ];
    let scope = Scope { name: batch.log.name() };
    let resource_logs = [ResourceLogs {
        resource: Resource { attributes },
        scope_logs: [ScopeLogs { scope, log_records }],
    }];
    serde_json::to_vec(&Request { resource_logs }).map_err(DeliverError::Form)
}
