//! Streams that stay open: many of them, for long, with little on them.
//!
//! An upstream of the test's own keeps every stream and sends on it when the test wants.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_stack::ready;
use portcullis_tests::http2::Http2;
use portcullis_tests::organisation::{Organisation, PYTHON};
use portcullis_tests::world::{OwnEnvoy, Workers};
use portcullis_tests::{Case, Request, World, cases, mcp};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["streams":
        more_than_a_thousand_stay_open_on_one_worker_without_growing_per_event,
        client_that_leaves_is_gone_for_the_upstream_at_once,
        client_that_resets_its_stream_left_whatever_the_code_is,
        silent_stream_ends_at_the_idle_limit_and_is_audited,
        open_stream_ends_soon_after_its_key_is_revoked,
    ]
}

/// More than Envoy lets through to one cluster by default (1,024).
const STREAMS: usize = 1_100;
/// Events per stream until memory is measured first, and from there to the second time.
const ROUNDS: [usize; 2] = [4, 40];
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Between the two measurements 44,000 events pass: of what each allocates, not even a pointer may stay. What is
/// resident also counts the memory of the Wasm VM, and pages that the allocator keeps.
const MOST_GROWTH_PER_EVENT: [u64; 2] = [8, 200];

/// An upstream that opens an event stream for each request and hands it to the test.
pub(crate) struct Source {
    pub(crate) address: SocketAddr,
    opened: Receiver<TcpStream>,
}

impl Source {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (opened_by, opened) = mpsc::channel();
        // Lives until the test is over: nothing waits for it.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if open(&stream).is_ok() && opened_by.send(stream).is_err() {
                    return;
                }
            }
        });
        Self { address, opened }
    }

    fn next(&self) -> TcpStream {
        self.opened.recv_timeout(Duration::from_secs(5)).expect("a stream at the upstream")
    }
}

/// Reads a request's head, and its body if that comes with it; answers with the head of a stream.
fn open(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut seen = Vec::new();
    let whole = |seen: &[u8]| {
        let text = String::from_utf8_lossy(seen).into_owned();
        text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            head.starts_with("GET") || body.ends_with('}') || body.ends_with("0\r\n\r\n")
        })
    };
    while !whole(&seen) {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        seen.extend_from_slice(&chunk[..read]);
    }
    stream.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    )
}

fn event(number: usize) -> String {
    let message = json!({"jsonrpc": "2.0", "method": "notifications/message",
        "params": {"level": "info", "data": format!("number {number}")}});
    format!("id: {number}\ndata: {message}\n\n")
}

fn send(mut stream: &TcpStream, number: usize) {
    let event = event(number);
    write!(stream, "{:x}\r\n{event}\r\n", event.len()).expect("the stream is open");
}

/// The client's end.
pub(crate) struct Listener {
    stream: TcpStream,
    unread: String,
}

impl Listener {
    pub(crate) fn open(gateway: SocketAddr, request: &Request) -> Self {
        Self::try_open(gateway, request).unwrap_or_else(|head| panic!("{head}"))
    }

    /// The head of the answer, if it is not 200.
    pub(crate) fn try_open(gateway: SocketAddr, request: &Request) -> Result<Self, String> {
        let stream = TcpStream::connect(gateway).expect("connect to the gateway");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        (&stream).write_all(&request.bytes()).expect("send the request");
        let mut listener = Self { stream, unread: String::new() };
        let head = listener.until("\r\n\r\n");
        if head.starts_with("HTTP/1.1 200") { Ok(listener) } else { Err(head) }
    }

    /// What comes up to and with `end`.
    fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.unread.find(end) {
                let rest = self.unread.split_off(at + end.len());
                return std::mem::replace(&mut self.unread, rest);
            }
            let mut chunk = [0; 4096];
            let read = self.stream.read(&mut chunk).expect("something to read");
            assert!(read > 0, "the stream ended after {:?}", self.unread);
            self.unread += &String::from_utf8_lossy(&chunk[..read]);
        }
    }

    /// Reads the event with that number; it comes next, whole and unchanged.
    fn hear(&mut self, number: usize) {
        let chunk = self.until("\n\n\r\n");
        let (_size, text) = chunk.split_once("\r\n").expect("a chunk");
        assert_eq!(text.trim_end(), event(number).trim_end());
    }

    /// How long until the gateway ends the stream.
    fn ended_after(&mut self) -> Duration {
        let started = Instant::now();
        // Either a proper end or a reset is one.
        let read = self.stream.read_to_end(&mut Vec::new());
        assert!(read.is_ok() || is_reset(&read), "the gateway ends it: {read:?}");
        started.elapsed()
    }
}

fn is_reset<T>(read: &io::Result<T>) -> bool {
    read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

fn listen(key: &str, agent: &str) -> Request {
    Request::bare("GET", PYTHON)
        .header("host", "gateway.test")
        .header("accept", "text/event-stream")
        .header("user-agent", agent)
        .bearer(key)
}

/// One worker in front of the source; streams on which nothing happens for `idle` end.
fn behind(world: &World<'_>, source: &Source, idle: &str) -> (OwnEnvoy, Organisation, String) {
    let adjust = |settings: portcullis_stack::Bootstrap| {
        settings
            .python(source.address)
            .set("REQUEST_TIMEOUT", format!("{}s", REQUEST_TIMEOUT.as_secs()))
            .set("ANSWER_IDLE_TIMEOUT", idle)
    };
    let shipped = "                  idle_timeout: 3600s";
    let shorter = format!("                  idle_timeout: {idle}");
    let own = world.envoy_changed(Workers::One, adjust, |template| {
        assert!(template.contains(shipped), "routes for GET have an idle limit");
        template.replace(shipped, &shorter)
    });
    let many = STREAMS.saturating_mul(2);
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["streams"] = json!({"per_caller": many, "per_organisation": many});
    });
    let org = org.through(&own.gateway);
    let key = org.key("analyst").key;
    (own, org, key)
}

/// Two sockets per stream here, two in Envoy, which inherits the limit.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    let enough = Some(8_192);
    if limit.current.is_some() && limit.current < enough {
        let current = limit.maximum.map_or(enough, |most| enough.map(|enough| enough.min(most)));
        setrlimit(Resource::Nofile, Rlimit { current, ..limit })
            .expect("raise the limit of open files");
    }
}

/// What Envoy has allocated, and what it has resident.
fn memory(own: &OwnEnvoy) -> (u64, u64) {
    let page = own.envoy.admin("memory").expect("the admin page").json();
    let allocated = page["allocated"].as_str().and_then(|bytes| bytes.parse().ok());
    let status = fs::read_to_string(format!("/proc/{}/status", own.envoy.process().pid()));
    let resident = status.expect("its status").lines().find_map(|line| {
        let kilobytes = line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?;
        kilobytes.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
    });
    (allocated.expect("a number"), resident.expect("a number"))
}

// Proves: B1, B18, X17
fn more_than_a_thousand_stay_open_on_one_worker_without_growing_per_event(world: &World<'_>) {
    allow_many_files();
    let source = Source::start();
    let (own, _org, key) = behind(world, &source, "60s");
    let started = Instant::now();
    let request = listen(&key, "crowd");
    let mut streams: Vec<(TcpStream, Listener)> = Vec::new();
    for _ in 0..STREAMS {
        let listener = Listener::open(own.gateway.address(), &request);
        streams.push((source.next(), listener));
    }
    let opened = started.elapsed();
    let mut number = 0;
    let mut measured = Vec::new();
    for rounds in ROUNDS {
        for _ in 0..rounds {
            number += 1;
            for (upstream, _) in &streams {
                send(upstream, number);
            }
            for (_, listener) in &mut streams {
                listener.hear(number);
            }
        }
        measured.push(memory(&own));
    }
    // Past the time within which a request has to be there, several times over.
    thread::sleep((REQUEST_TIMEOUT * 2).saturating_sub(started.elapsed()));
    for (upstream, listener) in &mut streams {
        send(upstream, 0);
        listener.hear(0);
    }
    let events = (ROUNDS[1] * STREAMS) as u64;
    let [first, second] = measured.as_slice() else { panic!("two measurements") };
    println!(
        "{STREAMS} streams open after {opened:?}, {number} events on each after {:?}; allocated and resident {first:?}, then {second:?}",
        started.elapsed()
    );
    for ((before, after), most) in
        [(first.0, second.0), (first.1, second.1)].into_iter().zip(MOST_GROWTH_PER_EVENT)
    {
        let growth = after.saturating_sub(before);
        assert!(growth < events * most, "{growth} bytes for {events} events");
    }
    // The clients leave first; a source that breaks off would be an error.
    let (upstreams, listeners): (Vec<TcpStream>, Vec<Listener>) = streams.into_iter().unzip();
    drop(listeners);
    let entries = eventually_by_agent(&own, "crowd", STREAMS);
    let ids: BTreeSet<String> =
        entries.iter().map(|entry| entry["request_id"].to_string()).collect();
    assert_eq!((entries.len(), ids.len()), (STREAMS, STREAMS), "one entry per stream");
    assert!(entries.iter().all(|entry| entry["status"] == "success"), "{}", entries[0]);
    drop(upstreams);
}

fn eventually_by_agent(own: &OwnEnvoy, agent: &str, count: usize) -> Vec<Value> {
    ready::eventually("the audit entries", Duration::from_secs(10), || {
        let entries = own.gateway.audit().entries_where("user_agent", agent);
        (entries.len() >= count).then_some(entries)
    })
    .unwrap()
}

// Proves: B2, X17
fn client_that_leaves_is_gone_for_the_upstream_at_once(world: &World<'_>) {
    let source = Source::start();
    let (own, _org, key) = behind(world, &source, "60s");
    let call = Request::post(PYTHON, mcp::call("echo", json!({"message": "x"})).to_string())
        .bearer(&key)
        .without("user-agent")
        .header("user-agent", "leaver");
    for (request, status) in [(listen(&key, "leaver"), "success"), (call, "aborted")] {
        let before = own.gateway.audit().entries_where("user_agent", "leaver").len();
        let mut listener = Listener::open(own.gateway.address(), &request);
        let mut upstream = source.next();
        send(&upstream, 1);
        listener.hear(1);
        upstream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        drop(listener);
        // An end or a reset: either way it is over. Nothing else could end it by then but that the client left.
        let read = upstream.read(&mut [0; 16]);
        assert!(matches!(&read, Ok(0)) || is_reset(&read), "{} {read:?}", request.method);
        let entries = eventually_by_agent(&own, "leaver", before + 1);
        assert_eq!(entries.len(), before + 1, "{entries:?}");
        assert_eq!(entries[before]["status"], status, "{}", entries[before]);
    }
}

// Finding F16: Envoy gives no reason for NO_ERROR, and another one for REFUSED_STREAM.
// Proves: A15, C5
fn client_that_resets_its_stream_left_whatever_the_code_is(world: &World<'_>) {
    let source = Source::start();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    for (answers, address) in
        [("begun", source.address), ("none", silent.local_addr().expect("its address"))]
    {
        let own = world.envoy(Workers::One, |settings| settings.python(address));
        let org = Organisation::with_policy(world.stack(), |policy| {
            policy["connectors"]["python"]["tools"] = json!({"echo": {"price": 5, "row_price": 1}});
        });
        let org = org.through(&own.gateway);
        let key = org.key("analyst").key;
        let body = mcp::call("echo", json!({"message": "x"})).to_string();
        // NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, STREAM_CLOSED, REFUSED_STREAM and CANCEL.
        for code in [0, 1, 2, 5, 7, 8] {
            let agent = format!("resets-{answers}-{code}");
            let request = Request::post(PYTHON, body.clone())
                .bearer(&key)
                .without("user-agent")
                .header("user-agent", &agent);
            let client = Http2::connect(own.gateway.address()).unwrap();
            let mut open = client.open(&request).unwrap();
            client.send(&mut open, body.as_bytes(), true).unwrap();
            // The request is with the server.
            let _upstream = match answers {
                "begun" => source.next(),
                _ => silent.accept().expect("a connection").0,
            };
            if answers == "begun" {
                client.head(&mut open).unwrap();
            }
            client.reset_with(open, code).unwrap();
            let entries = eventually_by_agent(&own, &agent, 1);
            assert_eq!(entries.len(), 1, "{agent}: {entries:?}");
            assert_eq!(entries[0]["status"], "aborted", "{agent}: {}", entries[0]);
            assert_eq!(entries[0]["credits"], 1_005, "{agent}: {}", entries[0]);
        }
        let health = Request::bare("GET", "/portcullis/health").header("host", "gateway.test");
        let health = Http2::connect(own.gateway.address()).unwrap().exchange(&health).unwrap();
        let health = String::from_utf8_lossy(&health.body).into_owned();
        assert!(health.contains(r#""status":"healthy""#), "{answers}: {health}");
    }
}

// Proves: B2, A15
fn silent_stream_ends_at_the_idle_limit_and_is_audited(world: &World<'_>) {
    let source = Source::start();
    let (own, _org, key) = behind(world, &source, "4s");
    let mut listener = Listener::open(own.gateway.address(), &listen(&key, "patient"));
    let mut upstream = source.next();
    // It is silence that ends it, not age.
    for number in 1..6 {
        thread::sleep(Duration::from_secs(1));
        send(&upstream, number);
        listener.hear(number);
    }
    let silent = listener.ended_after();
    // Listening has a limit of its own, which would fail the test.
    assert!(silent.as_millis() >= 3_500, "{silent:?}");
    upstream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let read = upstream.read(&mut [0; 16]);
    assert!(!matches!(read, Ok(1..)), "the upstream's end is closed too: {read:?}");
    let entries = eventually_by_agent(&own, "patient", 1);
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(entries[0]["http_status"], 200, "{}", entries[0]);
}

// Proves: A5, B1
// Finding 3.4: streams that were opened before a revocation ran on to their end.
fn open_stream_ends_soon_after_its_key_is_revoked(world: &World<'_>) {
    let source = Source::start();
    let own = world.envoy(Workers::One, |settings| settings.python(source.address));
    let org = Organisation::with_policy(world.stack(), |policy| {
        policy["streams"] = json!({"recheck": "1s"});
    });
    let org = org.through(&own.gateway);
    let (leaving, staying) = (org.key("analyst"), org.key("analyst"));
    let mut ends = Listener::open(org.gateway.address(), &listen(&leaving.key, "leaving"));
    let first = source.next();
    let mut goes_on = Listener::open(org.gateway.address(), &listen(&staying.key, "staying"));
    let second = source.next();
    send(&first, 1);
    ends.hear(1);
    // Checks that find nothing leave it alone.
    thread::sleep(Duration::from_secs(3));
    send(&first, 2);
    ends.hear(2);
    org.operator.revoke_key(&leaving.id, "a test").expect("revoke");
    assert!(ends.ended_after() < Duration::from_secs(9), "it runs on");
    send(&second, 3);
    goes_on.hear(3);
    let entries = eventually_by_agent(&own, "leaving", 1);
    let events = entries[0]["events"].as_array().cloned().unwrap_or_default();
    let ended = json!({"event": "stream_ended", "rule": "auth.revoked"});
    assert!(events.contains(&ended), "{}", entries[0]);
}
