//! Alerts and overdrafts: the parts of a budget that a window alone does not have.

use std::time::Duration;

use portcullis_redis_lua::{AdmitReply, Window, WindowState};
use redis::Commands as _;

use crate::ledger::{alerting, draw_from, window};
use crate::valkey::{Valkey, run};

const HOUR: u64 = 3_600_000_000;

fn draw(connection: &mut redis::Connection, asked: Window) -> (bool, WindowState) {
    let admit = draw_from(vec![asked]);
    match admit.decode(run(connection, &admit.call())).unwrap() {
        AdmitReply::Admitted(windows) => (true, windows[0]),
        AdmitReply::Limited { windows, .. } => (false, windows[0]),
        AdmitReply::Stale(_) => panic!("no guards"),
    }
}

// Proves: C7
#[test]
fn of_many_connections_exactly_one_is_told_that_the_budget_nears_its_end() {
    for server in Valkey::each() {
        let raised: Vec<u64> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let mut connection = server.connect();
                        let asked = || alerting("credits", 200, HOUR, 1, 160);
                        let states = (0..40).map(|_| draw(&mut connection, asked()));
                        let raised = states.filter(|(_, state)| state.raised);
                        raised.map(|(_, state)| state.remaining).collect::<Vec<_>>()
                    })
                })
                .collect();
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
        });
        assert_eq!(raised, [40], "{}: by the call that used the 160th unit", server.name());
    }
}

#[test]
fn an_alert_is_raised_again_when_its_mark_is_gone_and_use_is_still_high() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let asked = || alerting("credits", 10, HOUR, 1, 8);
    let mut raised = || draw(&mut connection, asked()).1.raised;
    let run: Vec<bool> = (0..9).map(|_| raised()).collect();
    assert_eq!(run.iter().position(|raised| *raised), Some(7));
    assert_eq!(run.iter().filter(|raised| **raised).count(), 1);

    let mark = asked().alert.unwrap().mark;
    let lasts: i64 = connection.pttl(mark.as_str()).unwrap();
    assert!(lasts > 3_590_000 && lasts <= 3_600_000, "as long as the window: {lasts}");
    let _: () = connection.del(mark.as_str()).unwrap();
    assert!(draw(&mut connection, asked()).1.raised, "10 of 10 in use, a window later");
}

#[test]
fn nobody_is_stopped_without_an_alert() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let mut ask = |cost| {
        let (admitted, state) = draw(&mut connection, alerting("credits", 10, HOUR, cost, 8));
        (admitted, state.remaining, state.raised)
    };
    assert_eq!(ask(6), (true, 4, false));
    // The cost exceeds the remaining units, although little of the budget is used.
    assert_eq!(ask(6), (false, 4, true));
    assert_eq!(ask(6), (false, 4, false));
    assert_eq!(ask(0), (true, 4, false));
}

#[test]
fn an_overdraft_is_carried_until_the_window_has_recovered() {
    let valkey = Valkey::start();
    let mut connection = valkey.connect();
    let asked = |cost| alerting("credits", 10, HOUR, cost, 8);
    assert!(draw(&mut connection, asked(1)).0);

    let charge = Window::overdraw(vec![asked(24)]);
    let reply = run(&mut connection, &charge);
    assert!(draw_from(vec![asked(24)]).decode(reply).is_ok());

    let (admitted, state) = draw(&mut connection, asked(1));
    assert!(!admitted && state.remaining == 0 && state.raised, "{state:?}");
    let (free, _) = draw(&mut connection, asked(0));
    assert!(free, "what costs nothing is not stopped by an empty budget");

    // In a short window: refused until the overdraft has left, admitted then.
    let short = |cost| window("short", 10, 40_000, cost);
    run(&mut connection, &Window::overdraw(vec![short(25)]));
    let admit = draw_from(vec![short(1)]);
    let reply = admit.decode(run(&mut connection, &admit.call())).unwrap();
    let AdmitReply::Limited { retry_after: Some(wait), .. } = reply else {
        panic!("{reply:?}");
    };
    assert!(wait <= Duration::from_millis(40), "{wait:?}");
    std::thread::sleep(wait);
    assert!(draw(&mut connection, short(10)).0);
}
