//! `/v1/users`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use belay_proto::api::{User, UserAnswer, UserChange, UserChanged, UserRequest};
use belay_proto::names::UserName;
use belay_proto::policy::{Role, Selector};
use belay_proto::refusal::{Code, Refused};
use belay_proto::token::Purpose;
use belay_tunnel::clock;

use super::body::Strict;
use super::tokens::{broken, invitation};
use super::{Api, Caller, Failure};
use crate::init::new_code;
use crate::store::{UserError, UserRecord};

/// Roles of one person, and labels or logins of one role. Each is looked at for every session.
const MOST: usize = 64;

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(_caller): Extension<Caller>,
) -> Result<Json<Vec<User>>, Failure> {
    let users = api.store.users().await.map_err(|e| Refused::from(&e))?;
    Ok(Json(users.into_iter().map(show).collect()))
}

pub(super) async fn add(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Strict(request): Strict<UserRequest>,
) -> Result<Json<UserAnswer>, Failure> {
    if let Err(refused) = check(&request.roles) {
        return Err(caller.refuse(&api, refused).await);
    }
    let (secret, code) = new_code(clock::now()).map_err(|e| broken(&e))?;
    let login_code = invitation(&api, &secret, Purpose::Login)?;
    let expires = code.expires;
    match api.store.add_user(request.name, request.roles, code, caller.actor()).await {
        Ok(id) => Ok(Json(UserAnswer { id, login_code, expires })),
        Err(error) => Err(refuse(&api, &caller, &error).await),
    }
}

pub(super) async fn change(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Strict(change): Strict<UserChange>,
) -> Result<Json<UserChanged>, Failure> {
    let checked = match &change.roles {
        Some(roles) => check(roles),
        None => Ok(()),
    };
    let name = checked.and_then(|()| {
        name.parse::<UserName>()
            .map_err(|e| Refused::new(Code::BadRequest, e.to_string(), "check the name"))
    });
    let name = match name {
        Ok(name) => name,
        Err(refused) => return Err(caller.refuse(&api, refused).await),
    };
    let (code, login_code) = if change.new_code {
        let (secret, code) = new_code(clock::now()).map_err(|e| broken(&e))?;
        (Some(code), Some(invitation(&api, &secret, Purpose::Login)?))
    } else {
        (None, None)
    };
    match api.store.change_user(name, change, code, caller.actor()).await {
        Ok(user) => Ok(Json(UserChanged { user: show(user), login_code })),
        Err(error) => Err(refuse(&api, &caller, &error).await),
    }
}

async fn refuse(api: &Api, caller: &Caller, error: &UserError) -> Failure {
    let refused = Refused::from(error);
    match error {
        UserError::Store(_) => refused.into(),
        UserError::Unknown(_) | UserError::NameTaken(_) | UserError::LastAdministrator(_) => {
            caller.refuse(api, refused).await
        }
    }
}

/// Roles that could only be a mistake are refused: one that covers nothing, or has no login.
fn check(roles: &[Role]) -> Result<(), Refused> {
    let no = |cause: &str, remedy| Err(Refused::new(Code::BadRequest, cause, remedy));
    if roles.is_empty() {
        return no(
            "a person needs at least one role",
            "give one: administrator, engineer or auditor",
        );
    }
    if roles.len() > MOST {
        return no("a person has at most 64 roles", "give fewer");
    }
    for role in roles {
        match role {
            Role::Administrator | Role::Auditor => {}
            Role::Engineer { selector, logins, .. } => {
                if *selector == Selector::default() {
                    return no("an engineer's role needs labels", "name some, as in site=oslo");
                }
                if logins.is_empty() {
                    return no("an engineer's role needs logins", "name at least one account");
                }
                if logins.len() > MOST || selector.to_string().split(',').count() > MOST {
                    return no("a role has at most 64 labels and 64 logins", "give fewer");
                }
            }
        }
    }
    Ok(())
}

fn show(user: UserRecord) -> User {
    User { id: user.id, name: user.name, roles: user.roles, disabled: user.disabled }
}
