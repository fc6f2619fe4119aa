//! Was a certificate out of its time?
//!
//! The SSH library judges a certificate's validity before it asks us, rejects
//! one that is expired or not valid yet, and says so in its log alone. The
//! engineer is owed the reason, so this layer of our log listens for that one
//! line. It decides nothing: without it the same certificate is refused with a
//! vaguer reason. The library's version is pinned, and a test holds the line.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

const LINE: &str = "Certificate is expired or not yet valid";

/// A worker serves one connection at a time, so one answer serves the process.
static SEEN: AtomicBool = AtomicBool::new(false);

/// A new connection begins: what was seen was another's certificate.
pub(super) fn forget() {
    SEEN.store(false, Ordering::Relaxed);
}

pub(super) fn seen() -> bool {
    SEEN.load(Ordering::Relaxed)
}

/// To be filtered to warnings: every event it is shown costs a comparison.
pub(super) struct Watch;

impl<S: Subscriber> Layer<S> for Watch {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut found = Found(false);
        event.record(&mut found);
        if found.0 {
            SEEN.store(true, Ordering::Relaxed);
        }
    }
}

struct Found(bool);

impl Visit for Found {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" && format!("{value:?}") == LINE {
            self.0 = true;
        }
    }
}
