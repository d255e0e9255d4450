//! Access tokens for connectors' servers, from an authorization server.
//!
//! Owns the requests of RFC 8693 (token exchange), RFC 6749 §4.4 (client credentials), RFC 7523 §2.1 (a token as
//! assertion) and draft-ietf-oauth-identity-assertion-authz-grant (an ID-JAG of an identity provider as assertion at
//! another server), and the replies. Sends nothing. Where a token goes is a connector's business.

use std::time::Duration;

use serde_json::Value;
use url::form_urlencoded::{Serializer, byte_serialize};

use crate::decode::settings::{cluster, milliseconds};
use crate::decode::{Faults, Fields, Node};
use crate::id::{OrgId, PolicyName};
use crate::json;
use crate::secret::{Secret, Wiping};
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
    /// An identity assertion authorization grant: RFC 8693 for an ID-JAG at the identity provider, then RFC 7523 with it
    /// at the server that the token is of.
    IdJag,
}

impl GrantType {
    /// What a policy calls it.
    pub const EXPECTED: &'static str = "token_exchange, client_credentials, jwt_bearer or id_jag";

    /// Reads the name in a policy.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        match text {
            "token_exchange" => Some(Self::TokenExchange),
            "client_credentials" => Some(Self::ClientCredentials),
            "jwt_bearer" => Some(Self::JwtBearer),
            "id_jag" => Some(Self::IdJag),
            _ => None,
        }
    }

    /// Whether the token depends on the caller's.
    #[must_use]
    pub const fn is_of_caller(self) -> bool {
        match self {
            Self::TokenExchange | Self::JwtBearer | Self::IdJag => true,
            Self::ClientCredentials => false,
        }
    }
}

/// What the caller's token is, for an authorization server (RFC 8693 §3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SubjectTokenType {
    /// An access token.
    #[default]
    AccessToken,
    /// An ID token of OpenID Connect.
    IdToken,
    /// A JWT.
    Jwt,
}

impl SubjectTokenType {
    /// What a policy calls it.
    pub const EXPECTED: &'static str = "access_token, id_token or jwt";

    /// Reads the name in a policy.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        match text {
            "access_token" => Some(Self::AccessToken),
            "id_token" => Some(Self::IdToken),
            "jwt" => Some(Self::Jwt),
            _ => None,
        }
    }

    const fn uri(self) -> &'static str {
        match self {
            Self::AccessToken => ACCESS_TOKEN,
            Self::IdToken => "urn:ietf:params:oauth:token-type:id_token",
            Self::Jwt => JWT,
        }
    }
}

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ID_JAG: &str = "urn:ietf:params:oauth:token-type:id-jag";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

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
    /// What the caller's token is.
    pub subject_token_type: SubjectTokenType,
    /// The server that takes the ID-JAG of `server`, with [`GrantType::IdJag`].
    pub redeem: Option<PolicyName>,
}

/// What is asked for on the way to a connector's token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// The token that goes to the connector's server.
    #[default]
    Access,
    /// The ID-JAG that another server takes for it. It is used once.
    IdJag,
}

/// A token of one connector, and of one token of a caller.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenRef {
    /// What is asked for.
    pub exchange: Exchange,
    /// Which part of it.
    pub kind: TokenKind,
    /// The organisation.
    pub org: OrgId,
    /// The connector.
    pub connector: PolicyName,
    /// The caller's token, where the grant depends on it. A token with fewer rights never gets what one with more got.
    pub subject: Option<[u8; 32]>,
    /// The caller.
    pub owner: Option<String>,
}

impl TokenRef {
    /// The server that it comes from.
    #[must_use]
    pub fn server(&self) -> &PolicyName {
        match (&self.exchange.redeem, self.kind) {
            (Some(redeem), TokenKind::Access) => redeem,
            (Some(_), TokenKind::IdJag) | (None, _) => &self.exchange.server,
        }
    }

    /// The ID-JAG that it takes.
    #[must_use]
    pub fn assertion(&self) -> Option<Self> {
        let takes = self.kind == TokenKind::Access && self.exchange.redeem.is_some();
        takes.then(|| Self { kind: TokenKind::IdJag, ..self.clone() })
    }
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

    /// The request for a token. `subject` is the caller's token, or the ID-JAG where that was got for it.
    #[must_use]
    pub fn request(
        &self,
        (exchange, kind): (&Exchange, TokenKind),
        client_secret: &Secret,
        subject: Option<&str>,
    ) -> Option<TokenRequest> {
        let _wiping = Wiping::begin();
        // As long as it takes, for the most part.
        let room = subject.map_or(0, str::len).saturating_add(4_096);
        let mut form = Serializer::new(String::with_capacity(room));
        let mut of_subject = |requested: &str| {
            form.append_pair("grant_type", TOKEN_EXCHANGE);
            form.append_pair("subject_token", subject?);
            form.append_pair("subject_token_type", exchange.subject_token_type.uri());
            form.append_pair("requested_token_type", requested);
            Some(())
        };
        match (exchange.grant, kind) {
            (GrantType::TokenExchange, _) => of_subject(ACCESS_TOKEN)?,
            (GrantType::IdJag, TokenKind::IdJag) => of_subject(ID_JAG)?,
            (GrantType::JwtBearer, _) | (GrantType::IdJag, TokenKind::Access) => {
                form.append_pair("grant_type", JWT_BEARER);
                form.append_pair("assertion", subject?);
            }
            (GrantType::ClientCredentials, _) => {
                form.append_pair("grant_type", "client_credentials");
            }
        }
        // Whom the token is for, and what it may, the ID-JAG says.
        if (exchange.grant, kind) != (GrantType::IdJag, TokenKind::Access) {
            let named = [("audience", &exchange.audience), ("resource", &exchange.resource)];
            for (name, value) in named {
                if let Some(value) = value {
                    form.append_pair(name, value);
                }
            }
            if !exchange.scopes.is_empty() {
                form.append_pair("scope", &exchange.scopes.join(" "));
            }
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
const NOT_GRANTED: [&str; 7] = [
    "invalid_grant",
    "invalid_token",
    "access_denied",
    "consent_required",
    "interaction_required",
    "login_required",
    "insufficient_user_authentication",
];

/// A token is used for no longer, whatever its server says.
const LONGEST: u64 = 86_400;

/// What a token endpoint answered.
///
/// # Errors
/// It gave no token; beside that its error code (RFC 6749 §5.2), if it is one.
pub fn issued(
    kind: TokenKind,
    status: u16,
    body: &[u8],
) -> Result<IssuedToken, (NotIssued, Option<String>)> {
    /// A token without a stated life (RFC 6749 §5.1) is used for so long.
    const UNSTATED: u64 = 60;
    const ACCESS_TOKENS: [&str; 2] = [ACCESS_TOKEN, JWT];
    let _wiping = Wiping::begin();
    let reply = json::parse_reply(body).ok();
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
    let goes_as = text("token_type").unwrap_or("Bearer");
    let is_wanted = match (kind, goes_as) {
        // It is no access token, and must not be taken for one.
        (TokenKind::IdJag, goes_as) => of == Some(ID_JAG) && goes_as.eq_ignore_ascii_case("n_a"),
        (TokenKind::Access, it) if it.eq_ignore_ascii_case("bearer") => is_access != Some(false),
        (TokenKind::Access, it) if it.eq_ignore_ascii_case("n_a") => is_access == Some(true),
        (TokenKind::Access, _) => false,
    };
    // What is there and is no text is no type that we know.
    let is_type = |name| {
        let stated = reply.as_ref().and_then(|reply| reply.get(name));
        stated.is_none_or(|stated| stated.is_string() || stated.is_null())
    };
    let is_wanted = is_wanted && is_type("token_type") && is_type("issued_token_type");
    let token = text("access_token").filter(|_| is_wanted);
    let token = token.map(|token| Secret::new(token.to_owned()));
    let token = token.and_then(|token| crate::vault::fit(token).ok()).ok_or_else(unfit)?;
    let stated = reply.as_ref().and_then(|reply| reply.get("expires_in"));
    let seconds = match stated {
        Some(Value::String(text)) => text.parse().ok().map(whole),
        Some(value) => value.as_u64().or_else(|| value.as_f64().map(whole)),
        None => None,
    };
    let valid = seconds.unwrap_or(UNSTATED).min(LONGEST);
    // It has to last until the server has read it.
    let spare = valid.div_euclid(5).min(30);
    let used_for = Duration::from_secs(valid.saturating_sub(spare));
    Ok(IssuedToken { token, used_for, valid_for: Duration::from_secs(valid) })
}

/// No time at all for what is less than none, or no number.
fn whole(seconds: f64) -> u64 {
    let longest = Duration::from_secs(LONGEST);
    let time = Duration::try_from_secs_f64(seconds.min(longest.as_secs_f64())).unwrap_or_default();
    if seconds.is_nan() { 0 } else { time.as_secs() }
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
            subject_token_type: SubjectTokenType::default(),
            redeem: None,
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
        let request = server
            .request(
                (&exchange(GrantType::TokenExchange), TokenKind::Access),
                &secret,
                Some("e.y.J"),
            )
            .unwrap();
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
        // An ID-JAG of one server, and the token of another for it.
        let jag = Exchange {
            subject_token_type: SubjectTokenType::IdToken,
            redeem: PolicyName::new("crm"),
            ..exchange(GrantType::IdJag)
        };
        let request = server.request((&jag, TokenKind::IdJag), &secret, Some("e.y.J")).unwrap();
        assert_eq!(
            request.body.expose(),
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=e.y.J&\
             subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aid_token&\
             requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aid-jag&\
             audience=https%3A%2F%2Fcrm&scope=a+b"
        );
        let request = server.request((&jag, TokenKind::Access), &secret, Some("j.a.G")).unwrap();
        assert_eq!(
            request.body.expose(),
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=j.a.G"
        );
        assert!(
            server
                .request((&exchange(GrantType::JwtBearer), TokenKind::Access), &secret, None)
                .is_none()
        );
        let post =
            AuthorizationServer { client_authentication: ClientAuthentication::Post, ..server };
        let request = post
            .request((&exchange(GrantType::ClientCredentials), TokenKind::Access), &secret, None)
            .unwrap();
        assert!(request.authorization.is_none());
        assert!(request.body.expose().ends_with("&client_id=gate%3Away&client_secret=p+w"));
    }

    // Proves: X21
    #[test]
    fn an_id_jag_is_no_access_token_and_no_access_token_is_one() {
        let reply = |of: &str, goes_as: &str| {
            let of = format!("urn:ietf:params:oauth:token-type:{of}");
            json!({"access_token": "t", "issued_token_type": of, "token_type": goes_as, "expires_in": 300})
                .to_string()
        };
        for (of, goes_as, jag, access) in [
            ("id-jag", "N_A", true, false),
            ("id-jag", "Bearer", false, false),
            ("access_token", "Bearer", false, true),
            ("access_token", "N_A", false, true),
            ("id_token", "N_A", false, false),
        ] {
            let is = |kind| issued(kind, 200, reply(of, goes_as).as_bytes()).is_ok();
            assert_eq!(
                (is(TokenKind::IdJag), is(TokenKind::Access)),
                (jag, access),
                "{of} {goes_as}"
            );
        }
        let untyped = br#"{"access_token": "t", "token_type": "Bearer"}"#;
        assert!(issued(TokenKind::IdJag, 200, untyped).is_err());
    }

    #[test]
    fn a_token_is_used_until_shortly_before_its_end() {
        let of =
            |status, body: Value| issued(TokenKind::Access, status, body.to_string().as_bytes());
        let token = |expires: Value| {
            of(200, json!({"access_token": "t", "token_type": "Bearer", "expires_in": expires}))
        };
        for (expires, used, valid) in [
            (json!(300), 270, 300),
            (json!(10), 8, 10),
            (json!("60"), 48, 60),
            (json!(1e9), 86_370, 86_400),
            (json!(1e300), 86_370, 86_400),
            (json!(u64::MAX), 86_370, 86_400),
            (json!("1e9"), 86_370, 86_400),
            (json!("inf"), 86_370, 86_400),
            (json!(0), 0, 0),
            (json!(-5), 0, 0),
            (json!(-1e300), 0, 0),
            (json!("-5"), 0, 0),
            (json!("NaN"), 0, 0),
            (json!(0.9), 0, 0),
            (json!(3.9), 3, 3),
            // No time is stated.
            (json!(null), 48, 60),
            (json!("soon"), 48, 60),
            (json!([300]), 48, 60),
        ] {
            let issued = token(expires).unwrap();
            assert_eq!((issued.used_for.as_secs(), issued.valid_for.as_secs()), (used, valid));
        }
        assert_eq!(of(200, json!({"access_token": "t"})).unwrap().valid_for.as_secs(), 60);
        let refresh = "urn:ietf:params:oauth:token-type:refresh_token";
        let access = "urn:ietf:params:oauth:token-type:access_token";
        let named = json!({"access_token": "t", "token_type": "N_A", "issued_token_type": access});
        assert!(of(200, named).is_ok());
        assert_eq!(issued(TokenKind::Access, 200, b"<html>").unwrap_err().0, NotIssued::Unreadable);
        for (status, body, why) in [
            (200, json!("no object"), NotIssued::Unfit),
            (200, json!({"access_token": "t", "token_type": "DPoP"}), NotIssued::Unfit),
            (200, json!({"access_token": "t", "token_type": "N_A"}), NotIssued::Unfit),
            (200, json!({"access_token": "t", "token_type": 5}), NotIssued::Unfit),
            (200, json!({"access_token": "t", "token_type": ["Bearer"]}), NotIssued::Unfit),
            (200, json!({"access_token": "t", "issued_token_type": 5}), NotIssued::Unfit),
            (200, json!({"access_token": "t".repeat(8_193)}), NotIssued::Unfit),
            (200, json!({"access_token": "t", "of": vec![0; 200_000]}), NotIssued::Unreadable),
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
