//! `/v1/tokens`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, State};
use belay_proto::api::{MAX_TOKEN_LIFE_S, MAX_TOKEN_USES, TokenAnswer, TokenRequest};
use belay_proto::limits::MAX_LABELS;
use belay_proto::refusal::{Code, Refused};
use belay_proto::token::{Invitation, Purpose, Secret};
use belay_tunnel::clock;

use super::body::Strict;
use super::{Api, Caller, Failure};
use crate::secret;
use crate::store::{NamePattern, NewToken};

/// Shortest life: a script needs no longer.
const MIN_LIFE_S: u64 = 1;

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Strict(request): Strict<TokenRequest>,
) -> Result<Json<TokenAnswer>, Failure> {
    let pattern = match check(&request) {
        Ok(pattern) => pattern,
        Err(refused) => return Err(caller.refuse(&api, refused).await),
    };
    let secret = secret::generate().map_err(|e| broken(&e))?;
    let expires = clock::now().plus(Duration::from_secs(request.lives_s));
    let token = invitation(&api, &secret, Purpose::Enrol)?;
    let new = NewToken {
        digest: secret.digest(),
        expires,
        uses: request.uses,
        pattern,
        labels: request.labels,
    };
    api.store
        .create_token(new, caller.user.id, caller.address())
        .await
        .map_err(|e| Refused::from(&e))?;
    Ok(Json(TokenAnswer { token, expires }))
}

fn check(request: &TokenRequest) -> Result<Option<NamePattern>, Refused> {
    let no = |cause: String| Refused::new(Code::BadRequest, cause, "ask for another one");
    if !(MIN_LIFE_S..=MAX_TOKEN_LIFE_S).contains(&request.lives_s) {
        let days = MAX_TOKEN_LIFE_S / 86_400;
        return Err(no(format!("a token lives from {MIN_LIFE_S} s to {days} days")));
    }
    if !(1..=MAX_TOKEN_USES).contains(&request.uses) {
        return Err(no(format!("a token has from 1 to {MAX_TOKEN_USES} uses")));
    }
    if request.labels.len() > MAX_LABELS {
        return Err(no(format!("a device has at most {MAX_LABELS} labels")));
    }
    let pattern: Option<NamePattern> =
        request.name.as_deref().map(str::parse).transpose().map_err(|e| no(format!("{e}")))?;
    if request.uses > 1 && pattern.as_ref().is_some_and(|p| p.only_name().is_some()) {
        return Err(no("a token for one name has one use; put a * in the name for more".into()));
    }
    Ok(pattern)
}

/// The string to hand over.
pub(super) fn invitation(api: &Api, secret: &Secret, purpose: Purpose) -> Result<String, Refused> {
    let invitation = Invitation {
        relay: api.address.to_string(),
        ca: api.authority.fingerprint(),
        secret: secret.clone(),
    };
    invitation.to_text(purpose).map_err(|e| broken(&e))
}

pub(super) fn broken(error: &(dyn std::error::Error + 'static)) -> Refused {
    tracing::error!(error = %belay_proto::error_line::one_line(error), "making a secret");
    Refused::new(Code::Internal, "the relay cannot make a secret", "ask its operator")
}
