//! The Redis stream under any sequence of events.
//!
//! Owns a Redis that answers in order, late or wrongly, hangs or disconnects, and a record of every waiter.

use std::collections::VecDeque;
use std::time::Duration;

use portcullis_core::driver::call::CallFailure;
use portcullis_core::redis::{Cause, Command, Connection, Output};
use portcullis_core::time::UnixTime;
use portcullis_redis_lua::{Admit, Expected, Guard, Key, Value};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{cases, resp};

const TIMEOUT: Duration = Duration::from_millis(250);
/// The core's limit on its queue, plus its own ping.
const MOST_OUTSTANDING: usize = 2_048 + 1;
/// The core's limit on the silence of Redis.
const STALLED_AFTER: Duration = Duration::from_millis(500);
const GIVEN_UP_AFTER: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
enum Op {
    /// Submits this many commands, by script or not.
    Submit { many: usize, script: bool },
    /// Time passes; then the clock ticks.
    Tick(u64),
    /// Redis answers this many commands, in chunks of this many bytes.
    Answer { many: usize, chunk: usize, answer: Answer },
    /// Unrequested bytes, or bytes that are no reply.
    Noise(Vec<u8>),
    /// The stream ends.
    Close,
    /// From now on, opening the stream works or fails.
    Reachable(bool),
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Good,
    NoScript,
    Error,
    NotNow,
}

fn op() -> impl Strategy<Value = Op> {
    let answer = prop_oneof![
        6 => Just(Answer::Good),
        2 => Just(Answer::NoScript),
        1 => Just(Answer::Error),
        1 => Just(Answer::NotNow),
    ];
    let many = prop_oneof![20 => 1_usize..4, 1 => Just(2_100)];
    prop_oneof![
        8 => (many, any::<bool>()).prop_map(|(many, script)| Op::Submit { many, script }),
        6 => prop_oneof![0_u64..20, 0_u64..600, 0_u64..6_000].prop_map(Op::Tick),
        10 => (1_usize..6, 1_usize..64, answer)
            .prop_map(|(many, chunk, answer)| Op::Answer { many, chunk, answer }),
        1 => prop_oneof![resp::reply().prop_map(|reply| resp::encoded(&reply)), vec(any::<u8>(), 1..9)]
            .prop_map(Op::Noise),
        1 => Just(Op::Close),
        1 => any::<bool>().prop_map(Op::Reachable),
    ]
}

/// A command on the wire, as Redis reads it: from a waiter, or from the connection itself.
#[derive(Clone, Debug)]
struct Sent {
    waiter: Option<usize>,
    verb: &'static str,
    at: UnixTime,
}

/// The driver, Redis, and the records.
struct Bench {
    connection: Connection<usize>,
    now: UnixTime,
    reachable: bool,
    /// The commands that Redis has not answered; none while no stream is open.
    server: Option<VecDeque<Sent>>,
    /// When Redis last sent a complete reply.
    heard: UnixTime,
    /// Whether Redis was silent for too long at the last tick, and still is.
    hung: bool,
    /// For each waiter, when it asked, and how many outcomes it got.
    waiters: Vec<(UnixTime, usize)>,
}

impl Bench {
    fn new() -> Self {
        Self {
            connection: Connection::new(TIMEOUT, 7),
            now: UnixTime::from_micros(1_000_000),
            reachable: true,
            server: None,
            heard: UnixTime::from_micros(0),
            hung: false,
            waiters: Vec::new(),
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Submit { many, script } => (0..many).for_each(|_| self.submit(script)),
            Op::Tick(millis) => {
                self.now = self.now.after(Duration::from_millis(millis));
                self.tick();
            }
            Op::Answer { many, chunk, answer } => self.answer(many, chunk, answer),
            Op::Noise(bytes) => {
                if self.server.is_some() {
                    // The bytes may happen to be a reply, for the first waiter.
                    self.server = Some(VecDeque::new());
                    (self.heard, self.hung) = (self.now, false);
                    let outputs = self.connection.received(self.now, &bytes);
                    self.settle(outputs);
                    self.close();
                }
            }
            Op::Close => self.close(),
            Op::Reachable(reachable) => self.reachable = reachable,
        }
    }

    fn submit(&mut self, script: bool) {
        let waiter = self.waiters.len();
        self.waiters.push((self.now, 0));
        let name = format!("{waiter:016x}");
        let command = if script {
            let guard = Guard { key: Key::policy_document(&name), expected: Expected::Unknown };
            Command::Script(
                Admit { guards: vec![guard], windows: Vec::new(), used: None, intent: None }.call(),
            )
        } else {
            Command::Get(Key::policy_document(&name))
        };
        let hung = self.hung;
        let outputs = self.connection.submit(self.now, waiter, command);
        if hung {
            let refused = [Output::Failed(waiter, CallFailure::Refused)];
            assert_eq!(outputs, refused, "nobody waits for a Redis that hangs");
        }
        self.carry_out(outputs, &mut VecDeque::new());
    }

    fn tick(&mut self) {
        self.hung = (STALLED_AFTER..GIVEN_UP_AFTER).contains(&self.silence());
        let outputs = self.connection.tick(self.now);
        self.carry_out(outputs, &mut VecDeque::new());
        let overdue = |(asked, outcomes): &&(UnixTime, usize)| {
            *outcomes == 0 && self.now >= asked.after(TIMEOUT)
        };
        assert_eq!(self.waiters.iter().find(overdue), None, "nobody waits beyond the deadline");
    }

    /// How long Redis has owed an answer and been silent.
    fn silence(&self) -> Duration {
        let first = self.server.as_ref().and_then(VecDeque::front);
        first.map_or(Duration::ZERO, |first| self.now.since(first.at.max(self.heard)))
    }

    /// Redis answers the first `many` commands; the driver receives the answers in chunks.
    fn answer(&mut self, many: usize, chunk: usize, answer: Answer) {
        let (mut bytes, mut due) = (Vec::new(), VecDeque::new());
        for sent in self.server.iter_mut().flat_map(|server| server.drain(..many.min(server.len())))
        {
            let reply = match (answer, sent.waiter) {
                (Answer::NoScript, _) if sent.verb.starts_with("EVAL") => {
                    Value::Error("NOSCRIPT No matching script.".into())
                }
                (Answer::Error, _) => Value::Error("ERR no".into()),
                (Answer::NotNow, _) => Value::Error("LOADING not now".into()),
                (_, waiter) => Value::Bulk(format!("{waiter:?}").into_bytes()),
            };
            bytes.extend(resp::encoded(&reply));
            due.push_back((sent, reply));
        }
        for chunk in bytes.chunks(chunk) {
            if self.server.is_none() {
                return;
            }
            (self.heard, self.hung) = (self.now, false);
            let outputs = self.connection.received(self.now, chunk);
            self.carry_out(outputs, &mut due);
        }
        if self.server.is_some() {
            assert!(due.iter().all(|answered| self.needs_no_ear(answered)), "unheard: {due:?}");
        }
    }

    /// Whether an answer needs no receiver: the connection itself asked, or it sends the script again, or its waiter
    /// got another outcome before.
    fn needs_no_ear(&self, (sent, reply): &(Sent, Value)) -> bool {
        let cured = reply.is_noscript() && sent.verb == "EVALSHA";
        cured || sent.waiter.is_none_or(|waiter| self.waiters[waiter].1 > 0)
    }

    fn close(&mut self) {
        if self.server.take().is_some() {
            self.hung = false;
            let outputs = self.connection.closed(self.now);
            self.carry_out(outputs, &mut VecDeque::new());
        }
    }

    /// Executes the outputs; `due` has Redis's answers that no waiter has received yet, in order.
    fn carry_out(&mut self, outputs: Vec<Output<usize>>, due: &mut VecDeque<(Sent, Value)>) {
        for output in outputs {
            match output {
                Output::Open => self.open(),
                Output::Send(bytes) => self.send(&bytes),
                Output::Close(cause) => {
                    let silent = self.silence() >= GIVEN_UP_AFTER;
                    assert_eq!(cause == Cause::Silent, silent, "{cause}");
                    assert!(self.server.take().is_some(), "closed what is not open");
                }
                Output::Reply(waiter, value) => {
                    let (sent, answer) = loop {
                        let answered = due.pop_front().expect("an answer to hear");
                        if answered.0.waiter == Some(waiter) {
                            break answered;
                        }
                        assert!(self.needs_no_ear(&answered), "passed over: {answered:?}");
                    };
                    assert_eq!(value, answer, "another's reply");
                    let curable = value.is_noscript() && sent.verb == "EVALSHA";
                    assert!(!curable, "a forgotten script was not sent again");
                    self.waiters[waiter].1 += 1;
                }
                Output::Failed(waiter, _) => self.waiters[waiter].1 += 1,
            }
        }
    }

    /// Outputs after noise: any outcome counts.
    fn settle(&mut self, outputs: Vec<Output<usize>>) {
        for output in outputs {
            match output {
                Output::Reply(waiter, _) | Output::Failed(waiter, _) => self.waiters[waiter].1 += 1,
                Output::Close(_) => self.server = None,
                Output::Send(_) => assert!(self.server.is_some(), "sent while down"),
                Output::Open => panic!("opened by noise"),
            }
        }
    }

    fn open(&mut self) {
        assert!(self.server.is_none(), "opened twice");
        let outputs = if self.reachable {
            self.server = Some(VecDeque::new());
            self.connection.opened(self.now)
        } else {
            self.connection.closed(self.now)
        };
        self.carry_out(outputs, &mut VecDeque::new());
    }

    fn send(&mut self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let verbs = ["EVALSHA", "EVAL", "GET", "PING"];
        let verb =
            verbs.into_iter().find(|verb| text.contains(&format!("\r\n{verb}\r\n"))).unwrap();
        let waiter = text
            .rsplit_once("portcullis:policy:doc:")
            .and_then(|(_, rest)| usize::from_str_radix(rest.get(..16)?, 16).ok());
        let server = self.server.as_mut().expect("sent while down");
        server.push_back(Sent { waiter, verb, at: self.now });
        assert!(server.len() <= MOST_OUTSTANDING, "{} outstanding", server.len());
    }
}

proptest! {
    #![proptest_config(cases(128))]

    // Proves: B2
    #[test]
    fn every_command_gets_one_outcome_and_no_other_commands_reply(ops in vec(op(), 1..60)) {
        let mut bench = Bench::new();
        for op in ops {
            bench.run(op);
            let heard = bench.waiters.iter().filter(|(_, outcomes)| *outcomes > 1).count();
            prop_assert_eq!(heard, 0, "a waiter heard twice");
        }
        // At the end no waiter is left, whatever Redis does.
        bench.run(Op::Tick(6_000));
        for (waiter, (_, outcomes)) in bench.waiters.iter().enumerate() {
            prop_assert_eq!(*outcomes, 1, "outcomes of waiter {}", waiter);
        }
    }
}
