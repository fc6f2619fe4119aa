//! Passwords: Argon2id, off the async threads, few at a time.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use belay_proto::api::{MAX_PASSWORD, MIN_PASSWORD};
use belay_proto::names::UserName;
use belay_proto::refusal::{Code, Refused};
use tokio::sync::{Semaphore, TryAcquireError};
use zeroize::Zeroizing;

use crate::store::PasswordHash;

/// Hashes computed at once: each takes [`MEMORY_KIB`] and a core.
const AT_ONCE: usize = 2;

/// Logins that wait for a hash; with [`AT_ONCE`] at about 40 ms each, under a second's worth.
const WAITING: usize = 32;

/// How long one waits at most.
const PATIENCE: Duration = Duration::from_secs(10);

/// 19 MiB, two passes, one lane: OWASP's recommendation for Argon2id (Password Storage Cheat
/// Sheet).
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Fewer different characters than this is no password, however long.
const MIN_DIFFERENT: usize = 5;

/// A password was not taken or could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too short.
    #[error("a password has at least {MIN_PASSWORD} characters; this one has {0}")]
    Short(usize),
    /// Too long.
    #[error("a password has at most {MAX_PASSWORD} bytes")]
    Long,
    /// Guessed at once.
    #[error("this password is too easy to guess: {0}")]
    Easy(&'static str),
    /// Too many wait.
    #[error("too many people are logging in")]
    Busy,
    /// Argon2 failed, or the stored hash is damaged.
    #[error("the password cannot be checked")]
    Hash,
    /// No random numbers.
    #[error("the system gave no random numbers")]
    Random,
}

impl From<&PasswordError> for Refused {
    fn from(error: &PasswordError) -> Self {
        let (code, remedy) = match error {
            PasswordError::Short(_) | PasswordError::Long | PasswordError::Easy(_) => {
                (Code::BadRequest, "choose another, for example four or five words")
            }
            PasswordError::Busy => (Code::Busy, "try again in a moment"),
            PasswordError::Hash | PasswordError::Random => {
                (Code::Internal, "ask the relay's operator to look at its log")
            }
        };
        Self::new(code, error.to_string(), remedy)
    }
}

/// Whether a new password may be used (NIST SP 800-63B-4 §3.1.1.2: length, no rules on which
/// characters, nothing that is guessed first).
pub(super) fn check_rules(name: &UserName, password: &str) -> Result<(), PasswordError> {
    if password.len() > MAX_PASSWORD {
        return Err(PasswordError::Long);
    }
    let length = password.chars().count();
    if length < MIN_PASSWORD {
        return Err(PasswordError::Short(length));
    }
    let mut different: Vec<char> = password.chars().collect();
    different.sort_unstable();
    different.dedup();
    if different.len() < MIN_DIFFERENT {
        return Err(PasswordError::Easy("it repeats a few characters"));
    }
    let rest = password.to_lowercase().replace(name.as_str(), "");
    if rest.chars().count() < MIN_PASSWORD / 2 {
        return Err(PasswordError::Easy("it is little more than your name"));
    }
    Ok(())
}

/// The hasher.
pub struct Passwords {
    running: Arc<Semaphore>,
    queue: Semaphore,
    /// Of a password nobody has: what an unknown name is checked against.
    nobody: PasswordHash,
}

impl Passwords {
    /// Takes one hash's time.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub fn new() -> Result<Self, PasswordError> {
        let mut unknown = [0; 32];
        aws_lc_rs::rand::fill(&mut unknown).map_err(|_| PasswordError::Random)?;
        Ok(Self {
            running: Arc::new(Semaphore::new(AT_ONCE)),
            queue: Semaphore::new(AT_ONCE + WAITING),
            nobody: hash(&unknown)?,
        })
    }

    pub(super) async fn hash(&self, password: &str) -> Result<PasswordHash, PasswordError> {
        self.off_thread(password, |password| hash(password.as_bytes())).await
    }

    /// Whether the password is the one of `stored`; without one, whether it is nobody's, which
    /// takes as long.
    pub(super) async fn verify(
        &self,
        password: &str,
        stored: Option<PasswordHash>,
    ) -> Result<bool, PasswordError> {
        if password.len() > MAX_PASSWORD {
            return Ok(false);
        }
        let somebody = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.nobody.clone());
        let right = self.off_thread(password, move |password| verify(password, &stored)).await?;
        Ok(right && somebody)
    }

    /// The permit goes with the work: a caller that gives up does not let another one in early.
    async fn off_thread<T: Send + 'static>(
        &self,
        password: &str,
        work: impl FnOnce(&str) -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let _queued = self.queue.try_acquire().map_err(|error| match error {
            TryAcquireError::NoPermits | TryAcquireError::Closed => PasswordError::Busy,
        })?;
        let turn = Arc::clone(&self.running).acquire_owned();
        let Ok(Ok(permit)) = tokio::time::timeout(PATIENCE, turn).await else {
            return Err(PasswordError::Busy);
        };
        let password = Zeroizing::new(password.to_owned());
        let work = tokio::task::spawn_blocking(move || {
            let result = work(&password);
            drop(permit);
            result
        });
        work.await.map_err(|_| PasswordError::Hash)?
    }
}

fn argon2() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|_| PasswordError::Hash)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &[u8]) -> Result<PasswordHash, PasswordError> {
    let mut salt = [0; 16];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| PasswordError::Random)?;
    let hash: phc::PasswordHash =
        argon2()?.hash_password_with_salt(password, &salt).map_err(|_| PasswordError::Hash)?;
    Ok(PasswordHash::from_phc(hash.to_string()))
}

/// The cost stands in the stored hash, so that raising it later leaves old hashes good.
fn verify(password: &str, stored: &PasswordHash) -> Result<bool, PasswordError> {
    use argon2::password_hash::Error;
    let stored = phc::PasswordHash::new(stored.as_phc()).map_err(|_| PasswordError::Hash)?;
    match argon2()?.verify_password(password.as_bytes(), &stored) {
        Ok(()) => Ok(true),
        Err(Error::PasswordInvalid) => Ok(false),
        Err(_) => Err(PasswordError::Hash),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn a_password_is_known_again_and_no_other() {
        let passwords = Passwords::new().unwrap();
        let stored = passwords.hash("correct horse battery").await.unwrap();
        assert!(stored.as_phc().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(passwords.verify("correct horse battery", Some(stored.clone())).await.unwrap());
        assert!(!passwords.verify("correct horse batterz", Some(stored.clone())).await.unwrap());
        assert!(!passwords.verify("", Some(stored.clone())).await.unwrap());
        assert!(!passwords.verify(&"x".repeat(2000), Some(stored)).await.unwrap());
        assert!(!passwords.verify("correct horse battery", None).await.unwrap());
        let damaged = PasswordHash::from_phc("$argon2id$damaged".into());
        assert!(passwords.verify("correct horse battery", Some(damaged)).await.is_err());
    }

    #[tokio::test]
    async fn more_than_the_queue_holds_are_turned_away_at_once() {
        let passwords = Passwords::new().unwrap();
        let _all = passwords.queue.acquire_many((AT_ONCE + WAITING) as u32).await.unwrap();
        assert!(matches!(passwords.hash("x").await, Err(PasswordError::Busy)));
    }

    #[test]
    fn length_counts_and_repetition_and_the_name_do_not() {
        let name = "anna.berg".parse().unwrap();
        let judge = |password: &str| check_rules(&name, password);
        assert!(judge("correct horse battery").is_ok());
        assert!(judge("æøåæøåæøåxyzuvw").is_ok());
        assert!(matches!(judge("only14letters!"), Err(PasswordError::Short(14))));
        assert!(matches!(judge(&"x".repeat(2000)), Err(PasswordError::Long)));
        assert!(matches!(judge("abababababababab"), Err(PasswordError::Easy(_))));
        assert!(matches!(judge("Anna.BergAnna.Berg1"), Err(PasswordError::Easy(_))));
    }
}
