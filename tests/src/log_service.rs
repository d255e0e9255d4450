//! A gRPC server that receives log entries: an Envoy access log service and the logs service of OTLP.
//!
//! Owns one listening socket and its runtime, until the test process ends. Its messages are the parts of
//! `envoy.service.accesslog.v3`, `envoy.data.accesslog.v3` and `opentelemetry.proto.collector.logs.v1` that lead to an
//! entry.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use bytes::{Buf as _, Bytes, BytesMut};
use h2::server::{self, SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use prost::Message;
use tokio::net::TcpStream;
use tokio::runtime::Builder;

/// Bytes before each gRPC message: a compression flag, and the length.
const PREFIX: usize = 5;

/// The trials put this into arguments and a header. No message may contain it, whatever Envoy adds to an entry.
pub const SECRET: &str = "hunter2";

/// The service, and the entries that it received.
#[derive(Clone, Debug, Default)]
pub struct LogService {
    entries: Arc<Mutex<Vec<String>>>,
}

impl LogService {
    /// Serves on `port` of the loopback interface.
    pub fn listening_on(port: u16) -> Self {
        let service = Self::default();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let listener = TcpListener::bind(address).expect("a port that was free");
        listener.set_nonblocking(true).expect("a socket of the runtime");
        let shared = service.clone();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, shared.clone()));
                }
            });
        });
        service
    }

    /// The entries so far, in the order of their arrival.
    pub fn entries(&self) -> Vec<String> {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, Vec<String>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(stream: TcpStream, service: LogService) {
    let Ok(mut connection) = server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let service = service.clone();
        tokio::spawn(async move {
            // A client that disconnected does not get the answer.
            let _ = take(request, respond, service).await;
        });
    }
}

async fn take(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    service: LogService,
) -> Result<(), h2::Error> {
    let read: fn(&[u8]) -> Vec<String> = match request.uri().path() {
        "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs" => access_log_entries,
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => log_records,
        other => panic!("no such method: {other}"),
    };
    let mut body = request.into_body();
    let mut bytes = BytesMut::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        bytes.extend_from_slice(&piece);
        while let Some(message) = next_message(&mut bytes) {
            let raw = String::from_utf8_lossy(&message);
            assert!(!raw.contains(SECRET), "a secret beside an entry: {raw}");
            service.locked().extend(read(&message));
        }
    }
    let mut head = Response::new(());
    head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut stream = respond.send_response(head, false)?;
    // An empty message: neither answer has a required field.
    stream.send_data(Bytes::from_static(&[0; PREFIX]), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers)
}

/// Takes a complete message off the front.
fn next_message(bytes: &mut BytesMut) -> Option<Bytes> {
    let prefix: [u8; PREFIX] = bytes.get(..PREFIX)?.try_into().ok()?;
    assert_eq!(prefix[0], 0, "not compressed");
    let length = usize::try_from(u32::from_be_bytes(prefix[1..].try_into().ok()?)).ok()?;
    if bytes.len() < PREFIX + length {
        return None;
    }
    bytes.advance(PREFIX);
    Some(bytes.split_to(length).freeze())
}

/// The entries in a message of an access log service: each log entry has one in its filter state.
fn access_log_entries(message: &[u8]) -> Vec<String> {
    let message = StreamAccessLogsMessage::decode(message).expect("a StreamAccessLogsMessage");
    let entries = message.tcp_logs.map(|logs| logs.log_entry).unwrap_or_default();
    let entries = entries.into_iter().map(|entry| {
        let common = entry.common_properties.expect("common properties");
        let [state] = <[_; 1]>::try_from(common.filter_state_objects).expect("one object");
        assert_eq!(state.key, "wasm.portcullis.audit");
        let any = state.value.expect("a value");
        assert_eq!(any.type_url, "type.googleapis.com/google.protobuf.BytesValue");
        let value = BytesValue::decode(&*any.value).expect("a BytesValue");
        String::from_utf8(value.value).expect("an entry is UTF-8")
    });
    entries.collect()
}

/// The entries in an export request: each is the body of a log record.
pub(crate) fn log_records(message: &[u8]) -> Vec<String> {
    let message = ExportLogsServiceRequest::decode(message).expect("an ExportLogsServiceRequest");
    let scopes = message.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
    let records = scopes.flat_map(|scope| scope.log_records);
    records.map(|record| record.body.expect("a body").string_value).collect()
}

#[derive(Clone, PartialEq, Message)]
struct StreamAccessLogsMessage {
    #[prost(message, optional, tag = "3")]
    tcp_logs: Option<TcpAccessLogEntries>,
}

#[derive(Clone, PartialEq, Message)]
struct TcpAccessLogEntries {
    #[prost(message, repeated, tag = "1")]
    log_entry: Vec<TcpAccessLogEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct TcpAccessLogEntry {
    #[prost(message, optional, tag = "1")]
    common_properties: Option<AccessLogCommon>,
}

#[derive(Clone, PartialEq, Message)]
struct AccessLogCommon {
    /// On the wire, a map is a list of pairs.
    #[prost(message, repeated, tag = "21")]
    filter_state_objects: Vec<FilterStateObject>,
}

#[derive(Clone, PartialEq, Message)]
struct FilterStateObject {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct BytesValue {
    #[prost(bytes = "vec", tag = "1")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ExportLogsServiceRequest {
    #[prost(message, repeated, tag = "1")]
    resource_logs: Vec<ResourceLogs>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceLogs {
    #[prost(message, repeated, tag = "2")]
    scope_logs: Vec<ScopeLogs>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeLogs {
    #[prost(message, repeated, tag = "2")]
    log_records: Vec<LogRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct LogRecord {
    #[prost(message, optional, tag = "5")]
    body: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(string, tag = "1")]
    string_value: String,
}
