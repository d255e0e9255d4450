//! What ran, what was drawn, what was charged and what was written down are the same, whatever a client does.
//!
//! Random requests over both versions of HTTP: good and bad ones, in pieces, broken off at every point, with headers that
//! proxies obey. The same seed each time; `PORTCULLIS_TEST_REQUESTS=10000` for more of them.

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis_stack::ready;
use portcullis_tests::fake::{FakeUpstream, event_answer, json_answer};
use portcullis_tests::http2::Http2;
use portcullis_tests::organisation::{Organisation, PYTHON};
use portcullis_tests::{Case, Request, Wire, World, cases, mcp};
use serde_json::{Value, json};

use super::request_headers::{Dice, OBEYED, internal, requests};

pub(crate) fn cases() -> Vec<Case> {
    cases!["accounts": what_ran_was_drawn_charged_and_written_down_once]
}

const LIMIT: u64 = 400_000;
const PRICE: u64 = 2;
/// Rows of each answer; a credit each.
const ROWS: u64 = 3;

/// What a client does with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientBehaviour {
    /// Sends it whole and reads the answer.
    Whole,
    /// The same, in two pieces.
    Pieces,
    /// The same, over HTTP/2.
    Http2,
    /// Leaves after the head.
    LeavesAfterHead,
    /// Leaves in the middle of the body.
    LeavesInBody,
    /// Leaves after the last byte, before the answer.
    LeavesBeforeAnswer,
    /// Resets the stream there, over HTTP/2.
    ResetsBeforeAnswer,
}

const DEEDS: [ClientBehaviour; 10] = [
    ClientBehaviour::Whole,
    ClientBehaviour::Whole,
    ClientBehaviour::Whole,
    ClientBehaviour::Pieces,
    ClientBehaviour::Http2,
    ClientBehaviour::Http2,
    ClientBehaviour::LeavesAfterHead,
    ClientBehaviour::LeavesInBody,
    ClientBehaviour::LeavesBeforeAnswer,
    ClientBehaviour::ResetsBeforeAnswer,
];

/// One request of the trial.
struct PlannedRequest {
    request: Request,
    deed: ClientBehaviour,
    /// Whether the policy lets it run.
    good: bool,
}

fn trial(number: usize, key: &str, dice: &mut Dice) -> PlannedRequest {
    let message = |tool: &str| mcp::call(tool, json!({"message": format!("mark-{number}-")}));
    let good = message("echo").to_string();
    let post = |body: String| Request::post(PYTHON, body).bearer(key);
    let (mut request, mut good) = match dice.roll(14) {
        0 => (post(message("forbidden").to_string()), false),
        1 => (post(good[..good.len() - 1].to_owned()), false),
        2 => (post(good.replacen("\"method\"", "\"method\":\"ping\",\"method\"", 1)), false),
        3 => (Request::post(PYTHON, good).bearer("nobody's"), false),
        4 => (Request { method: "PUT".to_owned(), ..post(good) }, false),
        5 => (Request { method: "DELETE".to_owned(), ..post(good) }, false),
        6 => (post(format!("[{good}]")), false),
        _ => (post(good), true),
    };
    for _ in 0..dice.roll(5) {
        let (name, values) = OBEYED[dice.roll(OBEYED.len())];
        request = request.header(name, values[dice.roll(values.len())]);
    }
    let deed = DEEDS[dice.roll(DEEDS.len())];
    good &= !matches!(deed, ClientBehaviour::LeavesAfterHead | ClientBehaviour::LeavesInBody);
    PlannedRequest { request, deed, good }
}

/// Carries it out; whether its answer has rows, if it was read.
fn carry_out(trial: &PlannedRequest, org: &Organisation) -> Option<bool> {
    let address = org.gateway.address();
    let head = trial.request.head(trial.request.body.as_ref().map(Vec::len));
    let body = trial.request.body.as_deref().unwrap_or_default();
    let (first, second) = body.split_at(body.len() / 2);
    let rows = |body: &[u8]| String::from_utf8_lossy(body).contains("\"rows\"");
    match trial.deed {
        ClientBehaviour::Whole | ClientBehaviour::Pieces => {
            let mut wire = Wire::connect(address).unwrap();
            wire.write(&head).unwrap();
            for piece in
                if trial.deed == ClientBehaviour::Whole { vec![body] } else { vec![first, second] }
            {
                // A refusal may have come before the end.
                let _ = wire.write(piece);
            }
            Some(rows(&wire.read_reply().unwrap().body))
        }
        ClientBehaviour::Http2 => {
            let reply = Http2::connect(address).unwrap().exchange(&trial.request);
            Some(rows(&reply.unwrap().body))
        }
        ClientBehaviour::LeavesAfterHead => {
            Wire::connect(address).unwrap().write(&head).map(|()| None).unwrap()
        }
        ClientBehaviour::LeavesInBody => {
            let mut wire = Wire::connect(address).unwrap();
            let _ = wire.write(&[head.as_slice(), first].concat());
            None
        }
        ClientBehaviour::LeavesBeforeAnswer => {
            let mut wire = Wire::connect(address).unwrap();
            let _ = wire.write(&[head.as_slice(), body].concat());
            None
        }
        ClientBehaviour::ResetsBeforeAnswer => {
            let client = Http2::connect(address).unwrap();
            let mut open = client.open(&trial.request).unwrap();
            let _ = client.send(&mut open, body, true);
            client.reset(open).unwrap();
            None
        }
    }
}

fn mark(text: &str) -> Option<&str> {
    text.split("mark-").nth(1)?.split('-').next()
}

// Findings 1.1 and 5.4: what a call costs and how often it runs are not the client's to choose.
// Proves: B2, A1, B12, C4
fn what_ran_was_drawn_charged_and_written_down_once(world: &World<'_>) {
    let count = requests(250);
    let fake = FakeUpstream::answering(|request| {
        let result = json!({"content": [], "structuredContent": {"rows": vec![1; ROWS as usize]}});
        let answer = json!({"jsonrpc": "2.0", "id": 1, "result": result}).to_string();
        match mark(request).and_then(|mark| mark.parse::<u64>().ok()).unwrap_or_default() % 3 {
            0 => event_answer(&format!("data: {answer}\n\n"), 40),
            _ => json_answer(&answer),
        }
    });
    let own = internal(world, &fake);
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["connectors"]["python"]["tools"] = json!({"echo": {"price": PRICE, "row_price": 1}});
        policy["tiers"]["wide"]["limits"] = json!({
            "calls": {"limit": LIMIT, "window": "1h"},
            "credits": {"limit": LIMIT, "window": "1h", "cost": "credits"},
        });
    })
    .through(&own.gateway);
    let key = org.key("analyst").key;
    let mut dice = Dice(2);
    // Its window of credits, and that of calls, are read before and after.
    let left = |what: &str| {
        let message = mcp::call("echo", json!({"message": what}));
        let answer = org.gateway.send(&Request::post(PYTHON, message.to_string()).bearer(&key));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let field = answer.header("ratelimit").unwrap();
        let of = |name: &str| {
            let part = field.split(", ").find(|part| part.contains(name)).unwrap();
            let rest = part.split(";r=").nth(1).unwrap();
            rest.split(';').next().unwrap().parse::<u64>().unwrap()
        };
        answer.audit();
        (of("tiers.wide.calls"), of("tiers.wide.credits"))
    };
    let before = left("before");
    let trials: Vec<PlannedRequest> =
        (0..count).map(|number| trial(number, &key, &mut dice)).collect();
    for trial in &trials {
        let passed = carry_out(trial, &org);
        let expected = passed.map(|_| trial.good);
        assert_eq!(passed, expected, "{:?}: {:?}", trial.deed, trial.request);
    }
    let address = "client_address";
    let total = count + 1;
    let entries = ready::eventually("an entry for each", Duration::from_secs(20), || {
        let entries = org.gateway.audit().entries();
        (entries.len() >= total).then_some(entries)
    });
    let entries = entries.unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(entries.len(), total, "entries and requests");
    assert!(entries.iter().all(|entry| entry[address].is_string()));
    let after = left("after");
    let mut executions: BTreeMap<String, usize> = BTreeMap::new();
    for request in fake.requests() {
        *executions.entry(mark(&request).unwrap_or("none").to_owned()).or_default() += 1;
    }
    // Those two that read the windows have no mark.
    assert_eq!(executions.remove("none"), Some(2));
    let mut priced: BTreeMap<String, &Value> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.get("credits").is_some()) {
        let input = entry["input"].to_string();
        let mark = mark(&input).unwrap_or("none").to_owned();
        assert!(priced.insert(mark, entry).is_none(), "two entries: {entry}");
    }
    let first = priced.remove("none").unwrap();
    assert_eq!(first["credits"], PRICE + ROWS);
    let mut gone_between = 0;
    for (number, trial) in trials.iter().enumerate() {
        let mark = number.to_string();
        let ran = executions.get(&mark).copied().unwrap_or_default();
        let entry = priced.get(&mark);
        let what = format!("{number} {:?} {:?}: {entry:?}", trial.deed, trial.request);
        match (trial.good, trial.deed) {
            (false, _) => assert_eq!((ran, entry.is_some()), (0, false), "{what}"),
            (true, ClientBehaviour::LeavesBeforeAnswer | ClientBehaviour::ResetsBeforeAnswer) => {
                assert!(ran <= 1, "{what}");
                // What ran was admitted, and its entry says what it cost.
                assert!(ran == 0 || entry.is_some(), "{what}");
                gone_between += u64::from(entry.is_none());
            }
            (true, _) => {
                assert_eq!((ran, entry.is_some()), (1, true), "{what}");
                assert_eq!(entry.unwrap()["credits"], PRICE + ROWS, "{what}");
            }
        }
    }
    let credits = |entry: &&Value| entry["credits"].as_u64().unwrap();
    let charged: u64 = priced.values().map(credits).sum();
    let drawn = before.0 - after.0 - 1;
    let drawn_credits = before.1 - (after.1 + PRICE) - ROWS;
    let written = priced.len() as u64;
    eprintln!(
        "{count} requests: {} ran, {drawn} drawn, {written} priced entries, {charged} credits in entries, \
         {drawn_credits} drawn; {gone_between} clients left before their verdict",
        executions.len()
    );
    // A client that leaves while Redis admits its call has drawn, and nothing ran.
    assert!((written..=written + gone_between).contains(&drawn), "draws: {drawn} {written}");
    let most = charged + gone_between * PRICE;
    assert!((charged..=most).contains(&drawn_credits), "credits: {drawn_credits} {charged}");
}
