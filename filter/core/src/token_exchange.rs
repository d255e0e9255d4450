//! Access tokens for connectors' servers, from an authorization server.
//!
//! Owns the requests of RFC 8693 (token exchange), RFC 6749 §4.4 (client credentials) and RFC 7523 §2.1 (a token as
//! assertion), and the replies. Sends nothing. Where a token goes is a connector's business.

use std::time::Duration;

use serde_json::Value;
use url::form_urlencoded::{Serializer, byte_serialize};

use crate::decode::settings::{cluster, milliseconds};
use crate::decode::{Faults, Fields, Node};
use crate::id::{OrgId, PolicyName};
use crate::json;
use crate::secret::Secret;
use crate::vault::SecretRef;

/// An authorization server that gives tokens to this gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationServer {
    /// Its Envoy cluster.
    pub cluster: String,
    /// Its host.
    pub authority: String,
    /// The path of its token endpoint.
    pub path: String,
    /// How long one request may take.
    pub timeout: Duration,
    /// The gateway's name there.
    pub client_id: String,
    /// The gateway's secret there.
    pub client_secret: SecretRef,
    /// Where the secret goes.
    pub client_authentication: ClientAuthentication,
    /// The organisations whose policies may name it; all without a list, none with an empty one.
    pub organisations: Option<Vec<OrgId>>,
}

/// How a client authenticates (RFC 6749 §2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// `client_secret_basic`.
    #[default]
    Basic,
    /// `client_secret_post`.
    Post,
}

/// How a token is got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GrantType {
    /// RFC 8693: the caller's token for one of the server's.
    TokenExchange,
    /// RFC 6749 §4.4: the gateway's own.
    ClientCredentials,
    /// RFC 7523 §2.1: the caller's token is the assertion.
    JwtBearer,
}

impl GrantType {
    /// What a policy calls it.
    pub const EXPECTED: &'static str = "token_exchange, client_credentials or jwt_bearer";

    /// Reads the name in a policy.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        match text {
            "token_exchange" => Some(Self::TokenExchange),
            "client_credentials" => Some(Self::ClientCredentials),
            "jwt_bearer" => Some(Self::JwtBearer),
            _ => None,
        }
    }

    const fn uri(self) -> &'static str {
        match self {
            Self::TokenExchange => "urn:ietf:params:oauth:grant-type:token-exchange",
            Self::ClientCredentials => "client_credentials",
            Self::JwtBearer => "urn:ietf:params:oauth:grant-type:jwt-bearer",
        }
    }

    /// Whether the token depends on the caller's.
    #[must_use]
    pub const fn is_of_caller(self) -> bool {
        match self {
            Self::TokenExchange | Self::JwtBearer => true,
            Self::ClientCredentials => false,
        }
    }
}

/// What a connector asks an authorization server for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Exchange {
    /// The server's name in the plugin configuration.
    pub server: PolicyName,
    /// How the token is got.
    pub grant: GrantType,
    /// Whom the token is for (RFC 8693 §2.1).
    pub audience: Option<String>,
    /// Whom the token is for (RFC 8707).
    pub resource: Option<String>,
    /// Its scopes.
    pub scopes: Vec<String>,
}

/// A token of one connector, and of one token of a caller.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenRef {
    /// What is asked for.
    pub exchange: Exchange,
    /// The organisation.
    pub org: OrgId,
    /// The connector.
    pub connector: PolicyName,
    /// The caller's token, where the grant depends on it. A token with fewer rights never gets what one with more got.
    pub subject: Option<[u8; 32]>,
    /// The caller.
    pub owner: Option<String>,
}

/// A request to a token endpoint.
#[derive(Debug)]
pub struct TokenRequest {
    /// The Envoy cluster.
    pub cluster: String,
    /// The host.
    pub authority: String,
    /// The path.
    pub path: String,
    /// How long it may take.
    pub timeout: Duration,
    /// The header `authorization`, where the client authenticates by it.
    pub authorization: Option<Secret>,
    /// The form.
    pub body: Secret,
}

/// A token, and how long it lives.
#[derive(Debug)]
pub struct IssuedToken {
    /// The token.
    pub token: Secret,
    /// For how long it is used.
    pub used_for: Duration,
    /// For how long it is valid.
    pub valid_for: Duration,
}

/// Why there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotIssued {
    /// The server gives this caller none.
    NotGranted,
    /// It answered with this status.
    Status(u16),
    /// The answer is none of a token endpoint.
    Unreadable,
    /// It is one, and has nothing that goes into a header as an access token. That says nothing of other callers.
    Unfit,
}

impl AuthorizationServer {
    /// Whether policies of `org` may name it.
    #[must_use]
    pub fn serves(&self, org: &OrgId) -> bool {
        self.organisations.as_ref().is_none_or(|listed| listed.contains(org))
    }

    /// The request for a token. `subject` is the caller's token.
    #[must_use]
    pub fn request(
        &self,
        exchange: &Exchange,
        client_secret: &Secret,
        subject: Option<&str>,
    ) -> Option<TokenRequest> {
        // As long as it takes: a text that grows leaves copies behind that nobody wipes.
        let room = subject.map_or(0, str::len).saturating_add(4_096);
        let mut form = Serializer::new(String::with_capacity(room));
        form.append_pair("grant_type", exchange.grant.uri());
        match exchange.grant {
            GrantType::TokenExchange => {
                form.append_pair("subject_token", subject?);
                let kind = "urn:ietf:params:oauth:token-type:access_token";
                form.append_pair("subject_token_type", kind);
                form.append_pair("requested_token_type", kind);
            }
            GrantType::JwtBearer => _ = form.append_pair("assertion", subject?),
            GrantType::ClientCredentials => {}
        }
        let named = [("audience", &exchange.audience), ("resource", &exchange.resource)];
        for (name, value) in named {
            if let Some(value) = value {
                form.append_pair(name, value);
            }
        }
        if !exchange.scopes.is_empty() {
            form.append_pair("scope", &exchange.scopes.join(" "));
        }
        let authorization = match self.client_authentication {
            ClientAuthentication::Basic => Some(self.basic(client_secret)),
            ClientAuthentication::Post => {
                form.append_pair("client_id", &self.client_id);
                form.append_pair("client_secret", client_secret.expose());
                None
            }
        };
        Some(TokenRequest {
            cluster: self.cluster.clone(),
            authority: self.authority.clone(),
            path: self.path.clone(),
            timeout: self.timeout,
            authorization,
            body: Secret::new(form.finish()),
        })
    }

    /// Both parts are form-encoded before they are joined (RFC 6749 §2.3.1).
    fn basic(&self, client_secret: &Secret) -> Secret {
        use base64::Engine as _;
        let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let secret = Secret::new(encoded(client_secret.expose()));
        let pair = Secret::new([&encoded(&self.client_id), ":", secret.expose()].concat());
        let value = Secret::new(base64::engine::general_purpose::STANDARD.encode(pair.expose()));
        Secret::new(["Basic ", value.expose()].concat())
    }
}

/// Errors of a token endpoint that say: not for this caller, who may change that.
const NOT_GRANTED: [&str; 6] = [
    "invalid_grant",
    "invalid_token",
    "access_denied",
    "consent_required",
    "interaction_required",
    "login_required",
];

/// What a token endpoint answered.
///
/// # Errors
/// It gave no token; beside that its error code (RFC 6749 §5.2), if it is one.
pub fn issued(status: u16, body: &[u8]) -> Result<IssuedToken, (NotIssued, Option<String>)> {
    /// A token without a stated life (RFC 6749 §5.1) is used for so long.
    const UNSTATED: u64 = 60;
    const LONGEST: u64 = 86_400;
    const ACCESS_TOKENS: [&str; 2] =
        ["urn:ietf:params:oauth:token-type:access_token", "urn:ietf:params:oauth:token-type:jwt"];
    let reply = json::parse_strict(body).ok();
    let text = |name: &str| reply.as_ref()?.get(name)?.as_str();
    let code = || text("error").filter(|code| is_error_code(code)).map(str::to_owned);
    if !(200..300).contains(&status) {
        let code = code();
        let refused = code.as_deref().is_some_and(|code| NOT_GRANTED.contains(&code));
        let why = if refused { NotIssued::NotGranted } else { NotIssued::Status(status) };
        return Err((why, code));
    }
    if reply.is_none() {
        return Err((NotIssued::Unreadable, None));
    }
    let unfit = || (NotIssued::Unfit, code());
    // `N_A` is for what is no access token (RFC 8693 §2.2.1), so the server has to say that it is one.
    let of = text("issued_token_type");
    let is_access = of.map(|of| ACCESS_TOKENS.contains(&of));
    let kind = text("token_type").unwrap_or("Bearer");
    let goes_as_bearer = match kind {
        kind if kind.eq_ignore_ascii_case("bearer") => is_access != Some(false),
        kind if kind.eq_ignore_ascii_case("n_a") => is_access == Some(true),
        _ => false,
    };
    let token = text("access_token").filter(|_| goes_as_bearer);
    let token = token.map(|token| Secret::new(token.to_owned()));
    let token = token.and_then(|token| crate::vault::fit(token).ok()).ok_or_else(unfit)?;
    let stated = reply.as_ref().and_then(|reply| reply.get("expires_in"));
    let seconds = match stated {
        Some(Value::String(text)) => text.parse().ok(),
        Some(value) => value.as_u64().or_else(|| value.as_f64().map(whole)),
        None => None,
    };
    let valid = seconds.unwrap_or(UNSTATED).min(LONGEST);
    // It has to last until the server has read it.
    let spare = valid.div_euclid(5).min(30);
    let used_for = Duration::from_secs(valid.saturating_sub(spare));
    Ok(IssuedToken { token, used_for, valid_for: Duration::from_secs(valid) })
}

fn whole(seconds: f64) -> u64 {
    Duration::try_from_secs_f64(seconds).map(|time| time.as_secs()).unwrap_or_default()
}

fn is_error_code(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

/// The field `authorization_servers`: by their names.
pub(crate) fn read(
    fields: &mut Fields<'_>,
    faults: &mut Faults,
) -> std::collections::BTreeMap<PolicyName, AuthorizationServer> {
    const EXPECTED: &str = "an object: one member for each authorization server, with `cluster`, `path`, `client_id` and \
         `client_secret`";
    let mut servers = std::collections::BTreeMap::new();
    let Some(node) = fields.optional("authorization_servers") else { return servers };
    for (name, node) in node.members(faults, EXPECTED).unwrap_or_default() {
        match PolicyName::new(name) {
            Some(name) => servers.extend(server(node, faults).map(|server| (name, server))),
            None => node.fault(faults, "a name of 1 to 64 letters, digits, `_` or `-`"),
        }
    }
    servers
}

fn server(node: Node<'_>, faults: &mut Faults) -> Option<AuthorizationServer> {
    const PATH: &str = "the path of the token endpoint, such as /oauth2/token";
    const HOST: &str = "a host, such as idp.example";
    const CLIENT: &str = "the client's id: 1 to 256 visible characters";
    const METHOD: &str = "client_secret_basic or client_secret_post";
    let mut fields =
        node.object(faults, "an object with `cluster`, `path`, `client_id` and `client_secret`")?;
    let cluster = cluster(&mut fields, faults);
    let authority = match fields.optional("authority") {
        None => cluster.clone(),
        Some(node) => node.text(faults, HOST, |text| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
            (!text.is_empty() && text.bytes().all(plain)).then(|| text.to_owned())
        }),
    };
    let visible = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
    let path = fields.required("path", faults, PATH).and_then(|node| {
        node.text(faults, PATH, |text| {
            (text.starts_with('/') && visible(text)).then(|| text.to_owned())
        })
    });
    let timeout = milliseconds(&mut fields, "timeout_ms", 2_000, faults);
    let client_id = fields.required("client_id", faults, CLIENT).and_then(|node| {
        node.text(faults, CLIENT, |text| {
            ((1..=256).contains(&text.len()) && visible(text)).then(|| text.to_owned())
        })
    });
    let client_secret = fields
        .required("client_secret", faults, SecretRef::EXPECTED)
        .and_then(|node| node.unseen_text(faults, SecretRef::EXPECTED, SecretRef::parse));
    let method = match fields.optional("client_authentication") {
        None => Some(ClientAuthentication::default()),
        Some(node) => node.text(faults, METHOD, |text| match text {
            "client_secret_basic" => Some(ClientAuthentication::Basic),
            "client_secret_post" => Some(ClientAuthentication::Post),
            _ => None,
        }),
    };
    let organisations = match fields.optional("organisations") {
        None => Some(None),
        Some(node) => {
            let items = node.items(faults, "a list of organisations").unwrap_or_default();
            let org = |item: Node<'_>| item.text(faults, OrgId::EXPECTED, OrgId::new);
            items.into_iter().map(org).collect::<Option<Vec<_>>>().map(Some)
        }
    };
    fields.finish(faults);
    Some(AuthorizationServer {
        cluster: cluster?,
        authority: authority?,
        path: path?,
        timeout: timeout?,
        client_id: client_id?,
        client_secret: client_secret?,
        client_authentication: method?,
        organisations: organisations?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn exchange(grant: GrantType) -> Exchange {
        Exchange {
            server: PolicyName::new("corp").unwrap(),
            grant,
            audience: Some("https://crm".into()),
            resource: None,
            scopes: vec!["a".into(), "b".into()],
        }
    }

    // Proves: X21
    #[test]
    fn requests_are_those_of_the_specifications() {
        let server = AuthorizationServer {
            cluster: "idp".into(),
            authority: "idp.example".into(),
            path: "/token".into(),
            timeout: Duration::from_secs(1),
            client_id: "gate:way".into(),
            client_secret: SecretRef::parse("vault://s/a#b").unwrap(),
            client_authentication: ClientAuthentication::Basic,
            organisations: None,
        };
        let secret = Secret::new("p w".into());
        let request =
            server.request(&exchange(GrantType::TokenExchange), &secret, Some("e.y.J")).unwrap();
        assert_eq!(
            request.body.expose(),
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=e.y.J&\
             subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token&\
             requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token&\
             audience=https%3A%2F%2Fcrm&scope=a+b"
        );
        // gate%3Away:p+w
        let basic = request.authorization.unwrap();
        assert_eq!(basic.expose(), "Basic Z2F0ZSUzQXdheTpwK3c=");
        assert!(server.request(&exchange(GrantType::JwtBearer), &secret, None).is_none());
        let post =
            AuthorizationServer { client_authentication: ClientAuthentication::Post, ..server };
        let request = post.request(&exchange(GrantType::ClientCredentials), &secret, None).unwrap();
        assert!(request.authorization.is_none());
        assert!(request.body.expose().ends_with("&client_id=gate%3Away&client_secret=p+w"));
    }

    #[test]
    fn a_token_is_used_until_shortly_before_its_end() {
        let of = |status, body: Value| issued(status, body.to_string().as_bytes());
        let token = |expires: Value| {
            of(200, json!({"access_token": "t", "token_type": "Bearer", "expires_in": expires}))
        };
        for (expires, used, valid) in [
            (json!(300), 270, 300),
            (json!(10), 8, 10),
            (json!("60"), 48, 60),
            (json!(1e9), 86_370, 86_400),
        ] {
            let issued = token(expires).unwrap();
            assert_eq!((issued.used_for.as_secs(), issued.valid_for.as_secs()), (used, valid));
        }
        assert_eq!(of(200, json!({"access_token": "t"})).unwrap().valid_for.as_secs(), 60);
        let refresh = "urn:ietf:params:oauth:token-type:refresh_token";
        let access = "urn:ietf:params:oauth:token-type:access_token";
        let named = json!({"access_token": "t", "token_type": "N_A", "issued_token_type": access});
        assert!(of(200, named).is_ok());
        assert_eq!(issued(200, b"<html>").unwrap_err().0, NotIssued::Unreadable);
        for (status, body, why) in [
            (200, json!("no object"), NotIssued::Unfit),
            (200, json!({"access_token": "t", "token_type": "DPoP"}), NotIssued::Unfit),
            (200, json!({"access_token": "t", "token_type": "N_A"}), NotIssued::Unfit),
            (200, json!({"access_token": "t", "issued_token_type": refresh}), NotIssued::Unfit),
            (200, json!({"error": "server_error"}), NotIssued::Unfit),
            (200, json!({"token_type": "Bearer"}), NotIssued::Unfit),
            (200, json!({"access_token": "a\r\nb"}), NotIssued::Unfit),
            (400, json!({"error": "invalid_grant"}), NotIssued::NotGranted),
            (400, json!({"error": "invalid_scope"}), NotIssued::Status(400)),
            (401, json!({"error": "invalid_client"}), NotIssued::Status(401)),
            (503, json!("down"), NotIssued::Status(503)),
        ] {
            assert_eq!(of(status, body).unwrap_err().0, why);
        }
    }
}
