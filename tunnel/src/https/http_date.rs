//! The one form of a date that HTTP sends: `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7).

use belay_proto::time::UnixTime;
use time::{Date, Month, PrimitiveDateTime, Time};

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Reads it; nothing else.
pub(super) fn read(text: &str) -> Option<UnixTime> {
    let words: Vec<_> = text.split_once(", ")?.1.split(' ').collect();
    let [day, month, year, clock, "GMT"] = words.as_slice() else { return None };
    let month = MONTHS.iter().position(|name| name == month)? + 1;
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()?;
    let parts: Vec<_> = clock.split(':').collect();
    let [hour, minute, second] = parts.as_slice() else { return None };
    // A leap second is the last one before it.
    let second = second.parse::<u8>().ok()?.min(59);
    let time = Time::from_hms(hour.parse().ok()?, minute.parse().ok()?, second).ok()?;
    let seconds = PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp();
    u64::try_from(seconds).ok().map(UnixTime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specifications_own_example_is_read_and_nothing_else() {
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(UnixTime(784_111_777)));
        for other in [
            "",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 25:49:37 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
