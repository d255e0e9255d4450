//! Exchanges under any list of operations, several of them on one worker.
//!
//! Owns how bytes become operations. The operations and what must hold are those of the property `exchange`: at most
//! one verdict, no passing before Redis confirmed it, one audit line that verifies, nothing after the end, no secret
//! in anything that comes out.

#[path = "../../tests/properties/exchange/bench.rs"]
#[expect(dead_code, reason = "the property looks at more of it")]
mod bench;
#[path = "../../tests/properties/exchange/history.rs"]
mod history;
#[path = "../../tests/properties/exchange/op.rs"]
mod op;
#[path = "../../tests/properties/exchange/redis_reply.rs"]
mod redis_reply;
#[path = "../../tests/properties/exchange/secrets.rs"]
mod secrets;
#[path = "../../tests/properties/exchange/watch.rs"]
mod watch;

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use bench::Bench;
use op::{Admission, Ask, BodyOp, Bytes, FaultyReply, HeadOp, Op, Turn, Which};
use portcullis_core::driver::call::CallFailure;
use portcullis_core::driver::event::{End, Origin};
use portcullis_core::mcp::Message;
use portcullis_redis_lua::Value;

use crate::fixtures;

/// More adds time, not states.
const MOST_TURNS: usize = 200;
const CHUNKS: [&str; 4] = [
    r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"query_users"},{"name":"delete_user"}]}}"#,
    r#"{"jsonrpc":"2.0","id":1,"result":{"structuredContent":[1,2],"isError":false}}"#,
    "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32603,\"message\":\"x\"}}\n\n",
    "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"tools\":[{\"name\":\"delete_user\"}]}}\r\n\r\n",
];

/// The input is a list of operations; each byte chooses one of a few things.
pub fn check(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let cache = if input.arbitrary().unwrap_or_default() { 60 } else { 0 };
    let mut bench = Bench::new(Duration::from_secs(cache));
    for _ in 0..MOST_TURNS {
        if input.is_empty() {
            break;
        }
        let Ok(turn) = turn(&mut input) else { break };
        bench.run(turn);
    }
    bench.end();
}

fn turn(u: &mut Unstructured<'_>) -> Result<Turn> {
    let slot = u.choose_index(3)?;
    let millis = *u.choose(&[0, 1, 5, 29, 700, 3_000])?;
    Ok(Turn { slot, millis, op: op(u)? })
}

fn op(u: &mut Unstructured<'_>) -> Result<Op> {
    Ok(match u.choose_index(16)? {
        0..=2 => request(u)?,
        3 => match u.choose_index(4)? {
            0 => Op::Fresh,
            1 => Op::Close(End::Complete),
            2 => Op::Close(End::ClientGone),
            _ => Op::Close(End::UpstreamGone),
        },
        4 => Op::Move { holder: u.choose_index(3)?, record: rev(u)?, policy: policy(u)? },
        5 => Op::Head(head(u)?),
        6 => Op::Body(body(u)?),
        7 => Op::BodyTooLarge,
        8 | 9 => Op::Honest(1 + u.choose_index(5)?),
        10..=12 => Op::Answer(which(u)?, faulty_reply(u)?),
        13 => Op::Fail(which(u)?, failure(u)?),
        14 => response(u)?,
        _ => chunk(u)?,
    })
}

/// A whole request, usually an honest one.
fn request(u: &mut Unstructured<'_>) -> Result<Op> {
    let (mut head, mut body) = (head(u)?, body(u)?);
    if u.choose_index(4)? == 0 {
        head.mirrors = Some(if u.arbitrary()? { body.ask.clone() } else { ask(u)? });
        (head.further, body.modern) = (None, true);
    }
    Ok(Op::Request(head, body, u.choose_index(6)?))
}

fn head(u: &mut Unstructured<'_>) -> Result<HeadOp> {
    let usual = HeadOp {
        method: "POST",
        path: u.choose(&["/demo/mcp", "/open/mcp"])?,
        holder: u.choose_index(4)?,
        further: None,
        mirrors: None,
        last: false,
    };
    if u.choose_index(4)? != 0 {
        return Ok(usual);
    }
    let further = [
        None,
        Some(("authorization", "Bearer x")),
        Some(("content-encoding", "gzip")),
        Some(("mcp-protocol-version", "2025-11-25")),
        Some(("mcp-protocol-version", "2099-01-01")),
        Some(("x-portcullis-org", "evil")),
        Some(("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
    ];
    Ok(HeadOp {
        method: u.choose(&["POST", "GET", "DELETE", "PUT"])?,
        path: u.choose(&["/demo/mcp", "/nowhere", "/portcullis/health", "/open/mcp?a=1"])?,
        further: *u.choose(&further)?,
        last: u.arbitrary()?,
        ..usual
    })
}

fn body(u: &mut Unstructured<'_>) -> Result<BodyOp> {
    let ask = if u.choose_index(8)? == 0 { other(u)? } else { ask(u)? };
    Ok(BodyOp { ask, modern: u.choose_index(8)? == 0, large: u.choose_index(8)? == 0 })
}

fn ask(u: &mut Unstructured<'_>) -> Result<Ask> {
    let tools = ["query_users", "create_note", "delete_user", "Query_users", "query_user\u{17f}"];
    Ok(match u.choose_index(8)? {
        0 => Ask::List,
        1 => Ask::Ping,
        _ => Ask::Call(u.choose(&tools)?),
    })
}

/// What never passes: bytes that are no message.
fn other(u: &mut Unstructured<'_>) -> Result<Ask> {
    let bytes = bytes(u)?;
    let unreadable = Message::parse(&bytes).is_err();
    Ok(if unreadable { Ask::Other(Bytes(bytes)) } else { Ask::Ping })
}

fn bytes(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let length = u.choose_index(64)?.min(u.len());
    Ok(u.bytes(length)?.to_vec())
}

fn rev(u: &mut Unstructured<'_>) -> Result<Option<String>> {
    let (number, state) = (u.choose_index(3)?, *u.choose(&fixtures::STATES)?);
    Ok((number < 2).then(|| format!("{number}{state}")))
}

fn policy(u: &mut Unstructured<'_>) -> Result<Option<&'static str>> {
    Ok(fixtures::POLICIES.get(u.choose_index(5)?).copied())
}

fn which(u: &mut Unstructured<'_>) -> Result<Which> {
    Ok(match u.choose_index(8)? {
        0 => Which::Unknown,
        1 | 2 => Which::Again(u.choose_index(6)?),
        _ => Which::Out(u.choose_index(6)?),
    })
}

fn faulty_reply(u: &mut Unstructured<'_>) -> Result<FaultyReply> {
    let vault = match u.choose_index(4)? {
        0 => bytes(u)?,
        number => bench::vault(&format!("{}-{number}", fixtures::CANARY)),
    };
    Ok(FaultyReply {
        admission: admission(u)?,
        document: u.choose(&fixtures::POLICIES)?,
        vault,
        crossed: u.choose_index(8)? == 0,
    })
}

fn admission(u: &mut Unstructured<'_>) -> Result<Admission> {
    Ok(match u.choose_index(4)? {
        0 => Admission::Admitted { windows: windows(u)? },
        1 => Admission::Stale { record: rev(u)?, policy: policy(u)? },
        2 => Admission::Limited {
            micros: *u.choose(&[-2, -1, 0, 1, 999_999, 3_000_000, i64::MAX])?,
            window: *u.choose(&[0, 1, 2, -1])?,
            windows: windows(u)?,
        },
        _ => Admission::Value(value(u, 3)?),
    })
}

fn windows(u: &mut Unstructured<'_>) -> Result<Option<usize>> {
    Ok(u.choose_index(6)?.checked_sub(3))
}

fn value(u: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    Ok(match u.choose_index(6)? {
        0 => Value::Nil,
        1 => Value::Int(u.arbitrary()?),
        2 => Value::Int(i64::from(u.arbitrary::<u8>()? % 4)),
        3 => Value::Error("ERR no".into()),
        4 => Value::Bulk(bytes(u)?),
        _ if depth == 0 => Value::Status("OK".into()),
        _ => {
            let many = u.choose_index(6)?;
            Value::Array((0..many).map(|_| value(u, depth - 1)).collect::<Result<_>>()?)
        }
    })
}

fn failure(u: &mut Unstructured<'_>) -> Result<CallFailure> {
    Ok(match u.choose_index(5)? {
        0 => CallFailure::Refused,
        1 => CallFailure::TimedOut,
        2 => CallFailure::Disconnected,
        3 => CallFailure::Status(503),
        _ => CallFailure::Unreadable,
    })
}

fn response(u: &mut Unstructured<'_>) -> Result<Op> {
    Ok(Op::ResponseHead {
        status: *u.choose(&[200, 202, 404, 500])?,
        media: u.choose(&["application/json", "text/event-stream", "text/html", ""])?,
        coding: u.choose(&["", "", "", "gzip", "identity"])?,
        origin: if u.choose_index(6)? == 0 { Origin::Proxy } else { Origin::Upstream },
        last: u.choose_index(5)? == 0,
    })
}

fn chunk(u: &mut Unstructured<'_>) -> Result<Op> {
    let bytes = match u.choose_index(CHUNKS.len() + 2)? {
        0 | 1 => bytes(u)?,
        at => CHUNKS[at - 2].as_bytes().to_vec(),
    };
    Ok(Op::Chunk { bytes, last: u.arbitrary()? })
}
