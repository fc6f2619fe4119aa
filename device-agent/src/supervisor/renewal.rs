//! When to ask for the next certificate: at two thirds of this one's life.

use std::time::Duration;

use belay_proto::time::UnixTime;
use belay_tunnel::pki::PeerCertificate;

/// After a refusal or a lost answer, ask again this much later.
pub(super) const AGAIN: Duration = Duration::from_secs(3600);

/// How long from `now` until the certificate is due for renewal; zero when it is overdue.
pub(super) fn due_in(certificate: &PeerCertificate, now: UnixTime) -> Duration {
    let life = certificate.not_before.distance(certificate.not_after);
    let due = certificate.not_before.plus(life * 2 / 3);
    Duration::from_secs(due.0.saturating_sub(now.0))
}
