//! The HTTPS interface: one table of routes, one gate before all of them.
//!
//! Its law: a route exists only by standing in [`ROUTES`] with what it asks of the caller, and its
//! handler runs only behind [`gate`]. Answers and refusals are JSON. What it is not: it holds no
//! connection (`listen/https`) and decides nothing that `policy` decides.

mod answer;
mod audit;
mod body;
mod devices;
mod evidence;
mod gate;
mod joinable;
mod kill;
mod readings;
mod recordings;
mod retention;
mod search;
mod sessions;
mod tokens;
mod users;
mod watch;

use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Json, Router};
use belay_proto::api::{EnrolAnswer, EnrolRequest, LoginAnswer, LoginRequest, WhoAmI, path};
use belay_proto::policy::AdminRight;
use belay_tunnel::address::RelayAddress;
use belay_tunnel::clock;
use tokio::sync::Semaphore;

use crate::audit::Strangers;
use crate::ca::Authority;
use crate::config::Config;
use crate::login::{PasswordError, Passwords};
use crate::presence::Presence;
use crate::rate::{Allowance, Each};
use crate::recordings::Recordings;
use crate::search::Search;
use crate::store::Store;
use crate::{enrol, login};
pub use answer::Failure;
use body::Strict;
pub use gate::{Caller, Need, Peer};
use readings::Readings;
pub use watch::WATCH_WAIT;

/// Requests of one person: far above any command line, far below what would fill the disk with
/// records.
const PER_PERSON: Allowance = Allowance::new(300, 1200);

/// From the last byte of a request's head to the first of its answer. The longest is a login that
/// waits for a password hash and for the store.
pub(crate) const REQUEST_WITHIN: Duration = Duration::from_secs(30);

/// Each reads a recording of any length from its beginning, on a thread of those that everybody's work on the disk
/// needs.
const WALKS: usize = 2;

/// What every handler works with.
pub struct Api {
    pub(crate) store: Store,
    pub(crate) authority: Arc<Authority>,
    pub(crate) presence: Arc<dyn Presence>,
    pub(crate) strangers: Arc<Strangers>,
    pub(crate) recordings: Arc<Recordings>,
    pub(crate) search: Arc<Search>,
    pub(crate) passwords: Passwords,
    pub(crate) login_limits: login::Limits,
    pub(crate) enrol_limits: enrol::Limits,
    pub(crate) address: RelayAddress,
    per_person: Each<belay_proto::ids::UserId>,
    readings: Readings,
    /// Recordings that are read whole for somebody, at a time.
    pub(crate) walks: Arc<Semaphore>,
}

impl Api {
    /// Puts it together. Takes one password hash's time.
    ///
    /// # Errors
    /// [`PasswordError`] when there are no random numbers.
    pub fn new(
        config: &Config,
        store: Store,
        authority: Arc<Authority>,
        presence: Arc<dyn Presence>,
        (strangers, recordings): (Arc<Strangers>, Arc<Recordings>),
    ) -> Result<Arc<Self>, PasswordError> {
        let search = Search::new(Arc::clone(&recordings), authority.ca().clone());
        Ok(Arc::new(Self {
            store,
            authority,
            presence,
            strangers,
            recordings,
            search,
            passwords: Passwords::new()?,
            login_limits: login::Limits::new(&config.login),
            enrol_limits: enrol::Limits::new(&config.enrol),
            address: config.address.clone(),
            per_person: Each::new(PER_PERSON),
            readings: Readings::default(),
            walks: Arc::new(Semaphore::new(WALKS)),
        }))
    }
}

/// A method, a path, and what it asks of the caller.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// `GET`, `POST` or `PATCH`.
    pub method: &'static str,
    /// With its parameters in braces.
    pub path: &'static str,
    /// What the caller must prove.
    pub need: Need,
}

macro_rules! routes {
    ($($method:ident $path:path => $handler:path, $need:expr;)*) => {
        /// Every route there is.
        pub const ROUTES: &[Route] = &[
            $(Route { method: stringify!($method), path: $path, need: $need },)*
        ];

        /// The router over all of [`ROUTES`]. Requests must carry a [`Peer`].
        pub fn router(api: &Arc<Api>) -> Router {
            let router = Router::new();
            $(let router = router.route(
                $path,
                behind_the_gate(api, MethodFilter::$method, $handler, $need),
            );)*
            router
                .fallback(answer::no_such_path)
                .method_not_allowed_fallback(answer::no_such_method)
                .with_state(Arc::clone(api))
        }
    };
}

routes! {
    POST path::ENROL => enrol_device, Need::Nothing;
    POST path::LOGIN => log_in, Need::Nothing;
    GET path::WHOAMI => whoami, Need::Person;
    GET path::DEVICES => devices::list, Need::OneOf(&[AdminRight::ListDevices]);
    PATCH path::DEVICE => devices::change,
        Need::OneOf(&[AdminRight::EditDevice, AdminRight::DeviceStatus]);
    GET path::SESSIONS => sessions::list, Need::Person;
    GET path::SESSION => sessions::one, Need::Person;
    POST path::SESSIONS_ALL => sessions::all, Need::Person;
    POST path::SESSION_KILL => kill::kill, Need::Person;
    GET path::RECORDINGS => recordings::list, Need::OneOf(&[AdminRight::ReadEvidence]);
    GET path::RECORDING => recordings::page, Need::OneOf(&[AdminRight::ReadEvidence]);
    POST path::RECORDING_DELETE => retention::delete, Need::OneOf(&[AdminRight::DeleteEvidence]);
    GET path::HOLDS => retention::holds, Need::OneOf(&[AdminRight::ReadEvidence]);
    POST path::HOLDS => retention::hold, Need::OneOf(&[AdminRight::HoldEvidence]);
    POST path::HOLD_RELEASE => retention::release, Need::OneOf(&[AdminRight::DeleteEvidence]);
    GET path::RECORDING_LIVE => watch::next, Need::OneOf(&[AdminRight::ReadEvidence]);
    POST path::TOKENS => tokens::create, Need::OneOf(&[AdminRight::CreateToken]);
    GET path::USERS => users::list, Need::OneOf(&[AdminRight::ManageUsers]);
    POST path::USERS => users::add, Need::OneOf(&[AdminRight::ManageUsers]);
    PATCH path::USER => users::change, Need::OneOf(&[AdminRight::ManageUsers]);
    GET path::LOG_CHECKPOINT => audit::checkpoint, Need::OneOf(&[AdminRight::ReadEvidence]);
    POST path::LOG_ENTRIES => audit::entries, Need::OneOf(&[AdminRight::ReadEvidence]);
    POST path::LOG_CONSISTENCY => audit::consistency, Need::OneOf(&[AdminRight::ReadEvidence]);
    POST path::LOG_INCLUSION => audit::inclusion, Need::OneOf(&[AdminRight::ReadEvidence]);
    POST path::LOG_SESSION => evidence::log, Need::OneOf(&[AdminRight::ReadEvidence]);
    POST path::EVIDENCE => evidence::bundle, Need::OneOf(&[AdminRight::ReadEvidence]);
    POST path::SEARCH => search::search, Need::OneOf(&[AdminRight::ReadEvidence]);
    POST path::SEARCH_SEALED => search::sealed, Need::OneOf(&[AdminRight::ReadEvidence]);
}

fn behind_the_gate<H, T>(
    api: &Arc<Api>,
    method: MethodFilter,
    handler: H,
    need: Need,
) -> MethodRouter<Arc<Api>>
where
    H: Handler<T, Arc<Api>>,
    T: 'static,
{
    let state = (Arc::clone(api), need);
    on(method, handler).route_layer(axum::middleware::from_fn_with_state(state, gate::gate))
}

async fn enrol_device(
    State(api): State<Arc<Api>>,
    Extension(peer): Extension<Peer>,
    Strict(request): Strict<EnrolRequest>,
) -> Result<Json<EnrolAnswer>, Failure> {
    Ok(Json(enrol::enrol(&api, peer.address, request).await?))
}

async fn log_in(
    State(api): State<Arc<Api>>,
    Extension(peer): Extension<Peer>,
    Strict(request): Strict<LoginRequest>,
) -> Result<Json<LoginAnswer>, Failure> {
    Ok(Json(login::login(&api, peer.address, request).await?))
}

fn whoami(Extension(caller): Extension<Caller>) -> Ready<Json<WhoAmI>> {
    ready(Json(WhoAmI {
        user: caller.user.name,
        user_id: caller.user.id,
        roles: caller.user.roles,
        expires: caller.expires,
        clock: clock::now(),
        software: crate::SOFTWARE.to_owned(),
    }))
}
