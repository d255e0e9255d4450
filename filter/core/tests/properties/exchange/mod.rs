//! Exchanges under any sequence of events, several of them on one worker.
//!
//! Owns the probability of each operation: enough honest ones that requests pass, and enough others that the core must
//! verify everything. `watch` owns the properties.

mod approval;
mod bench;
mod history;
mod op;
mod redis_reply;
mod secrets;
mod watch;

use std::time::Duration;

use portcullis_core::driver::call::CallFailure;
use portcullis_core::driver::event::{End, Origin};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::{cases, fixtures, json, resp};
use bench::Bench;
use op::{Admission, Ask, BodyOp, Bytes, FaultyReply, HeadOp, Op, Turn, Which};

fn rev() -> impl Strategy<Value = Option<String>> {
    let state = prop_oneof![5 => Just('g'), 3 => Just('m'), 6 => select(fixtures::STATES.to_vec())];
    option::weighted(0.9, (0..2, state).prop_map(|(number, state)| format!("{number}{state}")))
}

fn policy() -> impl Strategy<Value = Option<&'static str>> {
    let some = prop_oneof![
        8 => select(fixtures::POLICIES[..3].to_vec()),
        1 => Just("broken"),
    ];
    option::weighted(0.9, some)
}

fn holder() -> impl Strategy<Value = usize> {
    prop_oneof![8 => Just(0), 4 => Just(1), 1 => Just(2)]
}

fn ask() -> impl Strategy<Value = Ask> {
    let tool = prop_oneof![
        4 => Just("query_users"),
        2 => Just("create_note"),
        1 => select(vec!["delete_user", "Query_users", "query_userſ"]),
    ];
    prop_oneof![8 => tool.prop_map(Ask::Call), 2 => Just(Ask::List), 1 => Just(Ask::Ping)]
}

fn head() -> impl Strategy<Value = HeadOp> {
    let usual = (select(vec!["/demo/mcp", "/demo/mcp", "/open/mcp"]), holder()).prop_map(
        |(path, holder)| HeadOp {
            method: "POST",
            path,
            holder,
            further: None,
            mirrors: None,
            last: false,
        },
    );
    let methods = vec!["POST", "GET", "DELETE", "PUT"];
    let paths = vec!["/demo/mcp", "/open/mcp", "/nowhere", "/portcullis/health", "/open/mcp?a=1"];
    let further = vec![
        ("authorization", "Bearer x"),
        ("content-encoding", "gzip"),
        ("mcp-protocol-version", "2025-11-25"),
        ("mcp-protocol-version", "2099-01-01"),
        ("x-portcullis-org", "evil"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    let unusual = (
        select(methods),
        select(paths),
        0..4_usize,
        option::of(select(further)),
        option::weighted(0.3, ask()),
        any::<bool>(),
    )
        .prop_map(|(method, path, holder, further, mirrors, last)| HeadOp {
            method,
            path,
            holder,
            further,
            mirrors,
            last,
        });
    prop_oneof![4 => usual, 1 => unusual]
}

fn body() -> impl Strategy<Value = BodyOp> {
    let whole = || ask().prop_map(|ask| bench::message(&ask, false));
    let other = prop_oneof![
        json::document(),
        (whole(), any::<Index>()).prop_map(|(mut bytes, cut)| {
            bytes.truncate(cut.index(bytes.len()));
            bytes
        }),
        whole().prop_map(|bytes| bytes.repeat(2)),
        Just(br#"{"jsonrpc":"2.0","id":1,"method":"resources/read"}"#.to_vec()),
    ];
    let ask = prop_oneof![6 => ask(), 1 => other.prop_map(|bytes| Ask::Other(Bytes(bytes)))];
    (ask, prop::bool::weighted(0.1), prop::bool::weighted(0.1))
        .prop_map(|(ask, modern, large)| BodyOp { ask, modern, large })
}

/// A complete request; some are modern, with headers that match the body or differ.
fn request() -> impl Strategy<Value = Op> {
    let mirrored = option::weighted(0.2, option::weighted(0.3, ask()));
    (head(), body(), mirrored, 0_usize..6).prop_map(|(mut head, mut body, mirrored, honest)| {
        if let Some(other) = mirrored {
            (head.mirrors, head.further) = (Some(other.unwrap_or(body.ask.clone())), None);
            body.modern = true;
        }
        Op::Request(head, body, honest)
    })
}

fn which() -> impl Strategy<Value = Which> {
    prop_oneof![
        8 => (0_usize..6).prop_map(Which::Out),
        4 => (0_usize..6).prop_map(Which::Again),
        1 => Just(Which::Unknown),
    ]
}

fn admission() -> impl Strategy<Value = Admission> {
    let windows = || prop_oneof![6 => Just(None), 1 => (0..3_usize).prop_map(Some)];
    prop_oneof![
        4 => windows().prop_map(|windows| Admission::Admitted { windows }),
        6 => (rev(), policy()).prop_map(|(record, policy)| Admission::Stale { record, policy }),
        3 => (-2..3_000_000_i64, 0..3_i64, windows())
            .prop_map(|(micros, window, windows)| Admission::Limited { micros, window, windows }),
        2 => resp::reply().prop_map(Admission::Value),
    ]
}

fn faulty_reply() -> impl Strategy<Value = FaultyReply> {
    let vault = prop_oneof![
        3 => (0..3).prop_map(|number| bench::vault(&format!("{}-{number}", fixtures::CANARY))),
        1 => json::mangled(Just(bench::vault(fixtures::CANARY))),
        1 => json::document(),
    ];
    (admission(), select(fixtures::POLICIES.to_vec()), vault, prop::bool::weighted(0.1)).prop_map(
        |(admission, document, vault, crossed)| FaultyReply { admission, document, vault, crossed },
    )
}

fn failure() -> impl Strategy<Value = CallFailure> {
    select(vec![
        CallFailure::Refused,
        CallFailure::TimedOut,
        CallFailure::Disconnected,
        CallFailure::Status(503),
        CallFailure::Unreadable,
    ])
}

fn response() -> impl Strategy<Value = Op> {
    let media = vec!["application/json", "text/event-stream", "text/html", ""];
    let origin = prop_oneof![5 => Just(Origin::Upstream), 1 => Just(Origin::Proxy)];
    let coding = prop_oneof![5 => Just(""), 1 => Just("gzip"), 1 => Just("identity")];
    let status = select(vec![200, 202, 404, 500]);
    (status, select(media), coding, origin, prop::bool::weighted(0.2)).prop_map(
        |(status, media, coding, origin, last)| Op::ResponseHead {
            status,
            media,
            coding,
            origin,
            last,
        },
    )
}

fn chunk() -> impl Strategy<Value = Op> {
    let answers = vec![
        r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"query_users"},{"name":"delete_user"}]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"structuredContent":[1,2],"isError":false}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"x"}}"#,
    ];
    let answer = select(answers).prop_map(|text| text.as_bytes().to_vec());
    let event = answer.clone().prop_map(|data| [b"data: ", data.as_slice(), b"\n\n"].concat());
    let bytes = prop_oneof![
        2 => answer,
        2 => event.clone(),
        1 => json::mangled(event),
        1 => vec(any::<u8>(), 0..16),
    ];
    (bytes, any::<bool>()).prop_map(|(bytes, last)| Op::Chunk { bytes, last })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        14 => request(),
        1 => Just(Op::Fresh),
        3 => (holder(), rev(), policy())
            .prop_map(|(holder, record, policy)| Op::Move { holder, record, policy }),
        1 => head().prop_map(Op::Head),
        1 => body().prop_map(Op::Body),
        1 => Just(Op::BodyTooLarge),
        16 => prop_oneof![Just(1), 1_usize..6].prop_map(Op::Honest),
        14 => (which(), faulty_reply()).prop_map(|(which, faulty_reply)| Op::Answer(which, faulty_reply)),
        2 => (which(), failure()).prop_map(|(which, why)| Op::Fail(which, why)),
        8 => response(),
        8 => chunk(),
        2 => select(vec![End::Complete, End::ClientGone, End::UpstreamGone]).prop_map(Op::Close),
    ]
}

fn turn() -> impl Strategy<Value = Turn> {
    let millis = prop_oneof![20 => 0..30_u64, 1 => 0..3_000_u64];
    let slot = prop_oneof![4 => Just(0), 2 => Just(1), 1 => Just(2)];
    (slot, millis, op()).prop_map(|(slot, millis, op)| Turn { slot, millis, op })
}

proptest! {
    #![proptest_config(cases(192))]

    // Proves: A5, A18, A21, B2, C6, X2
    #[test]
    fn nothing_passes_unconfirmed_and_everything_is_told_once(
        cache in select(vec![0, 60]),
        turns in vec(turn(), 1..80),
    ) {
        let mut bench = Bench::new(Duration::from_secs(cache));
        for turn in turns {
            bench.run(turn);
        }
        bench.end();
    }
}

/// The policy changes to one with another credential while the first one's cannot be read.
#[test]
fn a_credential_that_is_no_longer_needed_is_not_missed() {
    let head = |holder| HeadOp {
        method: "POST",
        path: "/demo/mcp",
        holder,
        further: None,
        mirrors: None,
        last: false,
    };
    let request =
        |ask, honest| Op::Request(head(1), BodyOp { ask, modern: false, large: false }, honest);
    let activate = |policy| Op::Move { holder: 0, record: None, policy: Some(policy) };
    let ops = [
        activate("v3"),
        request(Ask::List, 3),
        activate("v1"),
        request(Ask::List, 3),
        request(Ask::Call("query_users"), 0),
        Op::Fail(Which::Out(1), CallFailure::TimedOut),
        activate("v3"),
        Op::Honest(3),
    ];
    let mut bench = Bench::new(Duration::ZERO);
    ops.into_iter().for_each(|op| bench.run(Turn { slot: 0, millis: 1, op }));
    assert!(bench.has_passed(0));
    bench.end();
}
