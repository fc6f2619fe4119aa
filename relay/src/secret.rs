//! New secrets for tokens and codes.

use aws_lc_rs::rand;
use belay_proto::token::Secret;

/// The system gave no random numbers.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the system gave no random numbers")]
pub struct NoRandom;

/// Makes one.
///
/// # Errors
/// [`NoRandom`].
pub(crate) fn generate() -> Result<Secret, NoRandom> {
    let mut bytes = [0; 20];
    rand::fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(Secret::from_bytes(bytes))
}
