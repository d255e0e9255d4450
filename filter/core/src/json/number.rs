//! Numbers in their written form.
//!
//! Owns their value: decimals of any length, compared digit by digit. JSON readers disagree about numbers that a double
//! cannot represent (RFC 8259 §6); decisions here must not depend on the next reader.

use std::cmp::Ordering;

use serde_json::{Number, Value};

/// Longer ones are refused: a double has at most 309 digits before its point.
pub(super) const LONGEST: usize = 400;
/// Every integer of this many digits has its own double.
const EXACT_DIGITS: usize = 15;

/// A number's value: 0.`digits` × 10^`point`, without zeros at either end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    point: i64,
}

/// A whole number from 0 to `u64::MAX`, in any spelling.
pub(crate) fn whole_number(value: &Value) -> Option<u64> {
    let Value::Number(number) = value else { return None };
    number.as_u64().or_else(|| Decimal::of(number.as_str())?.as_u64())
}

impl Decimal {
    /// The value of a JSON number; `None` when its exponent is beyond all readers.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        digits.drain(..zeros);
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        if digits.is_empty() {
            return Some(Self { negative: false, digits, point: 0 });
        }
        let point = i64::try_from(whole.len()).ok()?.checked_add(exponent)?;
        let point = point.checked_sub(i64::try_from(zeros).ok()?)?;
        Some(Self { negative, digits, point })
    }

    /// Whether it has no fraction.
    pub(crate) fn is_whole(&self) -> bool {
        self.places().is_some_and(|places| places <= 0)
    }

    /// The value, where it is a whole number from 0 to `u64::MAX`: `3.0` and `1e1` are 3 and 10.
    pub(crate) fn as_u64(&self) -> Option<u64> {
        if self.digits.is_empty() {
            return Some(0);
        }
        if self.negative {
            return None;
        }
        let zeros = u32::try_from(self.places()?.checked_neg()?).ok()?;
        let digits: u64 = std::str::from_utf8(&self.digits).ok()?.parse().ok()?;
        digits.checked_mul(10_u64.checked_pow(zeros)?)
    }

    /// A text that is the same for all spellings.
    pub(crate) fn text(&self) -> String {
        let sign = if self.negative { "-" } else { "" };
        format!("{sign}0.{}e{}", String::from_utf8_lossy(&self.digits), self.point)
    }

    /// How many digits are after the point; negative for zeros before it.
    fn places(&self) -> Option<i64> {
        i64::try_from(self.digits.len()).ok()?.checked_sub(self.point)
    }

    /// Whether it is a multiple of `of`. False for an `of` of more than 36 digits.
    pub(crate) fn is_multiple(&self, of: &Self) -> bool {
        self.remainder(of) == Some(0)
    }

    /// Modulo `of`, both as whole numbers under the exponent of `of`.
    fn remainder(&self, of: &Self) -> Option<u128> {
        const MOST_DIGITS: usize = 36;
        if self.digits.is_empty() {
            return Some(0);
        }
        let digits = of.digits.as_slice();
        let divisor =
            if digits.len() <= MOST_DIGITS { std::str::from_utf8(digits).ok()? } else { "" };
        let divisor: u128 = divisor.parse().ok()?;
        // The last digit is not zero, so it is no multiple of ten.
        let zeros = of.places()?.checked_sub(self.places()?).filter(|zeros| *zeros >= 0)?;
        let digits = self.digits.iter().map(|digit| u128::from(digit.saturating_sub(b'0')));
        let zeros = std::iter::repeat_n(0_u128, usize::try_from(zeros.min(1_000)).ok()?);
        digits.chain(zeros).try_fold(0_u128, |rest, digit| {
            rest.checked_mul(10)?.checked_add(digit)?.checked_rem(divisor)
        })
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let size = || match (self.digits.is_empty(), other.digits.is_empty()) {
            (false, false) => {
                self.point.cmp(&other.point).then_with(|| self.digits.cmp(&other.digits))
            }
            (one, other) => other.cmp(&one),
        };
        match (self.negative, other.negative) {
            (false, false) => size(),
            (true, true) => size().reverse(),
            (negative, _) if negative => Ordering::Less,
            _ => Ordering::Greater,
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The order of two numbers in any spelling.
pub(crate) fn compare(one: &Number, other: &Number) -> Option<Ordering> {
    match (one.as_i64(), other.as_i64()) {
        (Some(one), Some(other)) => Some(one.cmp(&other)),
        _ => Some(Decimal::of(one.as_str())?.cmp(&Decimal::of(other.as_str())?)),
    }
}

/// The number as ECMAScript writes it (RFC 8785 §3.2.2.3), if that is the same number; `None` for one that a double
/// cannot represent.
pub(crate) fn in_double(text: &str) -> Option<String> {
    let value: f64 = text.parse().ok().filter(|value: &f64| value.is_finite())?;
    let mut buffer = ryu_js::Buffer::new();
    let shortest = buffer.format_finite(value);
    (shortest == text || Decimal::of(shortest)? == Decimal::of(text)?).then(|| shortest.to_owned())
}

/// Whether `text` is an integer that every reader reads and writes in the same way.
pub(crate) fn is_plain_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.len() <= EXACT_DIGITS
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && (!digits.starts_with('0') || text == "0")
}

/// Whether every reader finds the same kind of number: no infinity, and no zero for a number that is not zero.
pub(super) fn is_readable(text: &str) -> bool {
    if is_plain_integer(text) {
        return true;
    }
    let exponent = text.split_once(['e', 'E']).map_or("", |(_, exponent)| exponent);
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    match text.parse::<f64>() {
        Ok(0.0) => exponent.len() <= 4 && !mantissa.bytes().any(|b| (b'1'..=b'9').contains(&b)),
        Ok(value) => value.is_finite() && exponent.len() <= 4 && text.len() <= LONGEST,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(one: &str, other: &str) -> Ordering {
        compare(&one.parse().unwrap(), &other.parse().unwrap()).unwrap()
    }

    // Finding 4.3: numbers were compared as doubles.
    #[test]
    fn numbers_are_compared_by_every_digit() {
        let ascending = [
            "-100000000000000000000002",
            "-100000000000000000000001",
            "-9007199254740993",
            "-1.5",
            "-1",
            "-1e-3",
            "0",
            "1e-300",
            "0.1",
            "0.10000000000000000001",
            "1",
            "9007199254740992",
            "9007199254740993",
            "9007199254740993.5",
            "18446744073709551616",
            "100000000000000000000001",
            "1.00000000000000000000002e23",
            "1e300",
        ];
        for (at, one) in ascending.iter().enumerate() {
            for (other_at, other) in ascending.iter().enumerate() {
                assert_eq!(order(one, other), at.cmp(&other_at), "{one} {other}");
            }
        }
        for (one, other) in
            [("1", "1.0"), ("100", "1e2"), ("0", "-0.0"), ("0.5", "5E-1"), ("12000", "1.2e+4")]
        {
            assert_eq!(order(one, other), Ordering::Equal, "{one} {other}");
        }
    }

    #[test]
    fn a_whole_number_is_the_same_in_every_spelling() {
        let read = |text: &str| whole_number(&text.parse().unwrap());
        for (text, number) in [
            ("0", 0),
            ("-0.0", 0),
            ("3", 3),
            ("3.0", 3),
            ("1e1", 10),
            ("12.50E+1", 125),
            ("18446744073709551615", u64::MAX),
            ("1844674407370955161.5e1", u64::MAX),
        ] {
            assert_eq!(read(text), Some(number), "{text}");
        }
        for text in ["-1", "0.5", "18446744073709551616", "1e20", "1e300", "\"3\"", "null"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn multiples_are_exact() {
        let multiple =
            |one: &str, of: &str| Decimal::of(one).unwrap().is_multiple(&Decimal::of(of).unwrap());
        for (one, of) in [
            ("0.3", "0.1"),
            ("0", "7"),
            ("1e20", "3.2"),
            ("9007199254740993", "3"),
            ("-9", "4.5"),
            ("100000000000000000000000000000000000000002", "2"),
            ("1.10", "0.01"),
        ] {
            assert!(multiple(one, of), "{one} {of}");
        }
        for (one, of) in [
            ("0.35", "0.1"),
            ("9007199254740993", "2"),
            ("1", "3"),
            ("1", "2"),
            ("5", "10"),
            ("100000000000000000000000000000000000000001", "2"),
        ] {
            assert!(!multiple(one, of), "{one} {of}");
        }
    }

    #[test]
    fn what_a_double_holds_is_written_as_ecmascript_does() {
        for (text, written) in [
            ("1.0", Some("1")),
            ("1e2", Some("100")),
            ("-0", Some("0")),
            ("0.1", Some("0.1")),
            ("1e21", Some("1e+21")),
            ("9007199254740994", Some("9007199254740994")),
            ("9007199254740993", None),
            ("2574604874062343600", None),
            ("0.10000000000000000001", None),
            ("100000000000000000000001", None),
            ("1e400", None),
        ] {
            assert_eq!(in_double(text).as_deref(), written, "{text}");
        }
    }
}
