//! Lists of tools in responses, in every form in which servers send them.
//!
//! Owns a client that searches for tools in all possible places.

use std::time::Duration;

use portcullis_core::driver::call::{CallId, DependencyCall, Reply};
use portcullis_core::driver::event::{Event, Head, Origin, ResponseHead};
use portcullis_core::driver::step::{Effect, Gate, RequestGate, ResponseGate, Step};
use portcullis_core::exchange::Exchange;
use portcullis_core::id::RequestId;
use portcullis_core::time::UnixTime;
use portcullis_core::worker::Worker;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use crate::{cases, fixtures, json};

const NOW: UnixTime = UnixTime::from_micros(fixtures::START * 1_000_000);
const BODY: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;

/// Whether an analyst sees `tool` on `open`, in policy v1.
fn is_visible(tool: &str) -> bool {
    tool.starts_with("query_") || tool.starts_with("create_")
}

/// A message of a server, most of them lists of tools.
fn message() -> impl Strategy<Value = Value> {
    let name = select(vec!["query_users", "query_", "create_note", "delete_user", "Query_x", ""]);
    let tool = prop_oneof![
        9 => name.prop_map(|name| json!({"name": name, "inputSchema": {"type": "object"}})),
        1 => json::value(),
    ];
    let list = (vec(tool, 0..5), any::<Option<u32>>()).prop_map(
        |(tools, ttl)| json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools, "ttlMs": ttl}}),
    );
    prop_oneof![
        6 => list,
        1 => Just(json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}})),
        1 => json::value(),
    ]
    .prop_recursive(1, 4, 3, |inner| vec(inner, 0..3).prop_map(Value::from))
}

fn step(exchange: &mut Exchange, worker: &mut Worker, event: Event) -> Step {
    exchange.step(worker, NOW, event)
}

/// An exchange whose request for a list has passed.
fn passed(worker: &mut Worker) -> Exchange {
    let mut exchange = Exchange::default();
    let header = |name: &str, value: &str| (name.into(), value.into());
    let headers = vec![
        header(":method", "POST"),
        header(":path", "/open/mcp"),
        header("content-type", "application/json"),
        header("x-api-key", fixtures::key("analyst")),
    ];
    let head = Head::new(RequestId::new("r-1").unwrap(), "192.0.2.7".into(), headers);
    let _ = step(&mut exchange, worker, Event::Head { head, last: false });
    let mut last = step(&mut exchange, worker, Event::Body(BODY.to_vec()));
    let truth = fixtures::Truth {
        records: std::array::from_fn(|_| Some("1g".to_owned())),
        policy: Some("v1"),
    };
    while let [Effect::Start { id, call }, ..] = last.effects.as_slice() {
        let reply = match call {
            DependencyCall::Admit(script) => {
                let expected = [1, 2].map(|at| std::str::from_utf8(&script.args[at]).unwrap());
                Reply::Redis(truth.admit("analyst", expected, 0))
            }
            DependencyCall::Policy(version) => {
                let document = fixtures::document("v1").to_string();
                worker.policy_read(version, Some(document.as_bytes()), NOW);
                Reply::Policy
            }
            other => panic!("nothing here needs {other:?}"),
        };
        let (id, reply): (CallId, _) = (*id, reply);
        last = step(&mut exchange, worker, Event::CallDone { id, reply });
    }
    assert!(matches!(last.gate, Gate::Request(RequestGate::Pass)), "{last:?}");
    exchange
}

/// The client's part of a response in these chunks.
fn received(media: &str, chunks: Vec<Vec<u8>>) -> Vec<u8> {
    let worker = &mut fixtures::worker(Duration::ZERO);
    let mut exchange = passed(worker);
    let head = Event::ResponseHead(ResponseHead {
        status: 200,
        content_type: media.into(),
        content_encoding: Vec::new(),
        session_id: Vec::new(),
        others: Vec::new(),
        origin: Origin::Upstream,
        last: false,
    });
    match step(&mut exchange, worker, head).gate {
        Gate::Response(ResponseGate::Observe) => {}
        Gate::Response(ResponseGate::Replace(denial)) => return exchange.reply(&denial).body,
        gate => panic!("a list that nobody looks at: {gate:?}"),
    }
    let (mut out, most) = (Vec::new(), chunks.len());
    for (at, bytes) in chunks.into_iter().enumerate() {
        let event = Event::ResponseBody { bytes: bytes.clone(), last: at + 1 == most };
        let Step { effects, gate } = step(&mut exchange, worker, event);
        if let Gate::Response(ResponseGate::Replace(denial)) = gate {
            return exchange.reply(&denial).body;
        }
        let replaced = effects.into_iter().find_map(|effect| match effect {
            Effect::ReplaceResponseBody(bytes) => Some(bytes),
            _ => None,
        });
        out.extend(replaced.unwrap_or(bytes));
    }
    out
}

/// The names of all tools that a lenient client would find in a message.
fn tools(message: &Value) -> Vec<String> {
    if let Value::Array(batch) = message {
        return batch.iter().flat_map(tools).collect();
    }
    let list = message.pointer("/result/tools").and_then(Value::as_array);
    let names = list.into_iter().flatten().filter_map(|tool| tool.get("name")?.as_str());
    names.map(str::to_owned).collect()
}

/// Whether a message has the answer to the request.
fn answers(message: &Value) -> bool {
    match message {
        Value::Array(batch) => batch.iter().any(answers),
        message => message["id"] == 1 && (message.get("result").or(message.get("error"))).is_some(),
    }
}

fn visible(tools: Vec<String>) -> Vec<String> {
    tools.into_iter().filter(|tool| is_visible(tool)).collect()
}

proptest! {
    #![proptest_config(cases(192))]

    // Proves: C3
    #[test]
    fn a_json_list_shows_what_the_caller_may_see_and_all_of_it(
        message in message(),
        media in select(vec!["application/json", "application/json; charset=utf-8", "text/plain", ""]),
        size in 1_usize..200,
    ) {
        let text = message.to_string().into_bytes();
        let body = received(media, text.chunks(size).map(<[u8]>::to_vec).collect());
        let seen: Value = serde_json::from_slice(&body).unwrap();
        let json = media.starts_with("application/json");
        let expected = if json { visible(tools(&message)) } else { Vec::new() };
        prop_assert_eq!(tools(&seen), expected);
    }

    // Proves: C3, B3
    #[test]
    fn a_streamed_list_shows_no_more_whatever_the_chunks(
        messages in vec((message(), select(vec!["\n", "\r\n", "\r"]), any::<bool>()), 1..4),
        cuts in vec(any::<Index>(), 0..6),
    ) {
        let event = |(message, end, pretty): &(Value, &str, bool)| {
            let text = if *pretty { format!("{message:#}") } else { message.to_string() };
            let lines = text.lines().map(|line| format!("data: {line}{end}"));
            format!("event: message{end}{}{end}", lines.collect::<String>())
        };
        let stream: String = messages.iter().map(event).collect();
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        ends.push(stream.len());
        ends.sort_unstable();
        let mut from = 0;
        let chunks = ends.into_iter().map(|end| {
            stream.as_bytes()[std::mem::replace(&mut from, end)..end].to_vec()
        });
        let out = String::from_utf8(received("text/event-stream", chunks.collect())).unwrap();
        let out = out.replace("\r\n", "\n").replace('\r', "\n");
        let seen = out.split("\n\n").filter(|event| !event.is_empty()).map(|event| {
            let data: Vec<_> = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
            serde_json::from_str::<Value>(&data.join("\n")).unwrap()
        });
        let mut seen: Vec<_> = seen.collect();
        prop_assert!(seen.iter().any(answers), "no client waits for ever: {seen:?}");
        if seen.len() > messages.len() {
            prop_assert!(!messages.iter().any(|(message, ..)| answers(message)));
            let error = seen.pop().unwrap();
            prop_assert_eq!((&error["id"], &error["error"]["code"]), (&json!(1), &json!(-31_502)));
        }
        let seen: Vec<_> = seen.iter().map(tools).collect();
        let expected: Vec<_> = messages
            .iter()
            .map(|(message, ..)| visible(tools(message)))
            .collect();
        prop_assert_eq!(seen, expected);
    }
}
