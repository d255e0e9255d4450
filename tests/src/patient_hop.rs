//! A fake hop between Envoy and a real server: to the server, no client ever leaves before its answer.
//!
//! It stands where a request is a client's last. A server may drop such a request as its connection ends (those in Go
//! do), or be quicker, and no test can say which.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Passes what arrives at the returned address on to `server`, and its answers back.
pub fn before(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            if let Ok(server) = TcpStream::connect(server) {
                thread::spawn(move || pass(&client, &server));
            }
        }
    });
    address
}

/// Ends when the server closes the connection. Until then both sides stay open.
fn pass(client: &TcpStream, server: &TcpStream) {
    thread::scope(|scope| {
        scope.spawn(|| io::copy(&mut &*client, &mut &*server));
        let mut answer = [0; 4096];
        while let Ok(size @ 1..) = (&*server).read(&mut answer) {
            // The client may be gone.
            let _ = (&*client).write_all(&answer[..size]);
        }
        let _ = client.shutdown(std::net::Shutdown::Both);
    });
}
