//! The data: one SQLite file with users, contacts and notes, and five operations on it.
//!
//! Every value from a caller is bound, never spliced into SQL. Knows nothing of MCP or HTTP.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, Row, named_params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::seed;

/// What a customer pays for.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Plan {
    Free,
    Pro,
    Enterprise,
}

impl Plan {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Plan::Free => "free",
            Plan::Pro => "pro",
            Plan::Enterprise => "enterprise",
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct User {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) plan: String,
    /// RFC 3339, UTC.
    pub(crate) created_at: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Contact {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) company: String,
    pub(crate) email: String,
    pub(crate) phone: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Note {
    pub(crate) id: i64,
    pub(crate) title: String,
    pub(crate) body: String,
    /// RFC 3339, UTC.
    pub(crate) created_at: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Metric {
    pub(crate) metric: String,
    pub(crate) value: i64,
}

/// One connection behind a lock: SQLite has one writer anyway, and a demo has one reader.
pub(crate) struct Database {
    connection: Mutex<Connection>,
}

impl Database {
    /// Opens the file; creates and seeds it in one transaction when it is new.
    pub(crate) fn open(file: &Path) -> rusqlite::Result<Self> {
        let mut connection = Connection::open(file)?;
        // Tests and people look into the file while the server runs.
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version == 0 {
            seed::fill(&mut connection)?;
        }
        Ok(Self { connection: Mutex::new(connection) })
    }

    pub(crate) fn users(
        &self,
        limit: u32,
        plan: Option<Plan>,
        name_contains: Option<&str>,
    ) -> rusqlite::Result<Vec<User>> {
        // `instr` instead of LIKE: `%` and `_` in the caller's text stand for themselves.
        rows(
            &self.connection(),
            "SELECT id, name, email, plan, created_at FROM users
             WHERE (:plan IS NULL OR plan = :plan)
               AND (:part IS NULL OR instr(lower(name), lower(:part)) > 0)
             ORDER BY id LIMIT :limit",
            named_params! {
                ":plan": plan.map(Plan::name), ":part": name_contains, ":limit": limit,
            },
            user,
        )
    }

    pub(crate) fn contacts_matching(&self, query: &str) -> rusqlite::Result<Vec<Contact>> {
        rows(
            &self.connection(),
            "SELECT id, name, company, email, phone FROM contacts
             WHERE instr(lower(name || ' ' || company || ' ' || email), lower(:query)) > 0
             ORDER BY id LIMIT 50",
            named_params! { ":query": query },
            |row| {
                Ok(Contact {
                    id: row.get(0)?,
                    name: row.get(1)?,
                    company: row.get(2)?,
                    email: row.get(3)?,
                    phone: row.get(4)?,
                })
            },
        )
    }

    pub(crate) fn add_note(&self, title: &str, body: &str) -> rusqlite::Result<Note> {
        self.connection().query_row(
            "INSERT INTO notes (title, body, created_at)
             VALUES (:title, :body, strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
             RETURNING id, title, body, created_at",
            named_params! { ":title": title, ":body": body },
            |row| {
                Ok(Note {
                    id: row.get(0)?,
                    title: row.get(1)?,
                    body: row.get(2)?,
                    created_at: row.get(3)?,
                })
            },
        )
    }

    /// Deletes a user for good and returns it; `None` when there is no such user.
    pub(crate) fn delete_user(&self, id: i64) -> rusqlite::Result<Option<User>> {
        self.connection()
            .query_row(
                "DELETE FROM users WHERE id = :id RETURNING id, name, email, plan, created_at",
                named_params! { ":id": id },
                user,
            )
            .optional()
    }

    pub(crate) fn metrics(&self) -> rusqlite::Result<Vec<Metric>> {
        rows(
            &self.connection(),
            "SELECT 'users_total', count(*) FROM users
             UNION ALL SELECT * FROM (SELECT 'users_' || plan, count(*) FROM users
                                      GROUP BY plan ORDER BY plan)
             UNION ALL SELECT 'contacts_total', count(*) FROM contacts
             UNION ALL SELECT 'notes_total', count(*) FROM notes",
            [],
            |row| Ok(Metric { metric: row.get(0)?, value: row.get(1)? }),
        )
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic elsewhere leaves no half-done transaction: each operation is one statement.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        id: row.get(0)?,
        name: row.get(1)?,
        email: row.get(2)?,
        plan: row.get(3)?,
        created_at: row.get(4)?,
    })
}

fn rows<T>(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare(sql)?.query_map(parameters, read)?.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Database {
        let mut connection = Connection::open_in_memory().unwrap();
        seed::fill(&mut connection).unwrap();
        Database { connection: Mutex::new(connection) }
    }

    #[test]
    fn what_the_caller_typed_is_data_and_never_sql_or_a_pattern() {
        let database = fresh();
        let all = database.users(1000, None, None).unwrap().len();
        for hostile in ["' OR '1'='1", "%", "_", "'; DROP TABLE users; --"] {
            assert!(database.users(10, None, Some(hostile)).unwrap().is_empty(), "{hostile}");
            assert!(database.contacts_matching(hostile).unwrap().is_empty(), "{hostile}");
        }
        assert_eq!(database.users(1000, None, None).unwrap().len(), all);
    }

    #[test]
    fn filters_narrow_and_the_limit_cuts() {
        let database = fresh();
        assert_eq!(database.users(7, None, None).unwrap().len(), 7);
        let paying = database.users(1000, Some(Plan::Enterprise), None).unwrap();
        assert!(!paying.is_empty() && paying.iter().all(|user| user.plan == "enterprise"));
        let ada = database.users(1000, None, Some("ADA ")).unwrap();
        assert!(!ada.is_empty() && ada.iter().all(|user| user.name.starts_with("Ada ")));
    }

    #[test]
    fn a_user_is_deleted_once() {
        let database = fresh();
        assert_eq!(database.delete_user(3).unwrap().map(|user| user.id), Some(3));
        assert!(database.delete_user(3).unwrap().is_none());
    }
}
