//! Lengths of time as people type them (`24h`, `90m`, `7d`, `1h30m`) and as they read them.

use std::time::Duration;

use belay_proto::time::UnixTime;

/// The text is not a length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write a length of time such as 90m, 24h or 7d")]
pub struct BadSpan;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Reads one or more whole numbers with a unit of `s`, `m`, `h`, `d` or `w`.
///
/// # Errors
/// When it is something else, zero, or too long to count.
pub fn parse(text: &str) -> Result<Duration, BadSpan> {
    let mut total: u64 = 0;
    let mut digits = String::new();
    for c in text.trim().chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => MINUTE,
            'h' => HOUR,
            'd' => DAY,
            'w' => 7 * DAY,
            _ => return Err(BadSpan),
        };
        let count: u64 = digits.parse().map_err(|_| BadSpan)?;
        digits.clear();
        total = count.checked_mul(unit).and_then(|s| total.checked_add(s)).ok_or(BadSpan)?;
    }
    if !digits.is_empty() || total == 0 {
        return Err(BadSpan);
    }
    Ok(Duration::from_secs(total))
}

/// A length of time in its largest whole unit: `45 s`, `12 min`, `3 h`, `9 d`.
pub fn rough(length: Duration) -> String {
    let s = length.as_secs();
    if s < 2 * MINUTE {
        format!("{s} s")
    } else if s < 2 * HOUR {
        format!("{} min", s / MINUTE)
    } else if s < 2 * DAY {
        format!("{} h", s / HOUR)
    } else {
        format!("{} d", s / DAY)
    }
}

/// A time in the reader's own time zone, to the second.
pub fn at(time: UnixTime) -> String {
    let stamp = i64::try_from(time.0).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
    match stamp {
        Some(stamp) => {
            let zoned = stamp.to_zoned(jiff::tz::TimeZone::system());
            zoned.strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
        }
        None => format!("{} s after 1970", time.0),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn lengths_read_as_they_are_written() {
        assert_eq!(parse("24h").unwrap().as_secs(), 24 * HOUR);
        assert_eq!(parse("1h30m").unwrap().as_secs(), 90 * MINUTE);
        assert_eq!(parse("2w").unwrap().as_secs(), 14 * DAY);
        for bad in ["", "24", "h", "-1h", "0s", "1.5h", "1y", "99999999999999999999h", "1h ago"] {
            assert_eq!(parse(bad), Err(BadSpan), "{bad:?}");
        }
    }

    #[test]
    fn a_rough_length_keeps_two_digits_of_meaning() {
        for (s, text) in
            [(5, "5 s"), (119, "119 s"), (150, "2 min"), (3 * HOUR, "3 h"), (9 * DAY, "9 d")]
        {
            assert_eq!(rough(Duration::from_secs(s)), text);
        }
    }

    #[test]
    fn a_time_that_no_calendar_holds_is_still_shown() {
        assert_eq!(at(UnixTime(u64::MAX)), format!("{} s after 1970", u64::MAX));
    }
}
