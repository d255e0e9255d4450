//! The form of a connector's credential.
//!
//! Owns the allowed fields. Never repeats a value that is not a reference: it may be a secret.

use super::limit::duration;
use crate::connector_credential::{ConnectorCredential, Missing, SecretPattern, Source, Stale};
use crate::decode::settings::scopes;
use crate::decode::{Faults, Fields, Node};
use crate::id::PolicyName;
use crate::token_exchange::{Exchange, GrantType, SubjectTokenType};
use crate::vault::{Echo, Template};

const CREDENTIAL: &str = "an object with `secret`, `header` and `template`; or with `secret`, and `headers`, `query` or both";
const HEADERS: &str =
    "an object: one template for each header, such as {authorization: \"Bearer {secret}\"}";
const QUERY: &str = "an object: one template for each query parameter, such as {key: \"{secret}\"}";
const STALE: &str =
    "never, or a duration such as 5m: for how long it is used when it cannot be read again";

/// The only field of an exchanged token.
const TOKEN: &str = "token";

/// Named templates.
type Templates = Vec<(String, Template)>;

pub(super) fn credential(node: Node<'_>, faults: &mut Faults) -> Option<ConnectorCredential> {
    let place = node.clone();
    let mut fields = node.object(faults, CREDENTIAL)?;
    let exchanged = fields.optional("exchange").map(|node| exchange(node, faults));
    let pattern = match (&exchanged, fields.optional("secret")) {
        (Some(_), None) => None,
        (None, Some(node)) => {
            node.unseen_text(faults, SecretPattern::EXPECTED, SecretPattern::parse)
        }
        (None, None) => {
            let expected = SecretPattern::EXPECTED;
            fields.required("secret", faults, expected).and(None)
        }
        (Some(_), Some(_)) => {
            place.fault(faults, "`secret` or `exchange`, not both");
            None
        }
    };
    let field = match &exchanged {
        Some(_) => Some(Some(TOKEN.to_owned())),
        None => pattern.as_ref().map(|pattern| pattern.field().map(str::to_owned)),
    };
    let mut reader = Reader { field, names: Vec::new(), lacks_field: false };
    let one = one(&mut fields, &mut reader, faults);
    let headers = fields.optional("headers");
    let headers = headers.map(|node| {
        let expected = ConnectorCredential::HEADER;
        let name = ConnectorCredential::header_name;
        reader.each((node, HEADERS), (expected, name), faults)
    });
    let query = fields.optional("query");
    let query = query.map(|node| {
        let expected = ConnectorCredential::PARAMETER;
        let name = ConnectorCredential::parameter_name;
        reader.each((node, QUERY), (expected, name), faults)
    });
    if reader.lacks_field {
        let found = "a reference without #field, whose value {secret} stands for";
        fields.fault_at("secret", found, SecretPattern::EXPECTED, faults);
    }
    let missing = match fields.optional("missing") {
        Some(node) => missing(node, faults).map(Some),
        None => Some(None),
    };
    let stale = match fields.optional("stale") {
        Some(node) => node.text(faults, STALE, |text| match text {
            "never" => Some(Stale::Never),
            text => duration(text).map(Stale::For),
        }),
        None => Some(Stale::default()),
    };
    let echo = match fields.optional("echo") {
        Some(node) => node.text(faults, "pass or mask", |text| match text {
            "pass" => Some(Echo::Pass),
            "mask" => Some(Echo::Mask),
            _ => None,
        }),
        None => Some(Echo::default()),
    };
    fields.finish(faults);
    let headers = match (one, headers) {
        (None, None) => Some(Vec::new()),
        (None, Some(headers)) => headers,
        (Some(one), None) => one,
        (Some(_), Some(_)) => {
            place.fault(faults, CREDENTIAL);
            None
        }
    };
    let (headers, query) = (headers?, query.unwrap_or_else(|| Some(Vec::new()))?);
    if headers.is_empty() && query.is_empty() {
        place.fault(faults, CREDENTIAL);
        return None;
    }
    let source = match exchanged {
        Some(_) if reader.names.iter().any(|name| name != TOKEN) => {
            place.fault(faults, "templates with {token} alone: an exchange has no other field");
            return None;
        }
        Some(exchange) => Source::Exchange(exchange?),
        None => Source::secret(pattern?, reader.names),
    };
    Some(ConnectorCredential::new(source, (headers, query), missing?, (stale?, echo?)))
}

/// `header` and `template`, which need each other.
fn one(
    fields: &mut Fields<'_>,
    reader: &mut Reader,
    faults: &mut Faults,
) -> Option<Option<Templates>> {
    let (header, template) = (fields.optional("header"), fields.optional("template"));
    if header.is_none() && template.is_none() {
        return None;
    }
    let header = fields.required("header", faults, ConnectorCredential::HEADER).and_then(|node| {
        node.text(faults, ConnectorCredential::HEADER, ConnectorCredential::header_name)
    });
    let template = fields
        .required("template", faults, Template::EXPECTED)
        .and_then(|node| reader.template(node, faults));
    Some(header.zip(template).map(|one| vec![one]))
}

/// Reads templates; collects the fields that they name.
struct Reader {
    /// The field of `{secret}`; none when the reference itself is faulty.
    field: Option<Option<String>>,
    names: Vec<String>,
    /// A template has `{secret}`, and the reference names no field.
    lacks_field: bool,
}

impl Reader {
    fn template(&mut self, node: Node<'_>, faults: &mut Faults) -> Option<Template> {
        // A faulty reference is reported once.
        let field = match &self.field {
            Some(field) => field.as_deref(),
            None => Some("secret"),
        };
        // With a field this template would be valid: the fault is that of the reference.
        let valid = |field: Option<&str>| {
            let text = node.value().as_str();
            text.is_some_and(|text| Template::parse(text, field, &mut Vec::new()).is_some())
        };
        if field.is_none() && !valid(None) && valid(Some("secret")) {
            self.lacks_field = true;
            return None;
        }
        node.unseen_text(faults, Template::EXPECTED, |text| {
            Template::parse(text, field, &mut self.names)
        })
    }

    fn each(
        &mut self,
        (node, expected): (Node<'_>, &str),
        (name_expected, valid): (&str, fn(&str) -> Option<String>),
        faults: &mut Faults,
    ) -> Option<Templates> {
        let members = node.members(faults, expected)?;
        let read = members.into_iter().map(|(name, node)| {
            let Some(name) = valid(name) else {
                faults.push(node.path(), format!("the name {name:?}"), name_expected);
                return None;
            };
            Some((name, self.template(node, faults)?))
        });
        // Reads all of them, so that each fault is reported.
        let read: Vec<_> = read.collect();
        read.into_iter().collect()
    }
}

fn exchange(node: Node<'_>, faults: &mut Faults) -> Option<Exchange> {
    const EXCHANGE: &str =
        "an object with `server`, such as {server: corp, audience: \"https://crm.example\"}";
    const SERVER: &str = "the name of one of authorization_servers in the plugin configuration";
    const TARGET: &str = "a text of 1 to 512 visible characters, such as https://crm.example";
    const ID_JAG: &str = "with `grant: id_jag`, and with no other one, `redeem`: the authorization server that takes the \
         ID-JAG; its issuer is the `audience`";
    let place = node.clone();
    let mut fields = node.object(faults, EXCHANGE)?;
    let server = fields
        .required("server", faults, SERVER)
        .and_then(|node| node.text(faults, SERVER, PolicyName::new));
    let grant = match fields.optional("grant") {
        None => Some(GrantType::TokenExchange),
        Some(node) => node.text(faults, GrantType::EXPECTED, GrantType::named),
    };
    let mut target = |name, faults: &mut Faults| match fields.optional(name) {
        None => Some(None),
        Some(node) => node.text(faults, TARGET, |text| {
            let visible = text.bytes().all(|b| b.is_ascii_graphic());
            ((1..=512).contains(&text.len()) && visible).then(|| Some(text.to_owned()))
        }),
    };
    let (audience, resource) = (target("audience", faults), target("resource", faults));
    let scopes = match fields.optional("scopes") {
        None => Some(Vec::new()),
        Some(node) => scopes(node, faults),
    };
    let subject_token_type = match fields.optional("subject_token_type") {
        None => Some(SubjectTokenType::default()),
        Some(node) => node.text(faults, SubjectTokenType::EXPECTED, SubjectTokenType::named),
    };
    let redeem = match fields.optional("redeem") {
        None => Some(None),
        Some(node) => node.text(faults, SERVER, |text| PolicyName::new(text).map(Some)),
    };
    fields.finish(faults);
    let (grant, audience, redeem) = (grant?, audience?, redeem?);
    if (grant == GrantType::IdJag) != redeem.is_some() || (redeem.is_some() && audience.is_none()) {
        place.fault(faults, ID_JAG);
        return None;
    }
    Some(Exchange {
        server: server?,
        grant,
        audience,
        resource: resource?,
        scopes: scopes?,
        subject_token_type: subject_token_type?,
        redeem,
    })
}

fn missing(node: Node<'_>, faults: &mut Faults) -> Option<Missing> {
    const MISSING: &str = "an object with `message` and `url`";
    const MESSAGE: &str = "a text of at most 512 characters that tells a person what to do";
    const URL: &str = "an https URL without user and password, where a person gets a credential";
    let mut fields = node.object(faults, MISSING)?;
    let message = fields.required("message", faults, MESSAGE).and_then(|node| {
        node.text(faults, MESSAGE, |text| {
            let fits = (1..=512).contains(&text.chars().count());
            (fits && !text.contains(char::is_control)).then(|| text.to_owned())
        })
    });
    let url = fields
        .required("url", faults, URL)
        .and_then(|node| node.text(faults, URL, |text| is_link(text).then(|| text.to_owned())));
    fields.finish(faults);
    Some(Missing { message: message?, url: url? })
}

/// Plain HTTP only for a link to the same machine, for tests.
fn is_link(text: &str) -> bool {
    let Ok(url) = url::Url::parse(text) else { return false };
    let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    let scheme = url.scheme() == "https" || (url.scheme() == "http" && local);
    let plain = text.len() <= 2_048 && text.bytes().all(|b| b.is_ascii_graphic());
    scheme && plain && url.username().is_empty() && url.password().is_none()
}
