//! Times and spans, for people.

use std::time::Duration;

use belay_proto::time::UnixTime;

/// `40 s`, `7 min`, `3 h`, `20 days`.
pub fn plain(span: Duration) -> String {
    match span.as_secs() {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

/// `2026-11-22T10:15:00Z` (RFC 3339).
pub fn date(at: UnixTime) -> String {
    let second = i64::try_from(at.0).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
    second.map_or_else(|| format!("second {} of 1970", at.0), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_like_times() {
        assert_eq!(date(UnixTime(0)), "1970-01-01T00:00:00Z");
        assert_eq!(date(UnixTime(1_795_432_531)), "2026-11-23T11:15:31Z");
        assert!(date(UnixTime(u64::MAX)).contains("second"));
        let shown =
            [0, 119, 120, 7199, 7200, 172_799, 172_800].map(|s| plain(Duration::from_secs(s)));
        assert_eq!(shown, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 days"]);
    }
}
