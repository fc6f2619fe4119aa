//! How people name a device: `pump-17`, `pump-17.belay`, its UUID, or its UUID and `.belay`.

use std::fmt;
use std::str::FromStr;

use belay_proto::ids::DeviceId;
use belay_proto::names::DeviceName;

/// The domain that `ssh` sees devices in.
pub const SUFFIX: &str = ".belay";

/// A device by name or id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceRef {
    /// By name.
    Name(DeviceName),
    /// By id.
    Id(DeviceId),
}

/// The text names no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" cannot name a device; write its name or UUID, for example pump-17")]
pub struct BadDeviceRef(String);

impl FromStr for DeviceRef {
    type Err = BadDeviceRef;

    fn from_str(text: &str) -> Result<Self, BadDeviceRef> {
        // DNS names compare without case (RFC 4343), and ssh passes on what was typed.
        let lower = text.to_ascii_lowercase();
        let bare = lower.strip_suffix(SUFFIX).unwrap_or(&lower);
        if let Ok(id) = bare.parse() {
            return Ok(Self::Id(id));
        }
        bare.parse().map(Self::Name).map_err(|_| BadDeviceRef(text.to_owned()))
    }
}

impl fmt::Display for DeviceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Id(id) => id.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_device_is_named_in_four_ways() {
        let id = "0197a3c2-7a30-7cc1-9d0e-3f2a1b4c5d6e";
        for (text, same) in [
            ("pump-17", "pump-17"),
            ("Pump-17.Belay", "pump-17"),
            (id, id),
            (&format!("{id}.belay"), id),
        ] {
            assert_eq!(text.parse::<DeviceRef>().unwrap().to_string(), same);
        }
        for bad in ["", ".belay", "a.b", "pump 17", "-oProxyCommand=x", "pump/17"] {
            assert!(bad.parse::<DeviceRef>().is_err(), "{bad:?}");
        }
    }
}
