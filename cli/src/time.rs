//! Times in input and output. Stored times are whole seconds since the Unix epoch.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use portcullis_core::time::UnixTime;

/// Seconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seconds(pub(crate) u64);

impl Seconds {
    pub(crate) fn now() -> Self {
        // A clock before 1970 is not set.
        Self(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    }

    /// RFC 3339 in UTC.
    pub(crate) fn rfc3339(self) -> String {
        i64::try_from(self.0)
            .ok()
            .and_then(|seconds| Timestamp::from_second(seconds).ok())
            .unwrap_or(Timestamp::MAX)
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string()
    }
}

/// The current time, since the Unix epoch.
pub(crate) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The current time in the form of audit entries: RFC 3339 with microseconds.
pub(crate) fn timestamp() -> String {
    UnixTime::from_micros(u64::try_from(since_1970().as_micros()).unwrap_or(u64::MAX)).rfc3339()
}

/// A length of time on the command line, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) u64);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        duration(text).map(Span).ok_or_else(|| {
            let expected = "expected a duration, such as 30d, 24h, 30m or 45s";
            format!("{expected}{}", fault_of_duration(text))
        })
    }
}

/// A length of time for people, in its two largest units: `29d 23h`, `20m`, `45s`.
pub(crate) fn in_short(millis: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut rest = millis.div_ceil(1_000);
    let mut parts = Vec::new();
    for (at, (unit, name)) in UNITS.into_iter().enumerate() {
        let count = rest.checked_div(unit).unwrap_or_default();
        rest = rest.checked_rem(unit).unwrap_or_default();
        if count > 0 {
            parts.push((at, format!("{count}{name}")));
        }
    }
    let first = parts.first().map_or(0, |(at, _)| *at);
    // `1d 5s` would be unnecessarily exact.
    parts.retain(|(at, _)| at.saturating_sub(first) < 2);
    match parts.is_empty() {
        true => "0s".to_owned(),
        false => parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>().join(" "),
    }
}

/// A time on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Time {
    /// This many seconds from now.
    In(u64),
    At(Seconds),
}

impl Time {
    pub(crate) fn seconds(self, now: Seconds) -> Seconds {
        match self {
            Time::In(seconds) => Seconds(now.0.saturating_add(seconds)),
            Time::At(seconds) => seconds,
        }
    }

    /// The time, when a duration means one in the past.
    pub(crate) fn ago(self, now: Seconds) -> Seconds {
        match self {
            Time::In(seconds) => Seconds(now.0.saturating_sub(seconds)),
            Time::At(seconds) => seconds,
        }
    }
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        duration(text).map(Time::In).or_else(|| time(text).map(Time::At)).ok_or_else(|| {
            let expected = "expected a duration, such as 90d, 12h, 30m or 45s, or a time with its \
                            offset, such as 2027-01-31T00:00:00Z";
            format!("{expected}{}", fault_of_duration(text))
        })
    }
}

/// What is wrong with a text that looks like a duration.
fn fault_of_duration(text: &str) -> &'static str {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.get(..text.len().saturating_sub(1)).unwrap_or_default();
    match number.strip_prefix('-') {
        Some(number) if is_number(number) => "; it is never negative",
        None if is_number(number) && text.ends_with(['s', 'm', 'h', 'd', 'w']) => {
            "; it is at most 7000 years long"
        }
        _ => "",
    }
}

/// The longest duration: times are shown with years of four digits.
const LONGEST: u64 = 7_000 * 366 * 86_400;

fn duration(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let seconds = digits.then(|| number.parse::<u64>().ok()?.checked_mul(seconds)).flatten();
    seconds.filter(|seconds| *seconds <= LONGEST)
}

fn time(text: &str) -> Option<Seconds> {
    let timestamp: Timestamp = text.parse().ok()?;
    u64::try_from(timestamp.as_second()).ok().map(Seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Finding 19 of a fresh reader: `UNITS BACK IN 2591995s`.
    #[test]
    fn a_length_of_time_is_short() {
        for (millis, told) in [
            (2_591_995_000, "29d 23h"),
            (1_200_000, "20m"),
            (1_199_001, "20m"),
            (86_405_000, "1d"),
            (90_061_000, "1d 1h"),
            (61_000, "1m 1s"),
            (1, "1s"),
            (0, "0s"),
        ] {
            assert_eq!(in_short(millis), told);
        }
    }

    #[test]
    fn reads_durations_and_times() {
        for (text, time) in [
            ("45s", Time::In(45)),
            ("30m", Time::In(1_800)),
            ("12h", Time::In(43_200)),
            ("90d", Time::In(7_776_000)),
            ("2w", Time::In(1_209_600)),
            ("2026-11-20T22:00:00Z", Time::At(Seconds(1_795_212_000))),
            ("2026-11-20T23:00:00+01:00", Time::At(Seconds(1_795_212_000))),
        ] {
            assert_eq!(text.parse(), Ok(time), "{text}");
        }
        for bad in ["", "d", "-1d", "+1d", "1y", "1.5d", "2026-11-20", "99999999999999999999d", "ä"]
        {
            assert!(bad.parse::<Time>().is_err(), "{bad}");
        }
        assert_eq!(Seconds(1_795_212_000).rfc3339(), "2026-11-20T22:00:00Z");
    }

    // Finding of an outside tester: an expiry in 99999999999d was stored as the end of the year 9999.
    #[test]
    fn a_duration_is_not_negative_and_ends_in_a_year_of_four_digits() {
        for (text, fault) in [
            ("-5d", "; it is never negative"),
            ("99999999999d", "; it is at most 7000 years long"),
            ("2562001d", "; it is at most 7000 years long"),
            ("99999999999999999999w", "; it is at most 7000 years long"),
            ("soon", ""),
            ("-d", ""),
            ("5y", ""),
        ] {
            for refused in [text.parse::<Time>().unwrap_err(), text.parse::<Span>().unwrap_err()] {
                assert!(refused.starts_with("expected a duration, such as "), "{refused}");
                match fault {
                    "" => assert!(!refused.contains("; it is"), "{refused}"),
                    fault => assert!(refused.ends_with(fault), "{refused}"),
                }
            }
        }
        let longest: Time = "2562000d".parse().unwrap();
        let now = Seconds(1_796_000_000);
        assert_eq!(longest.seconds(now).rfc3339(), "9041-06-07T00:53:20Z");
    }
}
