//! Ranges of addresses: the sources of a key, and the trusted proxies.
//!
//! Owns what a range is and when it contains an address. Does not know whose address it is: the driver gives the
//! address of the connection's peer, and no header counts.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One range, such as `10.1.0.0/16` or `2001:db8::/32`; a single address is a range of one.
///
/// An IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2) is the IPv4 address: which of the two a peer has depends on the
/// listener's socket. Hence `::/0` is every IPv6 address, and no IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceRange(IpNet);

impl SourceRange {
    /// The form of a valid range, for error messages.
    pub const EXPECTED: &'static str =
        "an address or a range without host bits, such as 192.0.2.7, 10.1.0.0/16 or 2001:db8::/32";

    /// Reads a range. `None` when `text` is no range, or has host bits set: `10.1.2.3/8` may mean one address or
    /// sixteen million.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let range = match text.parse::<IpNet>() {
            Ok(range) => range,
            Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
        };
        (range.addr() == range.network()).then(|| Self(unmapped(range)))
    }

    /// Whether `address` lies in this range.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

/// A range of IPv4-mapped addresses as the IPv4 range that it is.
fn unmapped(range: IpNet) -> IpNet {
    let mapped = match range {
        IpNet::V6(range) => range.addr().to_ipv4_mapped().zip(range.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    let mapped = mapped.and_then(|(address, length)| IpNet::new(address.into(), length).ok());
    mapped.unwrap_or(range)
}

impl fmt::Display for SourceRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            return self.0.addr().fmt(f);
        }
        self.0.fmt(f)
    }
}

impl Serialize for SourceRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SourceRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).ok_or_else(|| {
            let expected = Self::EXPECTED;
            serde::de::Error::custom(format_args!("found {text:?}, expected {expected}"))
        })
    }
}

/// Several ranges; an address must be in one of them. An empty list contains no address: "from anywhere" is the absence
/// of this list, not an empty one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SourceRanges(Vec<SourceRange>);

impl SourceRanges {
    /// These ranges.
    #[must_use]
    pub fn new(ranges: Vec<SourceRange>) -> Self {
        Self(ranges)
    }

    /// Whether `address` (without a port, as [`crate::driver::event::Head::client_address`] has it) lies in one of the
    /// ranges. Text that is no address lies in none.
    #[must_use]
    pub fn contains(&self, address: &str) -> bool {
        let Ok(address) = address.parse::<IpAddr>() else { return false };
        self.0.iter().any(|range| range.contains(address))
    }

    /// Whether no address can be contained.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges, in the order in which they were written.
    pub fn iter(&self) -> std::slice::Iter<'_, SourceRange> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a SourceRanges {
    type Item = &'a SourceRange;
    type IntoIter = std::slice::Iter<'a, SourceRange>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// A comma-separated list: `10.0.0.0/8, 192.0.2.7`.
impl fmt::Display for SourceRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            range.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(texts: &[&str]) -> SourceRanges {
        SourceRanges::new(texts.iter().map(|text| SourceRange::new(text).unwrap()).collect())
    }

    #[test]
    fn an_address_lies_in_a_range_or_not() {
        let ranges = ranges(&["10.1.0.0/16", "192.0.2.7", "2001:db8::/32", "::1"]);
        for inside in ["10.1.0.0", "10.1.255.255", "192.0.2.7", "2001:db8:ffff::1", "::1"] {
            assert!(ranges.contains(inside), "{inside}");
        }
        let outside = ["10.2.0.0", "10.0.255.255", "192.0.2.8", "2001:db9::", "::2", "::192.0.2.7"];
        let no_address = ["", "10.1.0.1:80", "[::1]", "10.1", "10.1.0.01", "::1%eth0", "localhost"];
        for text in outside.iter().chain(&no_address) {
            assert!(!ranges.contains(text), "{text}");
        }
        assert!(!SourceRanges::default().contains("10.1.0.1"));
    }

    #[test]
    fn a_mapped_address_is_the_address_it_maps() {
        assert!(ranges(&["10.0.0.0/8"]).contains("::ffff:10.9.9.9"));
        assert!(ranges(&["::ffff:10.0.0.0/104"]).contains("10.9.9.9"));
        assert!(ranges(&["::ffff:192.0.2.7"]).contains("192.0.2.7"));
        assert!(ranges(&["::ffff:0:0/96"]).contains("192.0.2.7"));
        assert!(!ranges(&["::/0"]).contains("192.0.2.7"));
        assert!(!ranges(&["::/0"]).contains("::ffff:192.0.2.7"));
        assert!(!ranges(&["0.0.0.0/0"]).contains("2001:db8::1"));
    }

    #[test]
    fn what_is_not_clearly_a_range_is_none() {
        let bad = [
            "",
            "10.1.2.3/8",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0/8",
            "::/129",
            "2001:db8::1/32",
            "*",
            " 10.0.0.0/8",
            "10.0.0.0/8 ",
            "10.0.0.0/255.0.0.0",
            "10.0.0.0-10.0.0.9",
            "example.com",
        ];
        for text in bad {
            assert_eq!(SourceRange::new(text), None, "{text:?}");
        }
    }

    #[test]
    fn ranges_are_written_as_they_are_read() {
        let json = r#"["10.0.0.0/8","192.0.2.7","2001:db8::/32"]"#;
        let ranges: SourceRanges = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&ranges).unwrap(), json);
        assert_eq!(ranges.to_string(), "10.0.0.0/8, 192.0.2.7, 2001:db8::/32");
        let fault = serde_json::from_str::<SourceRanges>(r#"["10.1.2.3/8"]"#).unwrap_err();
        assert!(fault.to_string().starts_with("found \"10.1.2.3/8\", expected an address or a"));
    }
}
