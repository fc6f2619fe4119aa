//! The one question before every handler: who is this, and may they?

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use belay_proto::policy::AdminRight;
use belay_proto::refusal::{Code, Refused};
use belay_proto::time::UnixTime;
use belay_tunnel::clock;
use belay_tunnel::pki::{Identity, PeerCertificate};

use super::Api;
use super::answer::{Failure, no_store};
use crate::span::plain;
use crate::store::{Actor, Event, EventKind, UserRecord};

/// What a route asks of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing: the request itself carries a secret.
    Nothing,
    /// A person who is known and not disabled.
    Person,
    /// Such a person with a role that has one of these rights.
    OneOf(&'static [AdminRight]),
}

/// The other end of the connection, as TLS proved it. Travels with each request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where from.
    pub address: SocketAddr,
    /// The certificate whose possession it proved, when it has one.
    pub certificate: Option<Arc<PeerCertificate>>,
}

/// A person the gate has let through. Only the gate makes one.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub(super) user: UserRecord,
    /// Last second of their certificate.
    pub(super) expires: UnixTime,
    address: SocketAddr,
    /// What they had to have the right to.
    rights: &'static [AdminRight],
}

impl Caller {
    /// Whether one of their roles has this right.
    pub(super) fn may(&self, right: AdminRight) -> bool {
        self.user.roles.iter().any(|role| role.may(right))
    }

    /// For the record.
    pub(super) const fn actor(&self) -> Actor {
        Actor::User(self.user.id, self.address)
    }

    /// Where they ask from.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// A refusal of this caller, recorded.
    pub(super) async fn refuse(&self, api: &Api, refused: Refused) -> Failure {
        let event = self.actor().event(EventKind::RequestRefused).refused(&refused);
        match api.store.record(event).await {
            Ok(()) => refused.into(),
            Err(error) => Refused::from(&error).into(),
        }
    }
}

/// Lets a request through to its handler, with its [`Caller`], or answers it.
pub(super) async fn gate(
    State((api, need)): State<(Arc<Api>, Need)>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match admit(&api, need, request).await {
        Ok(request) => next.run(request).await,
        Err(failure) => failure.into_response(),
    };
    no_store(&mut response);
    response
}

async fn admit(api: &Api, need: Need, mut request: Request) -> Result<Request, Failure> {
    let peer = request.extensions().get::<Peer>().cloned().ok_or_else(|| {
        Failure::from(Refused::new(Code::Internal, "the request has no peer", ""))
    })?;
    let foreign = plain_request(&request);
    let outcome = match foreign {
        Ok(()) => authorise(api, &peer, need).await,
        Err(refused) => Err(No::Stranger(Failure::from(refused))),
    };
    match outcome {
        Ok(Some(caller)) => {
            request.extensions_mut().insert(caller);
            Ok(request)
        }
        Ok(None) => Ok(request),
        Err(no) => {
            let what = format!("{} {}", request.method(), request.uri().path());
            Err(recorded(api, &peer, no, &what).await)
        }
    }
}

/// Judges a caller anew whose request has been read: its body may have taken its time, and they may have lost
/// their right meanwhile.
pub(super) async fn still(
    api: &Api,
    peer: &Peer,
    caller: &Caller,
    what: &str,
) -> Result<(), Failure> {
    let judged = match person(api, peer, caller.rights).await {
        Ok(caller) => entitled(caller),
        Err(no) => Err(no),
    };
    match judged {
        Ok(_) => Ok(()),
        Err(no) => Err(recorded(api, peer, no, what).await),
    }
}

/// The answer to who was not let through, once it is on record. `what`: what they asked for.
async fn recorded(api: &Api, peer: &Peer, no: No, what: &str) -> Failure {
    match no {
        No::Stranger(failure) => {
            let event = Event::new(EventKind::RequestRefused).refused(failure.refused());
            api.strangers.record(peer.address, event).await;
            failure
        }
        No::Known(user, refused) => {
            let event = Event::new(EventKind::RequestRefused).user(user.id).refused(&refused);
            api.strangers.record(peer.address, event).await;
            refused.into()
        }
        No::Caller(caller, refused) => {
            let detail = format!("{} for {what}", refused.cause());
            let event = caller.actor().event(EventKind::RequestRefused);
            let event = event.code(refused.code()).detail(&detail);
            match api.store.record(event).await {
                Ok(()) => refused.into(),
                Err(error) => Refused::from(&error).into(),
            }
        }
    }
}

/// A page in a browser, led here by a rebound name or a hidden form, must not act with the
/// certificate of whoever reads it: browsers name the page's origin, our clients never do.
fn plain_request(request: &Request) -> Result<(), Refused> {
    if request.headers().contains_key(header::ORIGIN)
        || request.headers().contains_key("sec-fetch-site")
    {
        return Err(Refused::new(
            Code::NotAllowed,
            "requests of web pages are not taken here",
            "use the belay command",
        ));
    }
    if request.uri().query().is_some() {
        return Err(Refused::new(
            Code::BadRequest,
            "no path here takes a query",
            "use a client of this relay's version",
        ));
    }
    Ok(())
}

/// A refusal and how surely its object is known.
enum No {
    /// Nobody we know: recorded sparingly.
    Stranger(Failure),
    /// A person whose certificate or standing is over: recorded sparingly as well, for who was
    /// once let in could go on asking for ever.
    Known(Box<UserRecord>, Refused),
    /// A person in good standing without the right: recorded one by one.
    Caller(Box<Caller>, Refused),
}

const LOG_IN: &str = "run: belay login";

async fn authorise(api: &Api, peer: &Peer, need: Need) -> Result<Option<Caller>, No> {
    let rights: &'static [AdminRight] = match need {
        Need::Nothing => return Ok(None),
        Need::Person => &[],
        Need::OneOf(rights) => rights,
    };
    let caller = person(api, peer, rights).await?;
    if let Err(error) = api.per_person.take(&caller.user.id) {
        return Err(No::Known(Box::new(caller.user), Refused::from(&error)));
    }
    entitled(caller).map(Some)
}

/// Whether they have one of the rights they need.
fn entitled(caller: Caller) -> Result<Caller, No> {
    if caller.rights.is_empty() || caller.rights.iter().any(|right| caller.may(*right)) {
        return Ok(caller);
    }
    let (cause, remedy) = ("none of your roles allows this", "ask an administrator");
    Err(No::Caller(Box::new(caller), Refused::new(Code::NotAllowed, cause, remedy)))
}

/// Who the certificate says it is, in good standing now.
async fn person(api: &Api, peer: &Peer, rights: &'static [AdminRight]) -> Result<Caller, No> {
    let stranger = |code, cause: &str, remedy| {
        let refused = Refused::new(code, cause, remedy);
        No::Stranger(Failure::with(StatusCode::UNAUTHORIZED, refused))
    };
    let Some(certificate) = &peer.certificate else {
        let cause = "this needs a certificate, and none was shown";
        return Err(stranger(Code::UnknownIdentity, cause, LOG_IN));
    };
    let id = match &certificate.identity {
        Identity::User { id, .. } => *id,
        Identity::Device(_) | Identity::Relay { .. } => {
            let cause = "this certificate is not a person's";
            return Err(stranger(Code::NotAllowed, cause, LOG_IN));
        }
    };
    let found = api
        .store
        .user(id)
        .await
        .map_err(|error| No::Stranger(Failure::from(Refused::from(&error))))?;
    let Some(user) = found else {
        let cause = "the relay does not know this user any more";
        return Err(stranger(Code::UnknownIdentity, cause, "ask an administrator"));
    };
    let refuse = |refused| No::Known(Box::new(user.clone()), refused);
    let now = clock::now();
    if now > certificate.not_after {
        let ago = plain(now.distance(certificate.not_after));
        let cause = format!("your certificate expired {ago} ago");
        return Err(refuse(Refused::new(Code::Expired, cause, LOG_IN)));
    }
    if now < certificate.not_before {
        let until = plain(now.distance(certificate.not_before));
        let cause = format!("your certificate begins {until} from now");
        let remedy = "set the clocks of this computer and the relay, then run: belay login";
        return Err(refuse(Refused::new(Code::NotYetValid, cause, remedy)));
    }
    if user.disabled {
        let cause = "your account is disabled";
        return Err(refuse(Refused::new(Code::UserDisabled, cause, "ask an administrator")));
    }
    Ok(Caller { user, expires: certificate.not_after, address: peer.address, rights })
}
