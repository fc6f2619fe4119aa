//! Refusals as HTTP: one status for each code, one JSON body.

use std::future::{Ready, ready};

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use belay_proto::api::{ApiError, NO_SUCH_PATH};
use belay_proto::refusal::{Code, Refused};

/// A refusal on its way out.
#[derive(Debug, Clone)]
pub struct Failure {
    status: StatusCode,
    refused: Refused,
}

impl Failure {
    /// With a status of its own instead of its code's.
    pub const fn with(status: StatusCode, refused: Refused) -> Self {
        Self { status, refused }
    }

    /// What was refused.
    pub const fn refused(&self) -> &Refused {
        &self.refused
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self { status: status(refused.code()), refused }
    }
}

const fn status(code: Code) -> StatusCode {
    match code {
        Code::Protocol | Code::Version | Code::BadRequest | Code::Clock => StatusCode::BAD_REQUEST,
        Code::ForeignCertificate | Code::Expired | Code::NotYetValid | Code::WrongSecret => {
            StatusCode::UNAUTHORIZED
        }
        Code::UnknownDevice | Code::UnknownIdentity | Code::SessionOver => StatusCode::NOT_FOUND,
        Code::Name | Code::Decommissioned => StatusCode::CONFLICT,
        Code::Busy => StatusCode::TOO_MANY_REQUESTS,
        Code::Store | Code::Draining | Code::Offline | Code::DeviceSilent => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Code::Internal | Code::Other(_) => StatusCode::INTERNAL_SERVER_ERROR,
        Code::UserDisabled
        | Code::Quarantined
        | Code::NotAllowed
        | Code::LoginNotAllowed
        | Code::DeviceRefused
        | Code::BadGrant
        | Code::TokenExpired
        | Code::TokenUsedUp
        | Code::RenewOnly
        | _ => StatusCode::FORBIDDEN,
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = ApiError {
            code: self.refused.code().token().to_owned(),
            cause: self.refused.cause(),
            remedy: self.refused.remedy(),
        };
        let mut response = (self.status, Json(body)).into_response();
        if let Some(wait) = self.refused.told_to_wait() {
            // RFC 9110 §10.2.3, in whole seconds.
            let seconds = wait.as_millis().div_ceil(1000).max(1);
            let seconds = HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        no_store(&mut response);
        response
    }
}

/// Nothing here belongs in a cache.
pub(super) fn no_store(response: &mut Response) {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

pub(super) fn no_such_path() -> Ready<Failure> {
    let refused = Refused::new(Code::BadRequest, NO_SUCH_PATH, UPGRADE);
    ready(Failure::with(StatusCode::NOT_FOUND, refused))
}

pub(super) fn no_such_method() -> Ready<Failure> {
    let refused = Refused::new(Code::BadRequest, "this path does not take this method", UPGRADE);
    ready(Failure::with(StatusCode::METHOD_NOT_ALLOWED, refused))
}

const UPGRADE: &str = "use a client of this relay's version";
