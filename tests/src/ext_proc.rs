//! A server for Envoy's ext_proc filter that returns every frame of a request's body unchanged
//! (`FULL_DUPLEX_STREAMED`).
//!
//! Owns one listening socket and its runtime, until the test process ends. It implements gRPC and Protocol Buffers by
//! hand: of `envoy.service.ext_proc.v3` it knows request headers, body and trailers.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use h2::SendStream;
use h2::server::{self, SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::TcpStream;
use tokio::runtime::Builder;

/// How long the server keeps a frame.
const HELD: Duration = Duration::from_millis(5);

/// The field numbers in `ProcessingRequest`, each with the number of its answer in `ProcessingResponse`.
const HEADERS: (u64, u64) = (2, 1);
const BODY: (u64, u64) = (4, 3);
const TRAILERS: (u64, u64) = (6, 5);

/// When the server returns a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Frame by frame.
    AtOnce,
    /// Headers and body once the whole request has arrived, like a server that inspects bodies.
    AtTheEnd,
}

/// The server.
#[derive(Debug)]
pub struct ExtProc {
    address: SocketAddr,
    bodies: Arc<Mutex<Vec<Body>>>,
}

/// A body as the server received it.
#[derive(Clone, Debug, Default)]
pub struct Body {
    pub bytes: Vec<u8>,
    pub frames: usize,
    /// Whether its last frame arrived.
    pub is_whole: bool,
}

type Bodies = Arc<Mutex<Vec<Body>>>;

impl ExtProc {
    /// Listens on a free port of the loopback interface.
    pub fn start(pace: Pace) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        listener.set_nonblocking(true).expect("a socket of the runtime");
        let bodies = Bodies::default();
        let seen = Arc::clone(&bodies);
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, pace, Arc::clone(&seen)));
                }
            });
        });
        Self { address, bodies }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The bodies of requests, complete or not, in the order of their ends.
    pub fn bodies(&self) -> Vec<Body> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(stream: TcpStream, pace: Pace, bodies: Bodies) {
    let mut builder = server::Builder::new();
    builder.initial_window_size(1 << 22).initial_connection_window_size(1 << 23);
    let Ok(mut connection) = builder.handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let bodies = Arc::clone(&bodies);
        tokio::spawn(async move {
            // A request that Envoy aborted has no result.
            let _ = process(request, respond, (pace, &bodies)).await;
        });
    }
}

/// Serves one stream: one HTTP request of the gateway's client.
async fn process(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    (pace, bodies): (Pace, &Bodies),
) -> Result<(), h2::Error> {
    let mut head = Response::new(());
    head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut answers = respond.send_response(head, false)?;
    let (mut requests, mut pending, mut seen) =
        (request.into_body(), BytesMut::new(), Body::default());
    let mut held = Vec::new();
    while let Some(piece) = requests.data().await {
        let Ok(piece) = piece else { break };
        requests.flow_control().release_capacity(piece.len())?;
        pending.extend_from_slice(&piece);
        while let Some(message) = next_message(&mut pending) {
            held.extend(answers_to(&message, &mut seen));
            if pace == Pace::AtOnce || seen.is_whole {
                for answer in held.drain(..) {
                    tokio::time::sleep(HELD).await;
                    send(&mut answers, answer)?;
                }
            }
        }
    }
    bodies.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    answers.send_trailers(trailers)
}

/// A gRPC message: one byte says whether it is compressed, four bytes have its length.
fn next_message(pending: &mut BytesMut) -> Option<Bytes> {
    let length = pending.get(1..5).map(|mut bytes| bytes.get_u32())?;
    let length = usize::try_from(length).ok()?;
    if pending.len() < 5 + length {
        return None;
    }
    pending.advance(5);
    Some(pending.split_to(length).freeze())
}

fn send(answers: &mut SendStream<Bytes>, message: Vec<u8>) -> Result<(), h2::Error> {
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).expect("a short message").to_be_bytes());
    framed.extend(message);
    answers.send_data(framed.into(), false)
}

fn answers_to(message: &[u8], seen: &mut Body) -> Vec<Vec<u8>> {
    let answer = |(asked, answered): (u64, u64), field: u64, content: &[u8]| {
        (field == asked).then(|| delimited(answered, content))
    };
    let mut answers = Vec::new();
    for (field, content) in fields(message) {
        let Content::Bytes(content) = content else { continue };
        if field == BODY.0 {
            let (mut bytes, mut end) = (&[][..], false);
            for (field, content) in fields(content) {
                match (field, content) {
                    (1, Content::Bytes(body)) => bytes = body,
                    (2, Content::Number(number)) => end = number == 1,
                    _ => {}
                }
            }
            seen.bytes.extend_from_slice(bytes);
            seen.frames += 1;
            seen.is_whole |= end;
            // BodyResponse.response.body_mutation.streamed_response
            let mut streamed = delimited(1, bytes);
            streamed.extend([2 << 3, u8::from(end)]);
            let common = delimited(3, &delimited(3, &streamed));
            answers.extend(answer(BODY, field, &delimited(1, &common)));
            continue;
        }
        seen.is_whole |= field == TRAILERS.0;
        answers.extend(answer(HEADERS, field, &[]).or_else(|| answer(TRAILERS, field, &[])));
    }
    answers
}

enum Content<'a> {
    Bytes(&'a [u8]),
    Number(u64),
}

/// The fields of a message that are numbers, strings or messages.
fn fields(mut message: &[u8]) -> Vec<(u64, Content<'_>)> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let key = number(&mut message);
        match key & 7 {
            0 => found.push((key >> 3, Content::Number(number(&mut message)))),
            2 => {
                let length = usize::try_from(number(&mut message)).expect("a length");
                let (content, rest) = message.split_at(length);
                message = rest;
                found.push((key >> 3, Content::Bytes(content)));
            }
            kind => panic!("a field of kind {kind}"),
        }
    }
    found
}

/// A variable-length number: groups of seven bits, the lowest first.
fn number(message: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = message.get_u8();
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return value;
        }
    }
}

fn delimited(field: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for mut value in [field << 3 | 2, u64::try_from(content.len()).expect("a length")] {
        while value > 0x7f {
            bytes.push(u8::try_from(value & 0x7f | 0x80).expect("a byte"));
            value >>= 7;
        }
        bytes.push(u8::try_from(value).expect("a byte"));
    }
    bytes.extend_from_slice(content);
    bytes
}
