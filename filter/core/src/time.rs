//! Points in time from the driver. This crate never reads a clock.

use std::cmp::Ordering;
use std::time::Duration;

use jiff_core::Timestamp;
use jiff_core::civil::DateTime;
use jiff_core::tz::Offset;

/// A moment, by two clocks. Durations and order are those of a monotonic clock, which is never set. The wall clock,
/// which operators and NTP set, is only used for the times of others: `exp` and `nbf` of a token, the expiry of a key,
/// the timestamp of an entry.
#[derive(Clone, Copy, Debug)]
pub struct UnixTime {
    /// Microseconds of the monotonic clock. It begins near the Unix epoch's count, so both agree until the wall clock
    /// is set.
    steady: u64,
    /// How far the wall clock is ahead of it, in microseconds.
    ahead: i64,
}

impl PartialEq for UnixTime {
    fn eq(&self, other: &Self) -> bool {
        self.steady == other.steady
    }
}

impl Eq for UnixTime {}

impl PartialOrd for UnixTime {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for UnixTime {
    fn cmp(&self, other: &Self) -> Ordering {
        self.steady.cmp(&other.steady)
    }
}

impl UnixTime {
    /// The point `micros` microseconds after the epoch, on both clocks.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self { steady: micros, ahead: 0 }
    }

    /// The same moment, with the wall clock at `micros` microseconds since the epoch.
    #[must_use]
    pub fn with_wall_clock(self, micros: u64) -> Self {
        let ahead = i128::from(micros).saturating_sub(i128::from(self.steady));
        Self { ahead: i64::try_from(ahead).unwrap_or_default(), ..self }
    }

    /// Microseconds since the epoch, by the wall clock.
    #[must_use]
    pub fn wall(self) -> u64 {
        self.steady.saturating_add_signed(self.ahead)
    }

    /// Whole seconds since the epoch, by the wall clock.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.wall() / 1_000_000
    }

    /// This point plus `by`; saturates.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self { steady: self.steady.saturating_add(micros(by)), ..self }
    }

    /// This point minus `by`; not before the epoch.
    #[must_use]
    pub fn before(self, by: Duration) -> Self {
        Self { steady: self.steady.saturating_sub(micros(by)), ..self }
    }

    /// The time from `earlier` to this point, by the monotonic clock; zero when it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.steady.saturating_sub(earlier.steady))
    }

    /// Date and time of day in UTC, by the wall clock.
    pub(crate) fn utc(self) -> DateTime {
        let micros = i64::try_from(self.wall()).ok();
        let time = micros.and_then(|micros| Timestamp::from_microsecond(micros).ok());
        time.unwrap_or(Timestamp::MAX).to_datetime(Offset::UTC)
    }

    /// The difference between the wall clock and another one, which shows `other` since the epoch.
    #[must_use]
    pub fn apart_from(self, other: Duration) -> Duration {
        Duration::from_micros(self.wall().abs_diff(micros(other)))
    }

    /// RFC 3339 in UTC with microseconds by the wall clock, as in audit entries.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let utc = self.utc();
        let (date, time) = (utc.date(), utc.time());
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        for (number, end) in [
            (i32::from(date.year()), 4),
            (i32::from(date.month()), 7),
            (i32::from(date.day()), 10),
            (i32::from(time.hour()), 13),
            (i32::from(time.minute()), 16),
            (i32::from(time.second()), 19),
            (time.subsec_nanosecond() / 1_000, 26),
        ] {
            let mut left = number.unsigned_abs();
            for digit in text.iter_mut().take(end).rev() {
                if left == 0 {
                    break;
                }
                *digit = u8::try_from(left % 10).map_or(b'9', |left| b'0'.saturating_add(left));
                left /= 10;
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// A duration in microseconds; saturates. Without 128-bit numbers, which a 32-bit machine emulates.
#[must_use]
pub fn micros(duration: Duration) -> u64 {
    let whole = duration.as_secs().saturating_mul(1_000_000);
    whole.saturating_add(u64::from(duration.subsec_micros()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_as_rfc_3339() {
        let time = UnixTime::from_micros(1_795_212_000_000_042);
        assert_eq!(time.rfc3339(), "2026-11-20T22:00:00.000042Z");
        assert_eq!(UnixTime::from_micros(u64::MAX).rfc3339().len(), 27);
    }

    // Finding 10.4: with the clock one hour back, the gateway refused for an hour or had no deadlines.
    #[test]
    fn setting_the_wall_clock_moves_no_deadline() {
        const HOUR: u64 = 3_600_000_000;
        let then = UnixTime::from_micros(10 * HOUR);
        let second = Duration::from_secs(1);
        for wall in [9 * HOUR, 11 * HOUR, 0] {
            let now = then.after(second).with_wall_clock(wall);
            assert_eq!(now.since(then), second);
            assert!(now > then && now >= then.after(second));
            assert_eq!(now.seconds(), wall / 1_000_000, "what others mean by a time");
            assert_eq!(now.after(second).seconds(), wall / 1_000_000 + 1);
        }
    }
}
