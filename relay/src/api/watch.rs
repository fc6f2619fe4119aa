//! `/v1/recordings/{session}/{from}/live`: a recording as it grows.
//!
//! One question waits until there is more, for [`WATCH_WAIT`] at most; then it is asked again. Its law:
//! that somebody watches is on record before they have anything; one record covers ten minutes of it.
//! What it is not: nothing else than what the disk has is given, so that who watches verifies it as
//! it is verified later.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use belay_proto::ids::SessionId;
use belay_proto::refusal::{Code, Refused};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::recordings::read;
use super::{Api, Caller, Failure};
use crate::store::{EventKind, SessionRecord, StoreError};

/// How long a question waits at most: well below what a client or a proxy takes for silence.
pub const WATCH_WAIT: Duration = Duration::from_secs(20);

pub(super) async fn next(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path((session, from)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let none = || {
        let cause = format!("there is no recording of session {session}");
        Refused::new(Code::BadRequest, cause, "belay sessions lists those that are open")
    };
    let (Ok(id), Ok(from)) = (session.parse::<SessionId>(), from.parse::<u64>()) else {
        return Err(none().into());
    };
    let record = api.store.session(id).await.map_err(store)?.ok_or_else(none)?;
    reading(&api, &caller, &record, from).await?;
    let watching = &api.recordings.watching;
    let grown = watching.enter(id, caller.user.id).map_err(|full| {
        Refused::new(Code::Busy, full.to_string(), "try again when somebody has seen enough")
    })?;
    let deadline = Instant::now() + WATCH_WAIT;
    loop {
        let woken = grown.notified();
        tokio::pin!(woken);
        // From here on a segment is heard of; before, it is found.
        woken.as_mut().enable();
        let recordings = Arc::clone(&api.recordings);
        let page = read(spawn_blocking(move || recordings.page(id, from)).await)?;
        let bytes = match page {
            Some(bytes) => bytes,
            // Its device has brought nothing yet, or never will.
            None if record.over.is_none() => Vec::new(),
            None => return Err(none().into()),
        };
        if bytes.is_empty() {
            // Nothing new, or a device that is gone and was not missed yet: it is asked.
            api.presence.line(record.device);
        }
        let is_over = !bytes.is_empty() || watching.is_stopped();
        if is_over || timeout_at(deadline, woken).await.is_err() {
            return Ok(([(CONTENT_TYPE, "application/octet-stream")], bytes).into_response());
        }
    }
}

/// Records that this person watches this session.
async fn reading(
    api: &Api,
    caller: &Caller,
    record: &SessionRecord,
    from: u64,
) -> Result<(), Failure> {
    if api.readings.watches(caller.user.id, record.id) {
        return Ok(());
    }
    let detail = format!("its recording as it grows, from byte {from}, for ten minutes");
    let event = caller.actor().event(EventKind::EvidenceRead).session(record.id);
    api.store.record(event.device(record.device).detail(&detail)).await.map_err(store)?;
    api.readings.begun_to_watch(caller.user.id, record.id);
    Ok(())
}

fn store(error: StoreError) -> Refused {
    Refused::from(&error)
}
