//! The sample rows: the same on every machine, so that demos and tests can name them.

use rusqlite::{Connection, Transaction, named_params};

const SCHEMA: &str = "
CREATE TABLE users (
    id         INTEGER PRIMARY KEY,
    name       TEXT NOT NULL,
    email      TEXT NOT NULL UNIQUE,
    plan       TEXT NOT NULL CHECK (plan IN ('free', 'pro', 'enterprise')),
    created_at TEXT NOT NULL
);
CREATE TABLE contacts (
    id      INTEGER PRIMARY KEY,
    name    TEXT NOT NULL,
    company TEXT NOT NULL,
    email   TEXT NOT NULL,
    phone   TEXT NOT NULL
);
CREATE TABLE notes (
    id         INTEGER PRIMARY KEY,
    title      TEXT NOT NULL,
    body       TEXT NOT NULL,
    created_at TEXT NOT NULL
);
PRAGMA user_version = 1;
";

const USERS: u32 = 200;
const CONTACTS: u32 = 60;

const FIRST: [&str; 20] = [
    "Ada",
    "Grace",
    "Alan",
    "Barbara",
    "Edsger",
    "Frances",
    "Donald",
    "Radia",
    "Ken",
    "Margaret",
    "Dennis",
    "Hedy",
    "Niklaus",
    "Sophie",
    "Tony",
    "Katherine",
    "John",
    "Joan",
    "Leslie",
    "Mary",
];
const LAST: [&str; 13] = [
    "Abbott", "Becker", "Castro", "Dubois", "Eriksen", "Ferrari", "Gupta", "Hansen", "Ivanova",
    "Jansen", "Kimura", "Larsen", "Moreau",
];
const COMPANIES: [&str; 7] = [
    "Acorn Labs",
    "Birch & Sons",
    "Cobalt Works",
    "Driftwood",
    "Elm Street",
    "Foxglove",
    "Granite",
];

/// Creates the tables and their rows, all or none.
pub(crate) fn fill(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    for number in 1..=USERS {
        insert_user(&transaction, number)?;
    }
    for number in 1..=CONTACTS {
        insert_contact(&transaction, number)?;
    }
    transaction.execute(
        "INSERT INTO notes (title, body, created_at)
         VALUES ('Welcome', 'This database is a sample.', '2026-01-01T00:00:00Z')",
        [],
    )?;
    transaction.commit()
}

fn insert_user(transaction: &Transaction<'_>, number: u32) -> rusqlite::Result<()> {
    let (first, last) = name(number);
    let plan = match number % 10 {
        0 => "enterprise",
        1..=3 => "pro",
        _ => "free",
    };
    let (month, day, hour) = (number % 12 + 1, number % 28 + 1, number % 24);
    transaction
        .prepare(
            "INSERT INTO users VALUES (:id, :name, :email, :plan, :created_at)",
        )?
        .execute(named_params! {
            ":id": number,
            ":name": format!("{first} {last}"),
            ":email": format!("{}.{}.{number}@example.com", first.to_lowercase(), last.to_lowercase()),
            ":plan": plan,
            ":created_at": format!("2025-{month:02}-{day:02}T{hour:02}:00:00Z"),
        })?;
    Ok(())
}

fn insert_contact(transaction: &Transaction<'_>, number: u32) -> rusqlite::Result<()> {
    let (first, last) = name(number * 3);
    let company = pick(&COMPANIES, number);
    transaction
        .prepare("INSERT INTO contacts VALUES (:id, :name, :company, :email, :phone)")?
        .execute(named_params! {
            ":id": number,
            ":name": format!("{first} {last}"),
            ":company": company,
            ":email": format!("{}@{}.example", first.to_lowercase(), company.to_lowercase().replace([' ', '&'], "")),
            ":phone": format!("+1-555-{:04}", 100 + number),
        })?;
    Ok(())
}

/// 20 and 13 share no factor, so the first 260 pairs are all different.
fn name(number: u32) -> (&'static str, &'static str) {
    (pick(&FIRST, number), pick(&LAST, number))
}

fn pick(from: &[&'static str], number: u32) -> &'static str {
    from[number as usize % from.len()]
}
