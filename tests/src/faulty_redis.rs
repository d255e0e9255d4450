//! A fake hop between Envoy and the real Valkey: it forces faults that a real hop shows only rarely.
//!
//! Owns one listening socket and the replies that pass it. Commands pass unchanged.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// The fault in the replies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// They pass unchanged.
    None,
    /// This many bytes of replies pass, counted from the moment of the setting; then the connection closes at once.
    CloseAfterBytes(usize),
    /// This many replies pass, or as many as Redis sends at once; then the connection closes at once.
    CloseAfterReplies(usize),
    /// They pass byte by byte, with this delay between two bytes.
    Trickle(Duration),
    /// They pass at this many bytes a second.
    Slow(usize),
    /// They wait until another fault is set, and then pass all at once.
    Pause,
}

/// The hop.
#[derive(Debug)]
pub struct FaultyRedis {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    redis: Mutex<SocketAddr>,
    fault: Mutex<Fault>,
    /// Bytes and replies that passed since the fault was set.
    passed: [AtomicUsize; 2],
    changed: Condvar,
    connections: AtomicUsize,
    closing: AtomicBool,
}

impl FaultyRedis {
    /// A hop in front of the server at `redis`.
    pub fn before(redis: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(State {
            redis: Mutex::new(redis),
            fault: Mutex::new(Fault::None),
            passed: Default::default(),
            changed: Condvar::new(),
            connections: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
        });
        let serving = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming() {
                if serving.closing.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                serving.connections.fetch_add(1, Ordering::SeqCst);
                let state = Arc::clone(&serving);
                thread::spawn(move || state.serve(&client));
            }
        });
        Self { address, state }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the fault of all replies from now on, including those in progress.
    pub fn set(&self, fault: Fault) {
        let mut current = self.state.fault.lock().unwrap_or_else(PoisonError::into_inner);
        self.state.passed.iter().for_each(|passed| passed.store(0, Ordering::SeqCst));
        *current = fault;
        drop(current);
        self.state.changed.notify_all();
    }

    /// Sends new connections to the server at `redis`, as after a failover.
    pub fn lead_to(&self, redis: SocketAddr) {
        *self.state.redis.lock().unwrap_or_else(PoisonError::into_inner) = redis;
    }

    /// How many connections were opened so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

impl Drop for FaultyRedis {
    fn drop(&mut self) {
        self.state.closing.store(true, Ordering::SeqCst);
        self.set(Fault::None);
        // Wakes the accepting thread; if it has already ended, the error does not matter.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves until either side closes the connection.
    fn serve(&self, client: &TcpStream) {
        let address = *self.redis.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(redis) = TcpStream::connect(address) else { return };
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = commands(client, &redis);
                let _ = redis.shutdown(Shutdown::Both);
            });
            let _ = self.replies(&redis, client);
            let _ = client.shutdown(Shutdown::Both);
            let _ = redis.shutdown(Shutdown::Both);
        });
    }

    fn replies(&self, mut redis: &TcpStream, mut client: &TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let mut chunk = [0; 16 * 1024];
        let [bytes, replies] = &self.passed;
        loop {
            let read = redis.read(&mut chunk)?;
            if read == 0 {
                return Ok(());
            }
            let mut rest = &chunk[..read];
            while !rest.is_empty() {
                let (now, wait) = match self.fault() {
                    Fault::None => (rest.len(), Duration::ZERO),
                    Fault::CloseAfterBytes(most) => {
                        let left = most.saturating_sub(bytes.load(Ordering::SeqCst));
                        if left <= rest.len() {
                            return client.write_all(&rest[..left]);
                        }
                        (rest.len(), Duration::ZERO)
                    }
                    Fault::CloseAfterReplies(most) => {
                        if replies.load(Ordering::SeqCst) + 1 >= most {
                            return client.write_all(rest);
                        }
                        (rest.len(), Duration::ZERO)
                    }
                    Fault::Trickle(wait) => (1, wait),
                    Fault::Slow(rate) => {
                        let now = rest.len().min(1_024);
                        (now, Duration::from_secs_f64(now as f64 / rate as f64))
                    }
                    Fault::Pause => {
                        self.wait_while_paused();
                        continue;
                    }
                };
                let (first, later) = rest.split_at(now);
                client.write_all(first)?;
                rest = later;
                bytes.fetch_add(now, Ordering::SeqCst);
                thread::sleep(wait);
            }
            replies.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn wait_while_paused(&self) {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let _fault = self.changed.wait_while(fault, |fault| *fault == Fault::Pause);
    }
}

fn commands(mut client: &TcpStream, mut redis: &TcpStream) -> io::Result<()> {
    let mut chunk = [0; 16 * 1024];
    loop {
        let read = client.read(&mut chunk)?;
        if read == 0 {
            return Ok(());
        }
        redis.write_all(&chunk[..read])?;
    }
}
