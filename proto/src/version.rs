//! The protocol's version, and what the two ends agree on.

/// The version this build speaks.
pub const PROTOCOL: u16 = 1;

/// The oldest version this build still speaks.
pub const OLDEST: u16 = 1;

/// ALPN of a QUIC carrier (RFC 7301). The digit is the wire's major version: it changes only when
/// `Hello` itself could no longer be read.
pub const ALPN: &[u8] = b"belay/1";

/// The newest version that both `[ours.0, ours.1]` and `[theirs.0, theirs.1]` contain, as
/// `(oldest, newest)`.
pub fn agree(ours: (u16, u16), theirs: (u16, u16)) -> Option<u16> {
    let newest = ours.1.min(theirs.1);
    (newest >= ours.0.max(theirs.0)).then_some(newest)
}

#[cfg(test)]
mod tests {
    use super::agree;

    #[test]
    fn the_newest_common_version_wins_and_disjoint_ranges_agree_on_none() {
        assert_eq!(agree((1, 3), (2, 5)), Some(3));
        assert_eq!(agree((1, 1), (1, 9)), Some(1));
        assert_eq!(agree((3, 4), (1, 2)), None);
        assert_eq!(agree((1, 2), (3, 4)), None);
        assert_eq!(agree((1, 2), (4, 0)), None);
    }
}
