//! What the tunnel's exchange says, in this program's words.

use belay_tunnel::https::HttpsError;

use crate::failure::Failure;

impl From<HttpsError> for Failure {
    fn from(error: HttpsError) -> Self {
        Self::new(error.token, error.cause).remedy(error.remedy)
    }
}
