//! Room for all organisations in the queue.

use portcullis_redis_lua::Bind;

use super::*;

fn bind(org: &str) -> Command {
    let key = Key::binding(org, "task", "0");
    Command::Script(Bind { key, holder: "h".into(), life: Duration::from_secs(1) }.call())
}

/// How many times the connection accepts `command` before it refuses.
fn taken(connection: &mut Connection<char>, command: &Command) -> usize {
    (0..).find(|_| connection.submit(at(1), 'a', command.clone()) == refused('a')).unwrap()
}

#[test]
fn the_queue_is_bounded() {
    let mut connection = up();
    let mut parts = (0..).map(|number: u32| get(&number.to_string()));
    let all = parts.find(|command| connection.submit(at(1), 'a', command.clone()) == refused('a'));
    assert!(all.is_some());
    assert_eq!(connection.pending.len(), MAX_PENDING);
    assert_eq!(connection.received(at(2), b"+A\r\n"), [Output::Reply('a', status("A"))]);
    assert_eq!(connection.submit(at(3), 'c', get("c")), [send(&get("c"))]);
}

// Finding 12.2: one organisation's answers filled the queue, and others' calls were refused.
#[test]
fn an_organisation_leaves_room_for_others_and_bindings_for_admissions() {
    let mut connection = up();
    let (globex, acme) = (bind("globex"), bind("acme"));
    assert_eq!(taken(&mut connection, &globex), MAX_PENDING / 3 + 1);
    let admissions = Command::Get(Key::policy("globex"));
    assert_eq!(admissions.part(), globex.part());
    assert_eq!(taken(&mut connection, &admissions), MAX_PENDING / 2 - MAX_PENDING / 3 - 1);
    assert!(taken(&mut connection, &acme) >= MAX_PENDING / 6);
    assert!(taken(&mut connection, &Command::Get(Key::policy("acme"))) > 100);
    // A late command keeps its place until Redis has answered it.
    let late = connection.tick(at(251)).len();
    assert!(late > MAX_PENDING / 2 + MAX_PENDING / 6);
    assert_eq!(connection.submit(at(252), 'a', globex), refused('a'));
}
