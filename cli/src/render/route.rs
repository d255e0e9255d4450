//! The guarded routes of a connector, independent of the target.
//!
//! Owns which routes there are. The file of each target writes them.

use super::description::{Connector, Description};
use super::guards::{Guards, Matcher};
use super::route_names::{LISTEN, MESSAGES, UNJUDGED};
use crate::report::CliError;

/// The routes of one connector.
pub(super) struct Routes<'a, S> {
    pub(super) connector: &'a Connector<S>,
    pub(super) guarded: Vec<Guarded<'a>>,
    pub(super) unjudged: Vec<Unjudged<'a>>,
}

/// A route to the server, for requests that the filter has judged.
pub(super) struct Guarded<'a> {
    pub(super) name: String,
    pub(super) path: &'a str,
    pub(super) method: Method,
    pub(super) guard: Matcher,
    /// The path that the server gets, if it differs.
    pub(super) rewrite: Option<&'a str>,
    /// Seconds without data after which a stream ends.
    pub(super) idle: u64,
}

/// The route for all other requests on the same path; it refuses them.
pub(super) struct Unjudged<'a> {
    pub(super) name: String,
    pub(super) path: &'a str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// A GET opens a stream on which the server may send nothing for hours.
    Get,
    Any,
}

impl<G, S> Description<G, S> {
    /// The routes of each connector.
    pub(super) fn routes(&self, guards: &mut Guards) -> Result<Vec<Routes<'_, S>>, CliError> {
        self.connectors.iter().map(|connector| routes(connector, guards)).collect()
    }
}

fn routes<'a, S>(
    connector: &'a Connector<S>,
    guards: &mut Guards,
) -> Result<Routes<'a, S>, CliError> {
    let Connector { name, path, messages, rewrite, idle, .. } = connector;
    let guard = guards.matcher(path)?;
    let mut guarded = vec![
        Guarded {
            name: format!("{name}{LISTEN}"),
            path,
            method: Method::Get,
            guard: guard.clone(),
            rewrite: rewrite.path.as_deref(),
            idle: idle.listen,
        },
        Guarded {
            name: name.clone(),
            path,
            method: Method::Any,
            guard,
            rewrite: rewrite.path.as_deref(),
            idle: idle.answer,
        },
    ];
    let mut unjudged = vec![Unjudged { name: format!("{name}{UNJUDGED}"), path }];
    if let Some(messages) = messages {
        guarded.push(Guarded {
            name: format!("{name}{MESSAGES}"),
            path: messages,
            method: Method::Any,
            guard: guards.matcher(messages)?,
            rewrite: rewrite.messages.as_deref(),
            idle: idle.answer,
        });
        unjudged.push(Unjudged { name: format!("{name}{MESSAGES}{UNJUDGED}"), path: messages });
    }
    Ok(Routes { connector, guarded, unjudged })
}
