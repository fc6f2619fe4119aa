//! Enrolment tokens: the digest of each secret, and what it allows.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use belay_proto::names::{DeviceName, LabelKey, LabelValue};
use belay_proto::time::UnixTime;

use super::rows::{Digest, seconds, to_json};
use super::writer::Tx;
use super::{Actor, EventKind, Store, StoreError};
use crate::span::date;

/// What names a token allows: `*` stands for any run of characters, none included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern(String);

/// Not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a name pattern has 1 to 63 of a-z, 0-9, - and *, for example oslo-*")]
pub struct BadPattern;

impl NamePattern {
    /// The one name it allows, when there is no `*` in it.
    pub fn only_name(&self) -> Option<DeviceName> {
        self.0.parse().ok()
    }

    /// Whether it allows this name. Takes time linear in pattern times name.
    pub fn allows(&self, name: &DeviceName) -> bool {
        let mut parts = self.0.split('*');
        let head = parts.next().unwrap_or_default();
        let Some(mut rest) = name.as_str().strip_prefix(head) else { return false };
        let middle: Vec<_> = parts.collect();
        let Some((last, middle)) = middle.split_last() else { return rest.is_empty() };
        for part in middle {
            match rest.find(part) {
                Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

impl FromStr for NamePattern {
    type Err = BadPattern;
    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let allowed =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'*');
        let fits = (1..=63).contains(&text.len()) && text.bytes().all(allowed);
        let names = text.contains('*') || text.parse::<DeviceName>().is_ok();
        if fits && names { Ok(Self(text.to_owned())) } else { Err(BadPattern) }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A token to be made.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Of its secret.
    pub digest: Digest,
    /// Last second it is good for.
    pub expires: UnixTime,
    /// How many devices it takes in.
    pub uses: u32,
    /// What their names must look like.
    pub pattern: Option<NamePattern>,
    /// Labels they get.
    pub labels: BTreeMap<LabelKey, LabelValue>,
}

impl Store {
    /// Makes a token and records it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create_token(
        &self,
        token: NewToken,
        by: belay_proto::ids::UserId,
        from: std::net::SocketAddr,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            Box::pin(async move { tx.create_token(&token, by, Actor::User(by, from)).await })
        })
        .await
    }
}

impl Tx {
    async fn create_token(
        &mut self,
        token: &NewToken,
        by: belay_proto::ids::UserId,
        actor: Actor,
    ) -> Result<(), StoreError> {
        let event = actor.event(EventKind::TokenCreated);
        let pattern = token.pattern.as_ref().map(ToString::to_string);
        sqlx::query(
            "INSERT INTO tokens
             (digest, created, created_by, expires, uses_left, name_pattern, labels)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(token.digest.as_slice())
        .bind(seconds(event.at))
        .bind(by.as_bytes().as_slice())
        .bind(seconds(token.expires))
        .bind(i64::from(token.uses))
        .bind(&pattern)
        .bind(to_json(&token.labels, "labels")?)
        .execute(&mut self.conn)
        .await
        .map_err(StoreError::during("make a token"))?;
        let labels: Vec<_> = token.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let detail = format!(
            "token {} for {} devices until {}, names {}, labels {}",
            short(&token.digest),
            token.uses,
            date(token.expires),
            pattern.as_deref().unwrap_or("any"),
            if labels.is_empty() { "none".to_owned() } else { labels.join(",") },
        );
        self.append(&event.detail(&detail)).await
    }
}

/// Names a token in the record without giving it away: the first eight digits of its digest.
pub(super) fn short(digest: &Digest) -> String {
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn allows(pattern: &str, name: &str) -> bool {
        pattern.parse::<NamePattern>().unwrap().allows(&name.parse().unwrap())
    }

    #[test]
    fn a_star_stands_for_any_run_and_nothing_else_does() {
        for (pattern, name) in [
            ("*", "x"),
            ("oslo-*", "oslo-1"),
            ("*-pump", "a-b-pump"),
            ("a*b*c", "abc"),
            ("a*b*c", "axxbyyczzc"),
            ("pump", "pump"),
            ("**", "x"),
            ("a*a", "aa"),
        ] {
            assert!(allows(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("oslo-*", "bergen-1"),
            ("oslo-*", "xoslo-1"),
            ("*-pump", "pump"),
            ("a*b*c", "acb"),
            ("pump", "pump1"),
            ("pump", "apump"),
            ("a*a", "a"),
        ] {
            assert!(!allows(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn only_a_pattern_without_a_star_is_a_name() {
        assert_eq!("pump".parse::<NamePattern>().unwrap().only_name().unwrap().as_str(), "pump");
        assert!("pump*".parse::<NamePattern>().unwrap().only_name().is_none());
        for bad in ["", "Pump*", "a b*", "-x", &"x".repeat(64), "a?"] {
            assert!(bad.parse::<NamePattern>().is_err(), "{bad}");
        }
    }
}
