//! The load: each thread holds one connection, takes the next request when it is free, and checks every answer.
//!
//! Owns when a request is sent and when its latency starts. It uses threads and blocking sockets: a thread can sleep
//! with microsecond precision, an event loop with millisecond timers cannot. Stops by time and by count.

use crate::Result;
use crate::wire::{FirstLine, Wire};
use hdrhistogram::Histogram;
use portcullis_load::{Latency, LoadPlan, LoadResult, SERIAL, SESSION, Shape, affinity};
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Every latency up to a minute is exact to three digits.
const LONGEST_NS: u64 = 60_000_000_000;
const DIGITS: u8 = 3;
/// A thread gives up after this many faults.
const MOST_FAULTS: u64 = 100;
/// For how long after the end of a fixed rate the loader still sends due requests.
const GRACE: Duration = Duration::from_secs(5);

/// The results of one thread.
struct Tally {
    latency: Histogram<u64>,
    lateness: Histogram<u64>,
    requests: u64,
    faults: u64,
    first_fault: Option<String>,
    last_answer: Instant,
}

/// The state that all threads share.
struct Run {
    plan: LoadPlan,
    next: AtomicU64,
    started: Instant,
}

/// The request of one connection.
struct Request {
    bytes: Vec<u8>,
    serial: Range<usize>,
}

impl Request {
    /// `None` when the request has no place for a serial number.
    fn of(plan: &LoadPlan, connection: usize) -> Option<Self> {
        let text = match plan.sessions.get(connection) {
            Some(session) => plan.request.replacen(SESSION, session, 1),
            None => plan.request.clone(),
        };
        let at = text.find(SERIAL)?;
        Some(Self { bytes: text.into_bytes(), serial: at..at + SERIAL.len() })
    }
}

/// Runs the plan until it ends.
pub(crate) fn drive(plan: LoadPlan) -> Result<LoadResult> {
    affinity::bind(std::process::id(), &plan.cpus)?;
    // A serial number has ten digits.
    if plan.first_serial.saturating_add(plan.most) > 9_999_999_999 {
        return Err("the serial numbers do not fit their place".into());
    }
    let requests: Vec<Request> = (0..plan.connections as usize)
        .map(|nth| Request::of(&plan, nth).ok_or("the request has no place for a serial number"))
        .collect::<std::result::Result<_, _>>()?;
    // Connections are opened before the clock starts.
    let wires: Vec<Wire> = (0..plan.connections)
        .map(|_| Wire::connect(plan.address))
        .collect::<std::io::Result<_>>()?;
    let barrier = Barrier::new(wires.len());
    let run =
        Run { plan, next: AtomicU64::new(0), started: Instant::now() + Duration::from_millis(20) };
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let threads: Vec<_> = wires
            .into_iter()
            .zip(requests)
            .map(|(wire, request)| {
                let (run, barrier) = (&run, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    run.thread(wire, request)
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    run.outcome(tallies)
}

impl Run {
    fn thread(&self, mut wire: Wire, mut request: Request) -> Tally {
        if let Shape::FixedRate { .. } = self.plan.shape {
            // Wakes at the exact moment, not up to 50 µs later. Where the system refuses that, `lateness` shows it.
            let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        }
        let mut tally = Tally::new(self.started);
        sleep_until(self.started);
        while tally.faults < MOST_FAULTS {
            let free = Instant::now();
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(due) = self.due(number, free) else { break };
            sleep_until(due);
            let sent = Instant::now();
            tally.lateness.saturating_record(nanos(sent - due.max(free)));
            let serial = format!("{:010}", self.plan.first_serial + number);
            request.bytes[request.serial.clone()].copy_from_slice(serial.as_bytes());
            match self.exchange(&mut wire, &request.bytes) {
                Ok(()) => {
                    tally.last_answer = Instant::now();
                    tally.latency.saturating_record(nanos(tally.last_answer - due));
                    tally.requests += 1;
                }
                Err(fault) => {
                    tally.faults += 1;
                    tally.first_fault.get_or_insert(fault);
                    match Wire::connect(self.plan.address) {
                        Ok(fresh) => wire = fresh,
                        Err(_) => break,
                    }
                }
            }
        }
        tally
    }

    /// When a thread that is free now has to send request `number`; `None` when the load is over.
    fn due(&self, number: u64, free: Instant) -> Option<Instant> {
        let end = self.started + Duration::from_secs_f64(self.plan.seconds);
        if number >= self.plan.most {
            return None;
        }
        match self.plan.shape {
            Shape::Saturation => (free < end).then_some(free),
            Shape::FixedRate { per_second } => {
                #[expect(clippy::cast_precision_loss, reason = "numbers of requests are small")]
                let moment = self.started + Duration::from_secs_f64(number as f64 / per_second);
                (moment < end && free < end + GRACE).then_some(moment)
            }
        }
    }

    /// Makes one request; the error describes a wrong answer.
    fn exchange(&self, wire: &mut Wire, request: &[u8]) -> std::result::Result<(), String> {
        let right = |first_line, body: &[u8]| {
            if first_line == FirstLine::Status(200) && body == self.plan.expected.as_bytes() {
                return Ok(());
            }
            Err(format!("{first_line:?}: {}", String::from_utf8_lossy(body)))
        };
        let reply = wire.send(request).and_then(|()| wire.response(right));
        reply.unwrap_or_else(|error| Err(error.to_string()))
    }

    fn outcome(&self, tallies: Vec<Tally>) -> Result<LoadResult> {
        let mut all = Tally::new(self.started);
        for tally in tallies {
            all.latency.add(&tally.latency)?;
            all.lateness.add(&tally.lateness)?;
            all.requests += tally.requests;
            all.faults += tally.faults;
            all.first_fault = all.first_fault.or(tally.first_fault);
            all.last_answer = all.last_answer.max(tally.last_answer);
        }
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Ok(LoadResult {
            requests: all.requests,
            seconds: (all.last_answer - self.started).as_secs_f64(),
            latency: latency(&all.latency),
            lateness_p99_us: micros(all.lateness.value_at_quantile(0.99)),
            unsent: self.unsent(all.requests + all.faults),
            cpu_us: u64::try_from(cpu.tv_sec * 1_000_000 + cpu.tv_nsec / 1_000)?,
            faults: all.faults,
            first_fault: all.first_fault,
        })
    }

    fn unsent(&self, sent: u64) -> u64 {
        match self.plan.shape {
            Shape::Saturation => 0,
            Shape::FixedRate { per_second } => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a number of requests"
                )]
                let moments = (per_second * self.plan.seconds).floor() as u64;
                moments.min(self.plan.most).saturating_sub(sent)
            }
        }
    }
}

impl Tally {
    fn new(started: Instant) -> Self {
        Self {
            latency: histogram(),
            lateness: histogram(),
            requests: 0,
            faults: 0,
            first_fault: None,
            last_answer: started,
        }
    }
}

fn histogram() -> Histogram<u64> {
    let constant_bounds_are_good = "the bounds are constants that a test has tried";
    Histogram::new_with_bounds(1, LONGEST_NS, DIGITS).expect(constant_bounds_are_good)
}

fn latency(histogram: &Histogram<u64>) -> Latency {
    let at = |quantile| micros(histogram.value_at_quantile(quantile));
    Latency {
        mean: histogram.mean() / 1_000.0,
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
        max: micros(histogram.max()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds below a minute are exact")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1_000.0
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn sleep_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::serve_on;
    use portcullis_load::{Answer, REQUEST_ID, STREAM_EVENT};
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

    /// Ends by count; the time is far away.
    fn plan(address: SocketAddr, shape: Shape) -> LoadPlan {
        LoadPlan {
            address,
            request: format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{SERIAL}"),
            sessions: Vec::new(),
            first_serial: 9_999_999_000,
            expected: "right".to_owned(),
            connections: 3,
            shape,
            seconds: 60.0,
            most: 50,
            cpus: Vec::new(),
        }
    }

    fn upstream(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let of = |marker: &str, body: &str| Answer {
            marker: marker.to_owned(),
            status: 200,
            content_type: "text/plain".to_owned(),
            body: body.to_owned(),
        };
        let answers = [of("another", "other"), of("", answer)];
        thread::spawn(move || {
            serve_on(&listener, &answers, true).map_err(|error| error.to_string())
        });
        address
    }

    #[test]
    fn a_marker_in_the_request_chooses_the_answer() {
        let mut plan = plan(upstream("right"), Shape::Saturation);
        plan.request =
            format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 17\r\n\r\nanother{SERIAL}");
        plan.expected = "other".to_owned();
        assert_eq!(drive(plan).unwrap().faults, 0);
    }

    #[test]
    fn an_answer_can_have_the_head_of_its_request() {
        let address = upstream(r###"{"head":"##head##"}"###);
        let mut wire = Wire::connect(address).unwrap();
        wire.send(b"POST / HTTP/1.1\r\nhost: \"x\"\r\ncontent-length: 2\r\n\r\n{}").unwrap();
        let answer = wire.response(|_, body| serde_json::from_slice(body)).unwrap();
        let answer: serde_json::Value = answer.unwrap();
        let head = "POST / HTTP/1.1\r\nhost: \"x\"\r\ncontent-length: 2\r\n\r\n";
        assert_eq!(answer, serde_json::json!({"head": head}));
    }

    #[test]
    fn a_stream_has_its_event_and_stays_open() {
        let mut client = TcpStream::connect(upstream("right")).unwrap();
        client.write_all(b"GET /mcp HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let (mut received, mut chunk) = (Vec::new(), [0; 512]);
        while !received.ends_with(b"\n\n\r\n") {
            let read = client.read(&mut chunk).unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&received));
            received.extend_from_slice(&chunk[..read]);
        }
        assert!(String::from_utf8(received).unwrap().contains(STREAM_EVENT));
        client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let error = client.read(&mut chunk).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    }

    /// The upstream counts POST requests; this reads the count with the same request as `xtask`.
    fn served(address: SocketAddr) -> String {
        let mut wire = Wire::connect(address).unwrap();
        wire.send(b"GET /served HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        wire.response(|_, body| String::from_utf8_lossy(body).into_owned()).unwrap()
    }

    #[test]
    fn every_request_is_sent_once_and_checked() {
        let address = upstream("right");
        for shape in [Shape::Saturation, Shape::FixedRate { per_second: 2_000.0 }] {
            let outcome = drive(plan(address, shape)).unwrap();
            let counted = (outcome.requests, outcome.faults, outcome.unsent);
            assert_eq!(counted, (50, 0, 0), "{outcome:?}");
            assert!(outcome.latency.p50 <= outcome.latency.p99 && outcome.latency.p99 > 0.0);
        }
        assert_eq!(served(address), "[0,100]");
    }

    #[test]
    fn an_answer_has_the_id_of_its_request() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let answers = [Answer {
            marker: String::new(),
            status: 202,
            content_type: "text/plain".to_owned(),
            body: format!("<{REQUEST_ID}>"),
        }];
        thread::spawn(move || {
            serve_on(&listener, &answers, true).map_err(|error| error.to_string())
        });
        let mut wire = Wire::connect(address).unwrap();
        for (body, expected) in [
            (r#"{"id":1,"method":"tools/call"}"#, "<1>"),
            (r#"{"method":"tools/list","id": "a-7" }"#, r#"<"a-7">"#),
            (r#"{"method":"notifications/initialized"}"#, "<null>"),
        ] {
            let length = body.len();
            let request =
                format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}");
            wire.send(request.as_bytes()).unwrap();
            let answer =
                wire.response(|line, body| (line, String::from_utf8_lossy(body).into_owned()));
            assert_eq!(answer.unwrap(), (FirstLine::Status(202), expected.to_owned()));
        }
    }

    #[test]
    fn a_wrong_answer_is_a_fault_and_is_shown() {
        let outcome = drive(plan(upstream("wrong"), Shape::Saturation)).unwrap();
        assert_eq!((outcome.requests, outcome.faults), (0, 50));
        assert_eq!(outcome.first_fault.as_deref(), Some("Status(200): wrong"));
    }

    #[test]
    fn each_connection_has_its_own_session() {
        let mut plan = plan(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), Shape::Saturation);
        plan.request = format!("session: {SESSION}, serial: {SERIAL}");
        plan.sessions = vec!["a".to_owned(), "longer".to_owned()];
        let text = |nth| String::from_utf8(Request::of(&plan, nth).unwrap().bytes).unwrap();
        assert_eq!(text(0), format!("session: a, serial: {SERIAL}"));
        let second = Request::of(&plan, 1).unwrap();
        assert_eq!(&second.bytes[second.serial], SERIAL.as_bytes());
    }

    #[test]
    fn serial_numbers_keep_their_length() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let too_far = LoadPlan { most: 1_000, ..plan(address, Shape::Saturation) };
        assert!(drive(too_far).unwrap_err().to_string().contains("do not fit"));
    }

    #[test]
    fn percentiles_are_exact_to_three_digits() {
        let mut histogram = histogram();
        for micros in 1..=10_000_u64 {
            histogram.saturating_record(micros * 1_000);
        }
        let latency = latency(&histogram);
        for (found, exact) in
            [(latency.p50, 5_000.0), (latency.p99, 9_900.0), (latency.max, 10_000.0)]
        {
            assert!((found - exact).abs() / exact < 0.001, "{latency:?}");
        }
    }

    #[test]
    fn the_moments_of_a_fixed_rate_do_not_depend_on_the_answers() {
        let started = Instant::now();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let mut plan = plan(address, Shape::FixedRate { per_second: 10.0 });
        (plan.seconds, plan.most) = (2.0, 1_000);
        let run = Run { plan, next: AtomicU64::new(0), started };
        let late = started + Duration::from_secs(1);
        assert_eq!(run.due(3, started), Some(started + Duration::from_millis(300)));
        assert_eq!(run.due(3, late), Some(started + Duration::from_millis(300)));
        assert_eq!(run.due(20, started), None);
        assert_eq!(run.due(19, started + Duration::from_secs(8)), None, "too far behind");
        assert_eq!(run.unsent(15), 5);
    }
}
