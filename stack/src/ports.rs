//! The loopback port of each part of a stack.
//!
//! | part                | with `--port-base N` |
//! |---------------------|----------------------|
//! | gateway (Envoy)     | N                    |
//! | Envoy admin         | N + 1                |
//! | Valkey              | N + 2                |
//! | OpenBao             | N + 3                |
//! | demo connector      | N + 4                |
//! | Python MCP server   | N + 5                |
//! | gateway with TLS    | N + 6                |
//!
//! Without a base every port is a free one. Knows nothing about the parts themselves.

use crate::error::{Result, StackError};
use std::collections::HashSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Below the range from which systems give ports to outgoing connections: none of those can take a port between the
/// moment it was found free and the moment the server binds it.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// How many ports a stack has.
const COUNT: u16 = 7;

static HANDED_OUT: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// The ports of one stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    pub gateway: u16,
    pub envoy_admin: u16,
    pub valkey: u16,
    pub openbao: u16,
    pub connector: u16,
    pub python: u16,
    pub gateway_tls: u16,
}

impl Ports {
    /// Free ports, different from all others that this process got.
    pub fn free() -> Result<Self> {
        Ok(Self {
            gateway: free_port()?,
            envoy_admin: free_port()?,
            valkey: free_port()?,
            openbao: free_port()?,
            connector: free_port()?,
            python: free_port()?,
            gateway_tls: free_port()?,
        })
    }

    /// A warning when the kernel gives some of the ports from `base` on to outgoing connections: one of those may take
    /// a port between the moment it was found free and the moment its server binds it.
    pub fn risk_of(base: u16) -> Option<String> {
        let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
        risk_within(base, &range)
    }

    /// `base` and the six ports after it, as in the table above; fails when one of them is taken.
    pub fn consecutive(base: u16) -> Result<Self> {
        let missing = |what: String| StackError::Missing {
            what,
            next_step: "choose another --port-base".to_owned(),
        };
        let port = |offset: u16| {
            let port = base
                .checked_add(offset)
                .ok_or_else(|| missing(format!("the ports from {base} on do not exist")))?;
            if is_free(port) { Ok(port) } else { Err(missing(format!("port {port} is taken"))) }
        };
        Ok(Self {
            gateway: port(0)?,
            envoy_admin: port(1)?,
            valkey: port(2)?,
            openbao: port(3)?,
            connector: port(4)?,
            python: port(5)?,
            gateway_tls: port(6)?,
        })
    }
}

/// The warning for `base` when the kernel's range for outgoing connections is `range`: two numbers.
fn risk_within(base: u16, range: &str) -> Option<String> {
    let mut bounds = range.split_ascii_whitespace().map(str::parse::<u16>);
    let (first, last) = (bounds.next()?.ok()?, bounds.next()?.ok()?);
    let inside = base.saturating_add(COUNT - 1) >= first && base <= last;
    inside.then(|| {
        format!(
            "--port-base {base} is inside {first} to {last}, from which this system gives ports to outgoing connections: a \
             start may fail with \"Address already in use\"; choose a base below {}",
            first.saturating_sub(COUNT - 1)
        )
    })
}

/// An address on the loopback interface; nothing here ever listens elsewhere.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// One free port. Processes start their search at different places, so that they seldom collide.
pub fn free_port() -> Result<u16> {
    let mut handed_out = HANDED_OUT.lock().unwrap_or_else(PoisonError::into_inner);
    let length = usize::from(RANGE.end - RANGE.start);
    let mut candidates = RANGE.cycle().skip(start() % length).take(length);
    let port =
        candidates.find(|port| !handed_out.contains(port) && is_free(*port)).ok_or_else(|| {
            let what = format!("no loopback port from {} to {} is free", RANGE.start, RANGE.end);
            StackError::Missing {
                what,
                next_step: "end some of the programs that listen there".to_owned(),
            }
        })?;
    handed_out.insert(port);
    Ok(port)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(loopback(port)).is_ok()
}

fn start() -> usize {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    let mixed = u64::from(std::process::id()).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23)
        ^ u64::from(nanos);
    usize::try_from(mixed % 100_000).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Finding 8.7: "Address already in use", now and then.
    #[test]
    fn a_base_among_the_ports_of_outgoing_connections_is_warned_of() {
        const RANGE: &str = "32768\t60999\n";
        assert_eq!(risk_within(10_000, RANGE), None);
        assert_eq!(risk_within(32_761, RANGE), None);
        assert!(risk_within(32_762, RANGE).is_some_and(|risk| risk.contains("below 32762")));
        assert!(risk_within(60_999, RANGE).is_some());
        assert_eq!(risk_within(61_000, RANGE), None);
    }
}
