//! Roles: what a person may do, and on which devices.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::{BadName, Label, LabelKey, LabelValue, Login};

macro_rules! tokens {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $token:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word on the wire and in the store.
            pub const fn token(self) -> &'static str {
                match self { $(Self::$variant => $token,)* }
            }

            /// The value of a word; `None` when this build does not know it.
            pub fn from_token(token: &str) -> Option<Self> {
                match token { $($token => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

tokens! {
    /// What can be done inside a session. The device checks each at the moment it is asked for.
    Action {
        /// An interactive shell, with or without a terminal.
        Shell = "shell",
        /// A command.
        Exec = "exec",
        /// The SFTP subsystem.
        Sftp = "sftp",
        /// Connections from the device outward (`ssh -L`, `-D`, `-W`).
        Forward = "forward",
        /// Connections to a listener on the device (`ssh -R`).
        Reverse = "reverse",
        /// The engineer's SSH agent, reachable from the device.
        Agent = "agent",
        /// A terminal of another session, together with whoever has it. Never beside others, and
        /// given to whoever may have [`Action::Shell`] there.
        Join = "join",
    }
}

tokens! {
    /// What can be done at the relay.
    AdminRight {
        /// Read the list of devices the role's selector covers.
        ListDevices = "list-devices",
        /// Make enrolment tokens.
        CreateToken = "create-token",
        /// Rename and label devices.
        EditDevice = "edit-device",
        /// Quarantine, reactivate and decommission devices.
        DeviceStatus = "device-status",
        /// Add and disable users.
        ManageUsers = "manage-users",
        /// Read the record of what everybody did. Each reading is recorded itself.
        ReadEvidence = "read-evidence",
        /// Place legal holds: what is held is not deleted.
        HoldEvidence = "hold-evidence",
        /// Release legal holds, and delete a recording before its time.
        DeleteEvidence = "delete-evidence",
        /// End anybody's session.
        EndSession = "end-session",
    }
}

/// Which devices a role covers: all of the labels must be on the device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Selector(BTreeMap<LabelKey, LabelValue>);

/// A selector cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// One part is not a label.
    #[error(transparent)]
    Label(#[from] BadName),
    /// The same label twice with two values: no device could match.
    #[error("the selector names \"{0}\" twice; give each label once")]
    Twice(LabelKey),
    /// Nothing in it. An empty selector would silently mean every device.
    #[error("the selector is empty; name at least one label, for example site=oslo")]
    Empty,
}

impl Selector {
    /// A selector of these labels.
    ///
    /// # Errors
    /// When there are none, or one name has two values.
    pub fn of(labels: impl IntoIterator<Item = Label>) -> Result<Self, SelectorError> {
        let mut map = BTreeMap::new();
        for Label { key, value } in labels {
            if map.insert(key.clone(), value).is_some() {
                return Err(SelectorError::Twice(key));
            }
        }
        if map.is_empty() { Err(SelectorError::Empty) } else { Ok(Self(map)) }
    }

    /// Whether a device with these labels is covered. An empty selector covers nothing.
    pub fn covers(&self, labels: &BTreeMap<LabelKey, LabelValue>) -> bool {
        !self.0.is_empty() && self.0.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

impl FromStr for Selector {
    type Err = SelectorError;
    /// `site=oslo,line=3`
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let parts = text.split(',').filter(|part| !part.is_empty());
        Self::of(parts.map(str::parse).collect::<Result<Vec<Label>, _>>()?)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (key, value)) in self.0.iter().enumerate() {
            write!(f, "{}{key}={value}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// A role a person holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case", from = "StrictRole")]
pub enum Role {
    /// Everything, on every device.
    Administrator,
    /// Sessions on the devices the selector covers, as these logins.
    Engineer {
        /// Which devices.
        selector: Selector,
        /// Which accounts.
        logins: BTreeSet<Login>,
        /// There, they may open a session that is not recorded where sessions must be, with a reason
        /// and an alarm.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        break_glass: bool,
    },
    /// Reads evidence, and the list of all devices to make sense of it; has it held. Opens no session
    /// anywhere.
    Auditor,
}

/// How a role is read. Roles without fields have braces here because serde looks for unknown fields
/// only between braces: "administrator of site=oslo" must not pass for administrator of everything.
#[derive(Deserialize)]
#[serde(tag = "role", rename_all = "snake_case", deny_unknown_fields)]
enum StrictRole {
    Administrator {},
    Engineer {
        selector: Selector,
        logins: BTreeSet<Login>,
        #[serde(default)]
        break_glass: bool,
    },
    Auditor {},
}

impl From<StrictRole> for Role {
    fn from(role: StrictRole) -> Self {
        match role {
            StrictRole::Administrator {} => Self::Administrator,
            StrictRole::Engineer { selector, logins, break_glass } => {
                Self::Engineer { selector, logins, break_glass }
            }
            StrictRole::Auditor {} => Self::Auditor,
        }
    }
}

impl Role {
    /// Whether the role covers a device with these labels: its holder may know of it. What they may
    /// do there is for [`decide`](fn@crate::policy::decide).
    pub fn covers(&self, labels: &BTreeMap<LabelKey, LabelValue>) -> bool {
        match self {
            Self::Administrator | Self::Auditor => true,
            Self::Engineer { selector, .. } => selector.covers(labels),
        }
    }

    /// Whether the role may do this at the relay. Listing is limited to covered devices by the
    /// caller, with [`Role::covers`].
    pub const fn may(&self, right: AdminRight) -> bool {
        match self {
            Self::Administrator => true,
            Self::Engineer { .. } => matches!(right, AdminRight::ListDevices),
            // A hold destroys nothing, and auditors are who first learn that one is needed. To
            // release it is not theirs: that makes deletion possible.
            Self::Auditor => matches!(
                right,
                AdminRight::ListDevices | AdminRight::ReadEvidence | AdminRight::HoldEvidence
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_selector_is_read_strictly() {
        assert_eq!("site=oslo,line=3".parse::<Selector>().unwrap().to_string(), "line=3,site=oslo");
        assert_eq!("".parse::<Selector>(), Err(SelectorError::Empty));
        assert!(matches!("a=1,a=2".parse::<Selector>(), Err(SelectorError::Twice(_))));
        assert!("site".parse::<Selector>().is_err());
    }

    #[test]
    fn an_auditor_reads_evidence_and_holds_it_and_changes_nothing() {
        for right in AdminRight::ALL {
            let reads = matches!(right, AdminRight::ListDevices | AdminRight::ReadEvidence);
            let may = reads || *right == AdminRight::HoldEvidence;
            assert_eq!(Role::Auditor.may(*right), may, "{right:?}");
            assert!(Role::Administrator.may(*right));
        }
        let (selector, logins) = (Selector::default(), BTreeSet::new());
        let engineer = Role::Engineer { selector, logins, break_glass: true };
        assert!(!engineer.may(AdminRight::ReadEvidence));
    }

    #[test]
    fn an_empty_selector_from_the_store_covers_nothing() {
        assert!(!Selector::default().covers(&BTreeMap::new()));
    }
}
