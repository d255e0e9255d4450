//! An upstream that speaks HTTP/2 without TLS and ends its answers with trailers, as gRPC servers do.
//!
//! Owns one listening socket and its runtime, until the test process ends.

use std::net::{SocketAddr, TcpListener};
use std::thread;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::TcpStream;
use tokio::runtime::Builder;

/// Makes content type and body of the answer to a request with that body.
pub type Answerer = fn(&str) -> (&'static str, String);

/// The upstream.
#[derive(Debug)]
pub struct TrailingUpstream {
    address: SocketAddr,
}

impl TrailingUpstream {
    /// Listens on a free port of the loopback interface.
    pub fn answering(answerer: Answerer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        listener.set_nonblocking(true).expect("a socket of the runtime");
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, answerer));
                }
            });
        });
        Self { address }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(stream: TcpStream, answerer: Answerer) {
    let Ok(mut connection) = server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(async move {
            // A client that disconnected does not get the answer.
            let _ = answer(request, respond, answerer).await;
        });
    }
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    answerer: Answerer,
) -> Result<(), h2::Error> {
    let mut body = request.into_body();
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        bytes.extend_from_slice(&piece);
    }
    let (media, text) = answerer(&String::from_utf8_lossy(&bytes));
    let mut head = Response::new(());
    head.headers_mut().insert("content-type", HeaderValue::from_static(media));
    let mut stream = respond.send_response(head, false)?;
    stream.send_data(Bytes::from(text), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", HeaderValue::from_static("0"));
    stream.send_trailers(trailers)
}
