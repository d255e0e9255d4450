//! The tools as MCP shows them: names, descriptions, schemas, hints, and results as `{"rows": […]}`.
//!
//! Knows nothing of SQL or HTTP. A refusal that the model can act on is a tool error, not a protocol error.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::wrapper::{Json, Parameters};
use rmcp::model::{Implementation, ServerCapabilities, ServerConfig};
use rmcp::{ServerHandler, tool, tool_handler, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::database::{Contact, Database, Metric, Note, Plan, User};

/// An object, as every revision of MCP wants structured content to be. The tools below spell their
/// return types out: the macro reads `Json<…>` there to publish the output schema.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Rows<T> {
    rows: Vec<T>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct QueryUsers {
    /// How many rows at most.
    #[serde(default = "default_limit")]
    #[schemars(range(min = 1, max = 1000))]
    limit: u32,
    /// Only users on this plan.
    plan: Option<Plan>,
    /// Only users whose name contains this text, in any case.
    name_contains: Option<String>,
}

const fn default_limit() -> u32 {
    10
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SearchContacts {
    /// Text to look for in name, company and email, in any case.
    query: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CreateNote {
    /// A short title.
    title: String,
    /// The text of the note.
    body: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DeleteUser {
    /// The `id` of the user, as `query_users` shows it.
    id: i64,
}

#[derive(Clone)]
pub(crate) struct Connector {
    database: Arc<Database>,
    texts: Option<Arc<PathBuf>>,
}

#[tool_router]
impl Connector {
    pub(crate) fn new(database: Arc<Database>, texts: Option<PathBuf>) -> Self {
        Self { database, texts: texts.map(Arc::new) }
    }

    /// The tools, with descriptions from the file of texts where it has them: this simulates a server that was
    /// compromised, or only updated, while clients use it.
    fn tools(&self) -> ToolRouter<Self> {
        let mut router = Self::tool_router();
        let file = self.texts.as_ref().and_then(|file| std::fs::read(&**file).ok());
        let texts: BTreeMap<String, String> =
            file.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        for (name, text) in texts {
            if let Some(route) = router.map.get_mut(name.as_str()) {
                route.attr.description = Some(text.into());
            }
        }
        router
    }

    /// List users, oldest id first.
    #[tool(annotations(title = "Query users", read_only_hint = true, open_world_hint = false))]
    async fn query_users(
        &self,
        Parameters(ask): Parameters<QueryUsers>,
    ) -> Result<Json<Rows<User>>, String> {
        if !(1..=1000).contains(&ask.limit) {
            return Err(format!("/limit: {} is not between 1 and 1000", ask.limit));
        }
        self.ask(move |database| database.users(ask.limit, ask.plan, ask.name_contains.as_deref()))
            .await
    }

    /// Find contacts by name, company or email; at most 50.
    #[tool(annotations(title = "Search contacts", read_only_hint = true, open_world_hint = false))]
    async fn search_contacts(
        &self,
        Parameters(ask): Parameters<SearchContacts>,
    ) -> Result<Json<Rows<Contact>>, String> {
        self.ask(move |database| database.contacts_matching(&ask.query)).await
    }

    /// Write a note.
    #[tool(annotations(
        title = "Create a note",
        read_only_hint = false,
        destructive_hint = false,
        idempotent_hint = false,
        open_world_hint = false
    ))]
    async fn create_note(
        &self,
        Parameters(note): Parameters<CreateNote>,
    ) -> Result<Json<Rows<Note>>, String> {
        self.ask(move |database| Ok(vec![database.add_note(&note.title, &note.body)?])).await
    }

    /// Delete a user for good and return the deleted row.
    #[tool(annotations(
        title = "Delete a user",
        read_only_hint = false,
        destructive_hint = true,
        idempotent_hint = true,
        open_world_hint = false
    ))]
    async fn delete_user(
        &self,
        Parameters(DeleteUser { id }): Parameters<DeleteUser>,
    ) -> Result<Json<Rows<User>>, String> {
        let deleted =
            self.ask(move |database| Ok(Vec::from_iter(database.delete_user(id)?))).await?;
        if deleted.0.rows.is_empty() {
            return Err(format!("/id: there is no user {id}"));
        }
        Ok(deleted)
    }

    /// Count users by plan, contacts and notes.
    #[tool(annotations(
        title = "Dashboard metrics",
        read_only_hint = true,
        open_world_hint = false
    ))]
    async fn get_dashboard_metrics(&self) -> Result<Json<Rows<Metric>>, String> {
        self.ask(Database::metrics).await
    }

    /// Runs a query off the async threads: SQLite blocks on the disk.
    async fn ask<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Database) -> rusqlite::Result<Vec<T>> + Send + 'static,
    ) -> Result<Json<Rows<T>>, String> {
        let database = Arc::clone(&self.database);
        let rows = tokio::task::spawn_blocking(move || query(&database)).await;
        match rows {
            Ok(Ok(rows)) => Ok(Json(Rows { rows })),
            Ok(Err(fault)) => {
                eprintln!("query failed: {fault}");
                Err("the database could not answer".to_owned())
            }
            Err(_) => Err("the query was cut short".to_owned()),
        }
    }
}

#[tool_handler(router = self.tools())]
impl ServerHandler for Connector {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new(
                "portcullis-demo-connector",
                env!("CARGO_PKG_VERSION"),
            ))
            .with_instructions("Sample customer data. Everything here is made up.")
    }
}
