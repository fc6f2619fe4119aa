//! Why something was refused, as a number on the wire and one line for a person.
//!
//! The relay fills in the cause (what it knows of this very case) and the remedy; the code is what
//! programs act on. An unknown code is still a refusal: it prints its line.

use std::fmt;
use std::time::Duration;

use minicbor::{Decode, Encode};

use crate::error_line::printable;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $token:literal;)*) => {
        /// A refusal's kind. Numbers are never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $variant,)*
            /// A code this build does not know.
            Other(u16),
        }

        impl Code {
            /// The number on the wire.
            pub const fn number(self) -> u16 {
                match self { $(Self::$variant => $number,)* Self::Other(n) => n }
            }

            /// The code of a number.
            pub const fn from_number(number: u16) -> Self {
                match number { $($number => Self::$variant,)* n => Self::Other(n) }
            }

            /// The word in logs, in the store and in JSON output.
            pub const fn token(self) -> &'static str {
                match self { $(Self::$variant => $token,)* Self::Other(_) => "other" }
            }

            /// Every code this build knows.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
        }
    };
}

codes! {
    /// The peer broke the protocol.
    Protocol = 1, "protocol";
    /// No version both sides speak.
    Version = 2, "version-too-old";
    /// The certificate was issued by another authority, or proves nothing.
    ForeignCertificate = 3, "foreign-certificate";
    /// The certificate's time is over.
    Expired = 4, "certificate-expired";
    /// The certificate's time has not begun.
    NotYetValid = 5, "certificate-not-yet-valid";
    /// The peer's clock is too far off.
    Clock = 6, "clock-wrong";
    /// The certificate names a device or user the relay does not know.
    UnknownIdentity = 7, "unknown-identity";
    /// The user is disabled.
    UserDisabled = 8, "user-disabled";
    /// The device is quarantined.
    Quarantined = 9, "device-quarantined";
    /// The device is decommissioned.
    Decommissioned = 10, "device-decommissioned";
    /// No device of that name.
    UnknownDevice = 11, "unknown-device";
    /// The device holds no line now.
    Offline = 12, "device-offline";
    /// No role allows it.
    NotAllowed = 13, "not-allowed";
    /// The role allows the device, not this login.
    LoginNotAllowed = 14, "login-not-allowed";
    /// Too many of something; try later.
    Busy = 15, "busy";
    /// The relay cannot record what it must record.
    Store = 16, "store-unavailable";
    /// The device did not answer in time.
    DeviceSilent = 17, "device-silent";
    /// The device refused.
    DeviceRefused = 18, "device-refused";
    /// The grant was not valid at the device.
    BadGrant = 19, "grant-not-valid";
    /// The relay is shutting down.
    Draining = 20, "relay-draining";
    /// The secret (token, code, password) is wrong.
    WrongSecret = 21, "wrong-secret";
    /// The token's time is over.
    TokenExpired = 22, "token-expired";
    /// The token has no uses left.
    TokenUsedUp = 23, "token-used-up";
    /// The name is taken, or not of the token's pattern.
    Name = 24, "name-refused";
    /// The request is malformed.
    BadRequest = 25, "bad-request";
    /// Only renewal is possible with this certificate.
    RenewOnly = 26, "renew-only";
    /// Something broke inside; the relay's log has it.
    Internal = 27, "internal";
    /// The session is over, or was never this person's.
    SessionOver = 28, "session-over";
}

/// A refusal: what a peer is told.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Refused {
    #[n(0)]
    number: u16,
    /// What went wrong, without a full stop.
    #[n(1)]
    cause: Option<String>,
    /// What to do about it.
    #[n(2)]
    remedy: Option<String>,
    /// Not before so many milliseconds is it any use to dial again.
    #[n(3)]
    retry_after_ms: Option<u32>,
}

impl Refused {
    /// A refusal with its line. Control characters are replaced, both parts are bounded.
    pub fn new(code: Code, cause: impl AsRef<str>, remedy: impl AsRef<str>) -> Self {
        let part = |text: &str| (!text.is_empty()).then(|| printable(text));
        Self {
            number: code.number(),
            cause: part(cause.as_ref()),
            remedy: part(remedy.as_ref()),
            retry_after_ms: None,
        }
    }

    /// The same, and not to be asked again before `wait` is over.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after_ms = Some(u32::try_from(wait.as_millis()).unwrap_or(u32::MAX));
        self
    }

    /// How long to wait before asking again, when that was said. The peer's word: whoever acts on
    /// it bounds it by [`crate::reconnect::LONGEST_SLOT`].
    pub fn told_to_wait(&self) -> Option<Duration> {
        self.retry_after_ms.map(|ms| Duration::from_millis(ms.into()))
    }

    /// The kind.
    pub const fn code(&self) -> Code {
        Code::from_number(self.number)
    }

    /// What went wrong, safe to print.
    pub fn cause(&self) -> String {
        match &self.cause {
            Some(text) if !text.is_empty() => printable(text),
            Some(_) | None => self.code().token().replace('-', " "),
        }
    }

    /// What to do, safe to print; empty when there is nothing to do.
    pub fn remedy(&self) -> String {
        self.remedy.as_deref().map(printable).unwrap_or_default()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause())?;
        match self.remedy().as_str() {
            "" => Ok(()),
            remedy => write!(f, "; {remedy}"),
        }
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_number_and_one_token() {
        for (i, a) in Code::ALL.iter().enumerate() {
            assert_eq!(Code::from_number(a.number()), *a);
            for b in Code::ALL.iter().skip(i + 1) {
                assert_ne!(a.number(), b.number());
                assert_ne!(a.token(), b.token());
            }
        }
        assert_eq!(Code::from_number(60_000), Code::Other(60_000));
    }

    #[test]
    fn when_to_ask_again_is_told_or_not() {
        let refused = Refused::new(Code::Draining, "", "");
        assert_eq!(refused.told_to_wait(), None);
        let slot = refused.retry_after(Duration::from_millis(1_500));
        assert_eq!(slot.told_to_wait(), Some(Duration::from_millis(1_500)));
        let for_ever = slot.retry_after(Duration::MAX);
        assert_eq!(for_ever.told_to_wait(), Some(Duration::from_millis(u32::MAX.into())));
    }

    #[test]
    fn a_refusal_is_one_line_whatever_the_peer_wrote() {
        let refused = Refused::new(Code::Offline, "pump-17\nis \u{1b}[31moffline", "wait");
        assert_eq!(refused.to_string().lines().count(), 1);
        assert!(!refused.to_string().contains('\u{1b}'));
    }
}
