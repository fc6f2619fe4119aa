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
use crate::worker::clock;
use crate::worker::event::WorkerEvent;
use crate::worker::gate::Gate;

/// What is remembered of a client's attempts.
#[derive(Default)]
pub(super) struct Attempts {
    /// The first user name asked for; another one later is refused.
    user: Option<String>,
    /// Why the last attempt failed, for the engineer to read.
    refusal: Option<String>,
}

impl Handler {
    /// RFC 4252, section 5, lets a server flush or disconnect when the user
    /// name changes; we admit only the first.
    pub(super) fn bind_user(&mut self, user: &str) -> bool {
        self.attempts.user.get_or_insert_with(|| user.to_owned()) == user
    }

    /// Holder not proved yet: nothing is decided but which keys are worth a
    /// signature. Of a certificate, its own key is what is offered.
    pub(super) fn judge_offer(&self, offer: &PublicKeyOffer<'_>) -> Auth {
        let terms = &self.shared.terms;
        let certifiable = !terms.authorities.is_empty()
            && matches!(offer.algorithm, Algorithm::Ed25519 | Algorithm::Ecdsa { .. });
        if certifiable || self.is_plain(offer.public_key) { Auth::Accept } else { Auth::reject() }
    }

    fn is_plain(&self, key: &PublicKey) -> bool {
        self.shared.terms.plain_keys.iter().any(|known| known.key_data() == key.key_data())
    }

    /// A key without a certificate, its holder proved.
    pub(super) async fn judge_key(&mut self, user: &str, key: &PublicKey) -> Auth {
        let granted = self.shared.terms.login == user;
        if self.bind_user(user) && granted && self.is_plain(key) {
            let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
            let key_id = String::new();
            return self
                .accept(Verified { fingerprint, key_id, serial: 0, rights: Rights::ALL })
                .await;
        }
        let reason = "a key without a certificate was offered: run `belay login` to get one";
        // Clients try the bare key after its certificate: that one's refusal
        // says more.
        let earlier = self.attempts.refusal.take();
        let rejected = self.refuse(reason.to_owned()).await;
        self.attempts.refusal = earlier.or(self.attempts.refusal.take());
        rejected
    }

    /// A certificate, the holder of its key proved.
    pub(super) async fn judge_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Auth {
        if !self.bind_user(user) {
            let reason = "the user name was changed between two attempts: connect again";
            return self.refuse(reason.to_owned()).await;
        }
        let terms = &self.shared.terms;
        let demand = Demand {
            authorities: &terms.authorities,
            user: &terms.user,
            login: &terms.login,
            now: u64::try_from(clock::unix_now()).unwrap_or(0),
        };
        match cert::check(certificate, user, &demand) {
            Ok(verified) => self.accept(verified).await,
            Err(refusal) => self.refuse(refusal.to_string()).await,
        }
    }

    /// Authenticates nobody. SSH has no other way to tell a client *why* it was
    /// refused: a request for information that asks for none shows the reason
    /// (RFC 4256, section 3.2), and its answer is rejected.
    pub(super) fn show_refusal(&mut self, answered: bool) -> Auth {
        if answered {
            return Auth::Reject {
                proceed_with_methods: Some(MethodSet::from(&[MethodKind::PublicKey][..])),
                partial_success: false,
            };
        }
        // The library judges validity before it asks us, so a certificate out
        // of its time leaves no reason behind.
        let reason = self.attempts.refusal.take().unwrap_or_else(|| {
            "no valid certificate was offered (none, expired, or not valid yet): run `belay login`".to_owned()
        });
        Auth::Partial {
            name: "".into(),
            instructions: format!("belay: refused: {reason}").into(),
            prompts: (&[][..]).into(),
        }
    }

    async fn refuse(&mut self, reason: String) -> Auth {
        tracing::info!(%reason, "authentication refused");
        let event = WorkerEvent::Refused { reason: reason.clone() };
        if self.shared.events.send(event).await.is_err() {
            tracing::warn!("no supervisor to tell of a refusal");
        }
        self.attempts.refusal = Some(reason);
        Auth::reject()
    }

    async fn accept(&mut self, verified: Verified) -> Auth {
        let Verified { fingerprint, key_id, serial, rights } = verified;
        let terms = &self.shared.terms;
        tracing::info!(user = %terms.user, %fingerprint, %key_id, serial, "authenticated");
        let event =
            WorkerEvent::Authenticated { user: terms.user.clone(), fingerprint, key_id, serial };
        if let Err(denied) = self.shared.events.send(event).await {
            return self.refuse(denied.to_string()).await;
        }
        let gate = Gate::new(terms.actions, rights, self.shared.events.clone());
        self.gate = Some(Arc::new(gate));
        self.shared.authenticated.store(true, Ordering::Relaxed);
        Auth::Accept
    }
}
