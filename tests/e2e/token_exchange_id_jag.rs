//! Identity assertion authorization grants: an identity provider's ID-JAG for the caller's token, and another authorization
//! server's token for the ID-JAG. Both are real (`oidc-provider`).

use std::collections::BTreeSet;
use std::fs;

use portcullis_stack::http;
use portcullis_tests::fake::FakeUpstream;
use portcullis_tests::node::node;
use portcullis_tests::organisation::{DEMO, Organisation, PYTHON};
use portcullis_tests::tokens::{Idp, Mint};
use portcullis_tests::world::{Workers, replaced};
use portcullis_tests::{Case, Request, World, cases, mcp};
use serde_json::{Value, json};

use crate::token_exchange::claims;
use crate::vault_callers::{assert_link, head_as_text};

pub(crate) fn cases() -> Vec<Case> {
    cases!["token_exchange_id_jag": an_id_jag_of_the_identity_provider_gets_the_servers_token]
}

const LINK: &str = "https://connect.example/crm";

// Proves: X21, A5
fn an_id_jag_of_the_identity_provider_gets_the_servers_token(world: &World<'_>) {
    let stack = world.stack();
    let secret = "the-gateways-secret";
    stack.openbao.put_secret("connectors/gateway-client", "secret", secret).unwrap();
    let dir = world.dir();
    fs::create_dir_all(&dir).unwrap();
    let (subjects, issued) = (dir.join("subjects.json"), dir.join("of-corp.json"));
    fs::write(&subjects, stack.issuer.configuration()["jwks_inline"].to_string()).unwrap();
    let org_name = "acme";
    let corp =
        Idp::exchanging(node(world.workspace()), &dir.join("corp"), org_name, &subjects, 300);
    fs::write(&issued, http::get(&format!("{}/jwks", corp.issuer())).unwrap().text()).unwrap();
    // Tokens of five seconds, so that there is a second ID-JAG for each user.
    let crm = Idp::exchanging(node(world.workspace()), &dir.join("crm"), org_name, &issued, 5);
    let org = Organisation::with_policy(stack, |policy| {
        policy["connectors"]["python"]["credential"] = json!({
            "exchange": {
                "server": "corp", "grant": "id_jag", "redeem": "crm", "audience": crm.issuer(),
                "resource": "https://crm.example/mcp", "scopes": ["tools:use"],
                "subject_token_type": "access_token",
            },
            "header": "authorization", "template": "Bearer {token}",
            "missing": {"message": "Connect your CRM account.", "url": LINK},
        });
    });
    let fake = FakeUpstream::answering(head_as_text);
    let server = |cluster: &str, idp: &Idp| {
        json!({
            "cluster": cluster, "authority": idp.address().to_string(), "path": "/token",
            "client_id": "gateway", "client_secret": "vault://secret/connectors/gateway-client#secret",
        })
    };
    let servers = json!({"corp": server("portcullis_idp", &corp), "crm": server("crm_as", &crm)});
    let own = world.envoy_changed(
        Workers::One,
        |settings| settings.python(fake.address()).idp(corp.address()),
        |template| {
            let audit = "\"audit\": {\"input_max_bytes\"";
            let named = format!("\"authorization_servers\": {servers}, {audit}");
            let template = replaced(&template, audit, &named);
            let vault = "  - name: portcullis_vault\n";
            let address = crm.address();
            let cluster = json!({
                "name": "crm_as", "type": "STATIC", "connect_timeout": "1s",
                "load_assignment": {"cluster_name": "crm_as", "endpoints": [{"lb_endpoints": [{"endpoint": {
                    "address": {"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}},
                }}]}]},
            });
            replaced(&template, vault, &format!("  - {cluster}\n{vault}"))
        },
    );
    let org = org.through(&own.gateway);
    let (mint, audience) = (Mint::of(stack), stack.mcp_url().replace(DEMO, PYTHON));
    let token = |subject: &str| {
        let more = json!({"sub": subject, "aud": audience, "act": {"sub": "agent-7"}});
        mint.token(&org.name, more)
    };
    let call = |token: &str| {
        let call = mcp::call("echo", json!({"message": "x"})).to_string();
        org.gateway.send(&Request::post(PYTHON, call).bearer(token))
    };
    // Calls that come together wait for one ID-JAG and one token.
    let ada = token("ada");
    let firsts: Vec<Value> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..6).map(|_| scope.spawn(|| claims(&call(&ada)))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let ids: BTreeSet<_> = firsts.iter().map(|claims| claims["jti"].to_string()).collect();
    assert_eq!(ids.len(), 1, "{firsts:?}");
    assert_eq!((corp.token_requests(), crm.token_requests()), (1, 1));
    let first = &firsts[0];
    assert_eq!((&first["user"], &first["aud"]), (&json!("ada"), &json!("https://crm.example/mcp")));
    assert_eq!((&first["iss"], &first["act"]["sub"]), (&json!(crm.issuer()), &json!("agent-7")));
    // The server takes each ID-JAG once: the next token is for another one.
    let renewed = || (claims(&call(&ada))["jti"] != first["jti"]).then_some(());
    let time = std::time::Duration::from_secs(20);
    portcullis_stack::ready::eventually("another token", time, renewed).unwrap();
    assert_eq!(corp.token_requests(), crm.token_requests());
    // The identity provider says no: the caller gets the link, and the other server is asked nothing.
    corp.refuse(&["mallory"]);
    let asked = crm.token_requests();
    let told = call(&token("mallory"));
    assert_link(&told, LINK);
    let event = json!({"event": "token_refused", "server": "corp", "error": "invalid_grant"});
    assert_eq!(told.audit()["events"][0], event);
    assert_eq!(crm.token_requests(), asked);
    // Who presents an ID-JAG to the gateway itself presents no access token.
    let jag = mint.typed("oauth-id-jag+jwt", &org.name, json!({"sub": "ada", "aud": audience}));
    call(&jag).assert_refused(401, -31_401);
}
