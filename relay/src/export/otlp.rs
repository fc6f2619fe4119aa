//! OpenTelemetry logs: OTLP/HTTP 1.x in its JSON form, of which a log record is all that is needed
//! (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>). Small enough to be written by serde: the
//! SDK would bring a runtime of its own for it.

use axum::http::HeaderValue;
use axum::http::header::{AUTHORIZATION, HeaderMap};
use belay_tunnel::clock;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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
struct Record<'l> {
    time_unix_nano: String,
    observed_time_unix_nano: String,
    severity_number: u8,
    severity_text: &'static str,
    event_name: String,
    body: Text<'l>,
    attributes: Vec<Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Text<'l> {
    string_value: &'l str,
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
        let body = serde_json::to_vec(&request(batch, &self.host)?).map_err(DeliverError::Form)?;
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

fn attribute(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn request(batch: &Batch, host: &str) -> Result<Value, DeliverError> {
    let observed = format!("{}000000000", clock::now().0);
    let mut records = Vec::with_capacity(batch.lines.len());
    for line in &batch.lines {
        let entry: belay_proto::audit::Entry =
            serde_json::from_str(line).map_err(DeliverError::Form)?;
        let (severity_number, severity_text) = match entry::severity(&entry) {
            Severity::Info => (9, "INFO"),
            Severity::Warning => (13, "WARN"),
            // What its data model maps syslog's alert to.
            Severity::Alert => (19, "ALERT"),
        };
        let mut attributes = vec![json!({
            "key": "belay.seq", "value": {"intValue": entry.seq.to_string()},
        })];
        for (name, value) in entry::fields(&entry) {
            attributes.push(attribute(&format!("belay.{name}"), &value));
        }
        let record = Record {
            time_unix_nano: format!("{}000000000", entry.at.0),
            observed_time_unix_nano: observed.clone(),
            severity_number,
            severity_text,
            event_name: format!("belay.{}", entry.kind),
            body: Text { string_value: line },
            attributes,
        };
        records.push(serde_json::to_value(record).map_err(DeliverError::Form)?);
    }
    Ok(json!({"resourceLogs": [{
        "resource": {"attributes": [
            attribute("service.name", "belay-relay"),
            attribute("service.version", env!("CARGO_PKG_VERSION")),
            attribute("server.address", host),
        ]},
        "scopeLogs": [{"scope": {"name": batch.log.name()}, "logRecords": records}],
    }]}))
}
