//! `portcullis render`: routes with guards, for Envoy, Istio and Envoy Gateway.
//!
//! Owns the steps from a description and a file of guards to manifests. [`description`] owns the form of a description;
//! the file of each target owns the form of a route.

mod description;
mod envoy;
mod gateway_api;
mod guards;
mod istio;
mod route;
mod route_names;
mod seal;
mod yaml;

use portcullis_core::decode::Faults;
use serde_json::{Map, Value, json};

use crate::args::{RenderArgs, Session, Target};
use crate::document::Document;
use crate::report::{CliError, Output, Report, pretty, progress};
use description::Description;
use guards::Guards;

/// The response to a request that no filter has judged: the body of the filter's own 503.
const UNJUDGED: &str = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-31503,"message":"The gateway cannot serve this call right now"}}"#;

pub(crate) fn render(session: &Session, args: &RenderArgs) -> Result<Report, CliError> {
    let document = Document::read(&args.file)?;
    let value = &document.value;
    match args.target {
        Target::Envoy => made(&document, envoy::read(value), args, session, envoy::documents),
        Target::Istio => made(&document, istio::read(value), args, session, istio::documents),
        Target::GatewayApi => {
            made(&document, gateway_api::read(value), args, session, gateway_api::documents)
        }
        Target::Seal => made(&document, seal::read(value), args, session, seal::documents),
        Target::Plugin => made(&document, plugin_read(value), args, session, plugin),
    }
}

/// Makes the manifests, writes new guards to the file, and then shows the manifests.
fn made<G, S>(
    document: &Document,
    read: Result<Description<G, S>, Faults>,
    args: &RenderArgs,
    session: &Session,
    make: impl FnOnce(&Description<G, S>, &mut Guards) -> Result<Vec<Value>, CliError>,
) -> Result<Report, CliError> {
    let description = read.map_err(|faults| {
        CliError::new("the description has faults", &document.place)
            .next("docs/reference/render.md has the fields")
            .faults(document.located(&faults))
    })?;
    let mut guards = Guards::open(&args.guards, args.previous_guards.as_deref())?;
    let documents = make(&description, &mut guards)?;
    guards.keep()?;
    if let (Output::Table, Some(note)) = (session.output, guards.note()) {
        progress(&note);
    }
    let text = match args.target {
        Target::Plugin => documents.iter().map(pretty).collect(),
        Target::Envoy | Target::Seal | Target::Istio | Target::GatewayApi => {
            yaml::text(heading(args.target), &documents)
        }
    };
    let json = json!({
        "for": args.target.name(), "documents": documents, "new_guards": guards.new_paths(),
    });
    Ok(Report::done(text, json))
}

fn heading(target: Target) -> &'static str {
    match target {
        Target::Envoy => {
            "# Made by portcullis render: the content of a route_config of Envoy. It has guards, which are secrets."
        }
        Target::Seal => {
            "# Made by portcullis render: an HTTP filter of Envoy, between Portcullis and the router. It has guards, which are secrets."
        }
        Target::Istio => {
            "# Made by portcullis render, for Istio. It has guards, which are secrets."
        }
        Target::GatewayApi => {
            "# Made by portcullis render, for Envoy Gateway. It has guards, which are secrets."
        }
        Target::Plugin => "",
    }
}

fn plugin_read(document: &Value) -> Result<Description<(), ()>, Faults> {
    description::read(document, |_, _| Some(()), |_, _| Some(()))
}

/// The current value of each path, for the filter's configuration.
fn plugin(description: &Description<(), ()>, guards: &mut Guards) -> Result<Vec<Value>, CliError> {
    let mut values = Map::new();
    for connector in &description.connectors {
        for path in connector.paths() {
            values.insert(path.to_owned(), Value::from(guards.value(path)?));
        }
    }
    Ok(vec![json!({ "guards": values })])
}

/// An object of the members that are present.
fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    let there = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(there.collect())
}
