//! HTTP/2 without TLS (prior knowledge), on one connection: requests in any form, in pieces, with trailers, or aborted.
//!
//! Owns a connection and its runtime. Uses the types of [`crate::wire`], so that a trial can send the same request over
//! both protocols. Knows nothing of MCP or of the gateway.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::Response;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::wire::{Reply, Request};

/// Nothing may hang: an answer that takes longer is a failure of the test.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
#[derive(Debug)]
pub struct Http2 {
    runtime: Runtime,
    sender: SendRequest<Bytes>,
}

/// A request in progress.
#[derive(Debug)]
pub struct Exchange {
    response: ResponseFuture,
    body: SendStream<Bytes>,
    /// The head of an answer that arrived before the end of the body.
    early: Option<Result<Response<RecvStream>, h2::Error>>,
}

impl Http2 {
    /// Connects.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        // Only the current thread: the connection makes progress while a caller waits.
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let sender = runtime.block_on(async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) =
                h2::client::handshake(stream).await.map_err(io::Error::other)?;
            // An error of the connection appears in its requests.
            tokio::spawn(async move { _ = connection.await });
            Ok::<_, io::Error>(sender)
        })?;
        Ok(Self { runtime, sender })
    }

    /// One request and its answer.
    pub fn exchange(&self, request: &Request) -> io::Result<Reply> {
        let mut exchange = self.open(request)?;
        if let Some(body) = &request.body {
            // An answer that arrives before the end of the body stops the sending, and counts.
            let _ = self.send(&mut exchange, body, true);
        }
        self.reply(exchange)
    }

    /// Sends the head; a request without a body ends there.
    pub fn open(&self, request: &Request) -> io::Result<Exchange> {
        let authority = request.headers.iter().find(|(name, _)| name == "host");
        let authority = authority.map(|(_, value)| String::from_utf8_lossy(value).into_owned());
        let uri = format!("http://{}{}", authority.as_deref().unwrap_or("x"), request.path);
        let mut head = http::Request::builder().method(request.method.as_str()).uri(uri);
        for (name, value) in request.headers.iter().filter(|(name, _)| name != "host") {
            head = match name.as_str() {
                // RFC 8441.
                ":protocol" => head.extension(Protocol::from(&*String::from_utf8_lossy(value))),
                name => head.header(name.to_ascii_lowercase(), value.as_slice()),
            };
        }
        if let Some(body) = &request.body {
            head = head.header("content-length", body.len());
        }
        let head = head.body(()).map_err(io::Error::other)?;
        self.wait(async {
            let mut sender = self.sender.clone().ready().await?;
            // Data after the head of a CONNECT is not a body, and has no end yet.
            let last = request.body.is_none() && request.method != "CONNECT";
            let (response, body) = sender.send_request(head, last)?;
            Ok(Exchange { response, body, early: None })
        })
    }

    /// Sends bytes of the body; `last` ends it.
    pub fn send(&self, exchange: &mut Exchange, bytes: &[u8], last: bool) -> io::Result<()> {
        self.wait(async {
            let mut rest = Bytes::copy_from_slice(bytes);
            while !rest.is_empty() {
                exchange.body.reserve_capacity(rest.len());
                let room = poll_fn(|context| exchange.room(context)).await;
                let room = room.ok_or_else(|| h2::Error::from(Reason::STREAM_CLOSED))??;
                let piece = rest.split_to(room.min(rest.len()));
                exchange.body.send_data(piece, last && rest.is_empty())?;
            }
            if bytes.is_empty() && last {
                exchange.body.send_data(Bytes::new(), true)?;
            }
            // Lets the connection send them.
            tokio::task::yield_now().await;
            Ok(())
        })
    }

    /// Aborts the request.
    pub fn reset(&self, exchange: Exchange) -> io::Result<()> {
        self.reset_with(exchange, Reason::CANCEL.into())
    }

    /// The same, with this error code (RFC 9113 §7).
    pub fn reset_with(&self, mut exchange: Exchange, code: u32) -> io::Result<()> {
        exchange.body.send_reset(Reason::from(code));
        // Lets the connection send the reset.
        self.wait(async {
            tokio::task::yield_now().await;
            Ok(())
        })
    }

    /// Waits for the head of the answer.
    pub fn head(&self, exchange: &mut Exchange) -> io::Result<()> {
        if exchange.early.is_none() {
            let response = self.wait(async { (&mut exchange.response).await })?;
            exchange.early = Some(Ok(response));
        }
        Ok(())
    }

    /// The answer; its trailers are the headers whose names begin with `trailer `.
    pub fn reply(&self, exchange: Exchange) -> io::Result<Reply> {
        let Exchange { response, body: _kept_open, early } = exchange;
        self.wait(async {
            let response = match early {
                Some(response) => response?,
                None => response.await?,
            };
            let (head, mut stream) = response.into_parts();
            let headers = head.headers.iter();
            let headers =
                headers.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
            let (status, mut headers) = (head.status.as_u16(), headers.collect::<Vec<_>>());
            let mut body = Vec::new();
            while let Some(piece) = stream.data().await {
                let piece = piece?;
                stream.flow_control().release_capacity(piece.len())?;
                body.extend_from_slice(&piece);
            }
            let trailers = stream.trailers().await?.unwrap_or_default();
            headers.extend(
                trailers
                    .iter()
                    .map(|(name, value)| (format!("trailer {name}"), value.as_bytes().to_vec())),
            );
            Ok(Reply { status, headers, body })
        })
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T, h2::Error>>) -> io::Result<T> {
        let done = self.runtime.block_on(async { timeout(PATIENCE, work).await });
        done.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map_err(io::Error::other)
    }
}

impl Exchange {
    /// How much of the body may be sent; nothing once an answer has arrived.
    fn room(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<usize, h2::Error>>> {
        if self.early.is_none()
            && let Poll::Ready(response) = Pin::new(&mut self.response).poll(context)
        {
            self.early = Some(response);
        }
        match self.early {
            Some(_) => Poll::Ready(None),
            None => self.body.poll_capacity(context),
        }
    }
}
