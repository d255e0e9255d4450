//! Many clients that call without a pause, and the result of each call.
//!
//! Owns the connections and the times: when a call was sent and when its answer arrived. Checks nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::gateway::Gateway;
use crate::wire::{Reply, Request, Wire};

/// A crowd without progress is a failure, not a hang.
const PATIENCE: Duration = Duration::from_secs(30);

/// One call.
#[derive(Clone, Debug)]
pub struct Met {
    /// The index of the gateway that got the call.
    pub gateway: usize,
    pub sent: SystemTime,
    pub received: SystemTime,
    pub reply: Reply,
}

impl Met {
    /// Whether a result came back, and no error of any kind.
    pub fn is_admitted(&self) -> bool {
        self.reply.status == 200 && self.code() == 0
    }

    /// The code of the JSON-RPC error; 0 if there is none.
    pub fn code(&self) -> i64 {
        let body = String::from_utf8_lossy(&self.reply.body);
        // The demo connector streams its answers; the gateway's refusals are plain JSON.
        let json = body.lines().rev().find_map(|line| line.strip_prefix("data:")).unwrap_or(&body);
        let message: Value = serde_json::from_str(json).unwrap_or_else(|_| panic!("{body:?}"));
        message["error"]["code"].as_i64().unwrap_or_default()
    }
}

/// Clients at work.
#[derive(Debug)]
pub struct Crowd {
    calls: Vec<AtomicU64>,
    over: AtomicBool,
}

impl Crowd {
    /// Runs `clients` clients that call without a pause while `during` runs. Each client has one connection to one of
    /// `gateways`, in turn; `request` makes a new request for every call. Returns the results of all calls, in the
    /// order of each client, and the result of `during`.
    pub fn calls_during<R>(
        gateways: &[&Gateway],
        clients: usize,
        request: impl Fn() -> Request + Sync,
        during: impl FnOnce(&Self) -> R,
    ) -> (Vec<Met>, R) {
        let crowd = Self {
            calls: (0..clients).map(|_| AtomicU64::new(0)).collect(),
            over: AtomicBool::new(false),
        };
        thread::scope(|scope| {
            let clients: Vec<_> = (0..clients)
                .map(|client| {
                    let (crowd, request) = (&crowd, &request);
                    scope.spawn(move || {
                        let gateway = client % gateways.len();
                        crowd.call(client, gateway, gateways[gateway], request)
                    })
                })
                .collect();
            // Stops the clients even if `during` panics, so that the test does not wait forever.
            let _over = Over(&crowd.over);
            let result = during(&crowd);
            drop(_over);
            let met = clients.into_iter().flat_map(|client| client.join().expect("a client"));
            (met.collect(), result)
        })
    }

    fn call(
        &self,
        client: usize,
        gateway: usize,
        to: &Gateway,
        request: impl Fn() -> Request,
    ) -> Vec<Met> {
        let mut wire = Wire::connect(to.address()).expect("connect to the gateway");
        let mut met = Vec::new();
        while !self.over.load(Ordering::Relaxed) {
            let request = request();
            let sent = SystemTime::now();
            let reply = wire.exchange(&request).expect("every call is answered");
            met.push(Met { gateway, sent, received: SystemTime::now(), reply });
            self.calls[client].fetch_add(1, Ordering::Relaxed);
        }
        met
    }

    /// Waits until every client has made `more` further calls.
    pub fn each_makes(&self, more: u64) {
        let count = |calls: &AtomicU64| calls.load(Ordering::Relaxed);
        // The call in progress does not count.
        let goals: Vec<u64> = self.calls.iter().map(|calls| count(calls) + more + 1).collect();
        let what = format!("{more} further calls of each client");
        let done = portcullis_stack::ready::eventually(&what, PATIENCE, || {
            let reached = self.calls.iter().zip(&goals).all(|(calls, goal)| count(calls) >= *goal);
            reached.then_some(())
        });
        done.unwrap_or_else(|fault| panic!("{fault}"));
    }
}

/// Stops the crowd, also when the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
