//! The relay's own certificate: made at start for a key that never leaves memory, and made anew at
//! two thirds of its life while everything runs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use belay_proto::error_line::one_line;
use belay_proto::time::UnixTime;
use belay_tunnel::{clock, tls};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;

use super::{Authority, IssueError, RELAY_LIFE};

/// How often to look at the wall clock. It may jump, and a laptop's relay may sleep.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// The relay's certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RelayCertificateError {
    /// The CA did not issue it.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// TLS does not take it.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
}

struct Current {
    key: Arc<CertifiedKey>,
    ends: UnixTime,
}

/// Answers every listener's question for a certificate. Give it to each as its resolver.
pub struct RelayCertificate {
    authority: Arc<Authority>,
    current: ArcSwap<Current>,
}

impl RelayCertificate {
    /// Makes the first certificate.
    ///
    /// # Errors
    /// [`RelayCertificateError`].
    pub fn new(
        authority: Arc<Authority>,
        now: UnixTime,
    ) -> Result<Arc<Self>, RelayCertificateError> {
        let current = ArcSwap::from_pointee(issue(&authority, now)?);
        Ok(Arc::new(Self { authority, current }))
    }

    /// Last second of the certificate in use.
    pub fn ends(&self) -> UnixTime {
        self.current.load().ends
    }

    /// Makes a new one when less than a third of its life is left (or the clock went back behind
    /// its beginning). Whether it did.
    ///
    /// # Errors
    /// [`RelayCertificateError`]; the old one stays in use.
    pub fn renew_if_due(&self, now: UnixTime) -> Result<bool, RelayCertificateError> {
        let ends = self.ends();
        let due = now >= ends.minus(RELAY_LIFE / 3) || now.plus(RELAY_LIFE) < ends;
        if due {
            self.current.store(Arc::new(issue(&self.authority, now)?));
        }
        Ok(due)
    }

    /// Keeps it fresh until cancelled.
    pub async fn keep_fresh(&self, cancel: CancellationToken) {
        let look = async {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                match self.renew_if_due(clock::now()) {
                    Ok(true) => tracing::info!(until = self.ends().0, "relay certificate renewed"),
                    Ok(false) => {}
                    Err(error) => {
                        tracing::error!(error = %one_line(&error), "relay certificate not renewed");
                    }
                }
            }
        };
        cancel.run_until_cancelled(look).await;
    }
}

fn issue(authority: &Authority, now: UnixTime) -> Result<Current, RelayCertificateError> {
    let own = authority.issue_relay(now)?;
    let key = tls::relay_key(own.certificate, authority.ca().clone(), &own.key)?;
    Ok(Current { key: Arc::new(key), ends: own.ends })
}

impl ResolvesServerCert for RelayCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().key.clone())
    }
}

impl fmt::Debug for RelayCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelayCertificate(until {})", self.ends().0)
    }
}
