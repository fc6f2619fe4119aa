//! Who is it? The answers to a client's attempts to authenticate.
//!
//! Only a certificate opens a session (in standard-input mode also a key named
//! on the command line), and only from it is the gate made. An offered key
//! proves nothing and changes nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use russh::keys::ssh_key::{Algorithm, PublicKey};
use russh::keys::{Certificate, HashAlg};
use russh::server::{Auth, PublicKeyOffer};
use russh::{MethodKind, MethodSet};

use super::cert::{self, Demand, Rights, Verified};
use super::handler::Handler;
use crate::worker::event::WorkerEvent;
use crate::worker::gate::Gate;
use crate::worker::{clock, lapse};

/// Why nobody is authenticated yet. Kept beside the handler, because the reason
/// is told when the session is over.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Of the last certificate that was judged.
    certificate: Option<String>,
    /// A key came without a certificate.
    bare_key: bool,
}

impl Refusals {
    /// One line with cause and remedy. Clients offer a certificate's key alone
    /// as well, so that comes last.
    pub(super) fn reason(&self) -> String {
        if let Some(reason) = &self.certificate {
            return reason.clone();
        }
        if lapse::seen() {
            return "the certificate is expired, or not valid yet, by the relay's clock: run `belay login`".to_owned();
        }
        if self.bare_key {
            return "a key without a certificate was offered: run `belay login` to get one"
                .to_owned();
        }
        "no certificate was offered: run `belay login` to get one".to_owned()
    }
}

impl Handler {
    /// RFC 4252, section 5, lets a server flush or disconnect when the user
    /// name changes; we admit only the first.
    pub(super) fn bind_user(&mut self, user: &str) -> bool {
        self.asked_user.get_or_insert_with(|| user.to_owned()) == user
    }

    /// Holder not proved yet: nothing is decided but which keys are worth a
    /// signature. Of a certificate, its own key is what is offered.
    pub(super) fn judge_offer(&self, offer: &PublicKeyOffer<'_>) -> Auth {
        let terms = self.shared.terms();
        let certifiable = !terms.authorities.is_empty()
            && matches!(offer.algorithm, Algorithm::Ed25519 | Algorithm::Ecdsa { .. });
        if certifiable || self.is_plain(offer.public_key) { Auth::Accept } else { Auth::reject() }
    }

    fn is_plain(&self, key: &PublicKey) -> bool {
        self.shared.terms().plain_keys.iter().any(|known| known.key_data() == key.key_data())
    }

    /// A key without a certificate, its holder proved.
    pub(super) async fn judge_key(&mut self, user: &str, key: &PublicKey) -> Auth {
        let granted = self.shared.terms().login == user;
        if self.bind_user(user) && granted && self.is_plain(key) {
            let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
            let key_id = String::new();
            return self
                .accept(Verified { fingerprint, key_id, serial: 0, rights: Rights::ALL })
                .await;
        }
        tracing::debug!("a key without a certificate was refused");
        self.shared.refusals().bare_key = true;
        Auth::reject()
    }

    /// A certificate, the holder of its key proved.
    pub(super) async fn judge_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Auth {
        if !self.bind_user(user) {
            let reason = "the user name was changed between two attempts: connect again";
            return self.refuse(reason.to_owned());
        }
        let terms = self.shared.terms();
        let demand = Demand {
            authorities: &terms.authorities,
            user: &terms.user,
            login: &terms.login,
            now: u64::try_from(clock::unix_now()).unwrap_or(0),
        };
        match cert::check(certificate, user, &demand) {
            Ok(verified) => self.accept(verified).await,
            Err(refusal) => self.refuse(refusal.to_string()),
        }
    }

    /// Authenticates nobody. SSH has no other way to tell a client *why* it was
    /// refused: a request for information that asks for none shows the reason
    /// (RFC 4256, section 3.2), and its answer is rejected.
    pub(super) fn show_refusal(&self, answered: bool) -> Auth {
        if answered {
            return Auth::Reject {
                proceed_with_methods: Some(MethodSet::from(&[MethodKind::PublicKey][..])),
                partial_success: false,
            };
        }
        let reason = self.shared.refusals().reason();
        Auth::Partial {
            name: "".into(),
            instructions: format!("belay: refused: {reason}").into(),
            prompts: (&[][..]).into(),
        }
    }

    fn refuse(&self, reason: String) -> Auth {
        tracing::info!(%reason, "certificate refused");
        self.shared.refusals().certificate = Some(reason);
        Auth::reject()
    }

    async fn accept(&mut self, verified: Verified) -> Auth {
        let Verified { fingerprint, key_id, serial, rights } = verified;
        let terms = self.shared.terms();
        tracing::info!(user = %terms.user, %fingerprint, %key_id, serial, "authenticated");
        let event =
            WorkerEvent::Authenticated { user: terms.user.clone(), fingerprint, key_id, serial };
        if let Err(denied) = self.shared.events.send(event).await {
            return self.refuse(denied.to_string());
        }
        let gate = Gate::new(terms.actions, rights, self.shared.events.clone());
        self.gate = Some(Arc::new(gate));
        self.shared.authenticated.store(true, Ordering::Relaxed);
        Auth::Accept
    }
}
