//! Names people type: devices, users, logins, labels. Checked once, here, when they come in;
//! a value of one of these types is safe to print on a terminal, in a log line and in a page.

use std::fmt;
use std::str::FromStr;

use minicbor::decode::{self, Decode, Decoder};
use minicbor::encode::{self, Encode, Encoder, Write};
use serde::{Deserialize, Serialize};

/// A name does not follow its rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {rule}")]
pub struct BadName {
    what: &'static str,
    rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $ok:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                let ok: fn(&str) -> bool = $ok;
                if ok(&text) {
                    Ok(Self(text))
                } else {
                    Err(BadName { what: $what, rule: $rule })
                }
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: Write>(
                &self,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), encode::Error<W::Error>> {
                e.str(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
                let at = d.position();
                Self::from_str(d.str()?).map_err(|e| decode::Error::message(e).at(at))
            }
        }
    };
}

name! {
    /// A device's name: one DNS label (RFC 1123 §2.1), lower case, so `ssh NAME.belay` works.
    DeviceName,
    "a device name",
    "1 to 63 of a-z, 0-9 and -, neither beginning nor ending with -",
    |s| {
        (1..=63).contains(&s.len())
            && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !s.starts_with('-')
            && !s.ends_with('-')
    }
}

name! {
    /// A person's name at the relay, and the principal of their SSH certificate.
    UserName,
    "a user name",
    "1 to 64 of a-z, 0-9, '.', '_', '-' and '@', beginning with a letter or digit",
    |s| {
        (1..=64).contains(&s.len())
            && s.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && s.bytes().all(|b| {
                b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-' | b'@')
            })
    }
}

name! {
    /// An account on a device, as in its `/etc/passwd` (useradd(8) allows 32 bytes; other systems
    /// make longer ones).
    Login,
    "a login",
    "1 to 64 of A-Z, a-z, 0-9, '.', '_', '-', '@' and a last '$', not beginning with -",
    |s| {
        let stem = s.strip_suffix('$').unwrap_or(s);
        (1..=64).contains(&s.len())
            && !stem.is_empty()
            && !stem.starts_with('-')
            && stem
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'@'))
    }
}

name! {
    /// The left side of a label, `site` in `site=oslo`.
    LabelKey,
    "a label's name",
    "1 to 63 of a-z, 0-9, '.', '_', '/' and '-', beginning with a letter or digit",
    |s| {
        (1..=63).contains(&s.len())
            && s.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && s.bytes().all(|b| {
                b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'/' | b'-')
            })
    }
}

name! {
    /// The right side of a label, `oslo` in `site=oslo`.
    LabelValue,
    "a label's value",
    "0 to 63 of A-Z, a-z, 0-9, '.', '_', ':', '/', '+', '@' and '-'",
    |s| {
        s.len() <= 63
            && s.bytes().all(|b| {
                b.is_ascii_alphanumeric()
                    || matches!(b, b'.' | b'_' | b':' | b'/' | b'+' | b'@' | b'-')
            })
    }
}

/// `site=oslo`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// `site`
    pub key: LabelKey,
    /// `oslo`
    pub value: LabelValue,
}

impl FromStr for Label {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let (key, value) = text.split_once('=').ok_or(BadName {
            what: "a label",
            rule: "written name=value, for example site=oslo",
        })?;
        Ok(Self { key: key.parse()?, value: value.parse()? })
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn names_that_could_act_on_a_terminal_or_a_path_are_refused() {
        for bad in ["", "-x", "x-", "Pump", "a b", "a.b", "a/b", "..", "a\n", "\u{1b}[2J", "ü"] {
            assert!(bad.parse::<DeviceName>().is_err(), "{bad:?}");
        }
        for bad in ["", "-x", "Alice", "a b", "a\u{202e}b", "a/b", ".a"] {
            assert!(bad.parse::<UserName>().is_err(), "{bad:?}");
        }
        for bad in ["", "-x", "a b", "a:b", "a/b", "$", "a\0", "ro$ot"] {
            assert!(bad.parse::<Login>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(64).parse::<DeviceName>().is_err());
        assert!("pump-17".parse::<DeviceName>().is_ok());
        assert!("anna.berg@example.com".parse::<UserName>().is_ok());
        assert!("svc-backup$".parse::<Login>().is_ok());
    }

    #[test]
    fn a_label_reads_back_as_it_was_written() {
        let label: Label = "site=oslo".parse().unwrap();
        assert_eq!(label.to_string(), "site=oslo");
        assert!("site".parse::<Label>().is_err());
        assert!("site=os lo".parse::<Label>().is_err());
    }
}
