//! A running variant: its Envoy, its request, and the checks that it works as claimed.
//!
//! Owns the checks before and after each load. The figures of a gateway that does not enforce the policy are worthless.

use super::configuration;
use super::counts::Counts;
use super::log;
use super::machine::{self, Memory};
use super::rig::{AUDIENCE, ISSUER, ORGANISATION, Rig, SUBJECT, WIDE, bind};
use super::traffic::{self, ANSWER, HEADERS, PATH, TOOL};
use super::variant::{Chain, Credential, Variant};
use portcullis_stack::failure::{Failure, Result};
use portcullis_stack::http::{self, Reply};
use portcullis_stack::ports::free_port;
use portcullis_stack::{
    Bootstrap, Certificates, Envoy, EnvoyOptions, OpenBao, StackError, envoy, files,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;

/// The tight caller's limit of calls, in the policy and in `envoy/bench/native.yaml`.
const TIGHT_LIMIT: usize = 3;
const WINDOWS: usize = 3;
/// On a busy disk Valkey can take longer than the shipped timeout; the benchmark does not measure that.
const REDIS_TIMEOUT_MS: u32 = 5_000;
/// The windows of the check last a second; on a stalled machine the check tries again.
const TRIES: u32 = 20;

/// A running variant.
pub(crate) struct Contender {
    pub(crate) variant: Variant,
    pub(crate) envoy: Envoy,
    /// The request that the loader sends.
    pub(crate) request: String,
    credential: Option<String>,
}

/// What a variant has around it.
pub(crate) struct Surroundings<'a> {
    /// Of its files.
    pub(crate) name: &'a str,
    pub(crate) upstream: SocketAddr,
    /// The parts that `envoy/envoy.yaml` does not have; see [`configuration::edit`].
    pub(crate) members: Value,
    pub(crate) vault: Option<&'a OpenBao>,
    /// A listener with TLS on this port, beside the plain one.
    pub(crate) tls: Option<(u16, &'a Certificates)>,
}

impl Contender {
    pub(crate) fn start(rig: &Rig, variant: Variant) -> Result<Self> {
        Self::before(rig, variant, rig.upstream_address)
    }

    /// A variant in front of another upstream.
    pub(crate) fn before(rig: &Rig, variant: Variant, upstream: SocketAddr) -> Result<Self> {
        let members = parts(rig, variant)?;
        let name = variant.letter();
        Self::among(rig, variant, &Surroundings { name, upstream, members, vault: None, tls: None })
    }

    /// A variant with additional members in the filter's configuration.
    pub(crate) fn with(rig: &Rig, variant: Variant, members: Value) -> Result<Self> {
        let (name, upstream) = (variant.letter(), rig.upstream_address);
        Self::among(rig, variant, &Surroundings { name, upstream, members, vault: None, tls: None })
    }

    pub(crate) fn among(rig: &Rig, variant: Variant, around: &Surroundings<'_>) -> Result<Self> {
        let mut values = bootstrap(rig, variant.chain())?.demo(around.upstream);
        if let Some(vault) = around.vault {
            values = values.vault(vault.address(), vault.token_sds());
        }
        if let Some((port, certificates)) = around.tls {
            values = values.tls(port, certificates);
        }
        let options = EnvoyOptions {
            program: rig.tools.envoy.clone(),
            template: rig.root.join("envoy/envoy.yaml"),
            bootstrap: values,
            dir: rig.dir.clone(),
            logs: rig.dir.join("logs"),
            port: free_port()?,
            admin_port: free_port()?,
            concurrency: 1,
            name: around.name.to_owned(),
        };
        let envoy = Envoy::start_edited(options, |config| {
            let edited = configuration::edit(&rig.tools, config, variant.chain(), &around.members);
            edited.map_err(|failure| StackError::Refused {
                attempted: "edit envoy.yaml".into(),
                answer: failure.to_string(),
            })
        })?;
        bind(envoy.process().pid(), &rig.cpus.envoy)?;
        let credential = match variant.credential() {
            Credential::Nothing => None,
            Credential::Token => Some(format!("Bearer {}", rig.minted.token)),
            Credential::Key => Some(format!("Bearer {}", rig.key)),
        };
        let request = traffic::request(credential.as_deref());
        Ok(Self { variant, envoy, request, credential })
    }

    /// Makes one call, which must be allowed and answered.
    pub(crate) fn right_call(&self, rig: &Rig) -> Result<()> {
        self.right(&self.call(self.credential.as_deref(), &allowed_call(rig))?, "a call")
    }

    /// The same with another credential.
    pub(crate) fn right_call_of(&self, rig: &Rig, credential: &str) -> Result<()> {
        self.right(&self.call(Some(credential), &allowed_call(rig))?, "a call")
    }

    /// Checks what the upstream and the client get in the headers: the caller and the id of the request where the variant
    /// sets them, and never the credential.
    pub(crate) fn passes_headers(&self, rig: &Rig) -> Result<()> {
        let reply = self.call(self.credential.as_deref(), &traffic::head_call(rig.serials(1)))?;
        let head = traffic::echoed_head(&reply.json());
        let at_upstream = |name: &str| {
            head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or("")
        };
        let ids = [
            at_upstream("x-portcullis-request-id"),
            reply.header("x-portcullis-request-id").unwrap_or(""),
        ];
        let caller = [at_upstream("x-portcullis-org"), at_upstream("x-portcullis-principal")];
        let named = match self.variant.credential() {
            Credential::Nothing => ["", ""],
            Credential::Token => [ORGANISATION, SUBJECT],
            Credential::Key => [ORGANISATION, WIDE],
        };
        let right = match self.variant.sets_headers() {
            true => caller == named && !ids[0].is_empty() && ids[0] == ids[1],
            false => caller == ["", ""] && ids == ["", ""],
        };
        if right && at_upstream("authorization").is_empty() && reply.status == 200 {
            return Ok(());
        }
        let expected =
            format!("{named:?} and one id, or none of these, and no credential; head: {head}");
        Err(self.lax("a call that shows the headers", &expected, &reply))
    }

    /// Checks that the variant enforces its policy, before anything is measured.
    pub(crate) fn judges(&self, rig: &Rig) -> Result<()> {
        let credential = self.credential.as_deref();
        self.right(&self.call(credential, &allowed_call(rig))?, "a call that is allowed")?;
        if self.variant.chain() == Chain::RouterOnly {
            return log::forget(self.envoy.audit_log());
        }
        let served = rig.served()?;
        for bad in [None, Some(self.stranger(rig)).as_deref()] {
            let reply = self.call(bad, &allowed_call(rig))?;
            if reply.status != 401 {
                return Err(self.lax("a bad credential", "401", &reply));
            }
        }
        let reply = self.call(credential, &traffic::hidden_call())?;
        if reply.body == ANSWER.as_bytes() {
            return Err(self.lax(
                "a call of a tool that the policy does not name",
                "a refusal",
                &reply,
            ));
        }
        if self.variant.checks_arguments() {
            self.schema_holds(rig)?;
        }
        if rig.served()? != served {
            return Err(Failure::new(format!(
                "{}: a refused call reached the upstream",
                self.name()
            )));
        }
        if self.variant.asks_redis() {
            self.windows_count(rig)?;
        }
        if self.variant.limits() {
            self.limits_stop(rig)?;
        }
        log::forget(self.envoy.audit_log())
    }

    /// Checks that arguments that break the pinned schema are refused for that reason.
    fn schema_holds(&self, rig: &Rig) -> Result<()> {
        let call = traffic::malformed_call(rig.serials(1));
        let reply = self.call(self.credential.as_deref(), &call)?;
        let text = reply.text();
        let named = text.contains("input schema") && text.contains("/limit");
        if named && reply.body != ANSWER.as_bytes() {
            return Ok(());
        }
        Err(self.lax(
            "a call with `limit` as a text",
            "a refusal that names schema and place",
            &reply,
        ))
    }

    /// Checks that a call draws from three windows.
    fn windows_count(&self, rig: &Rig) -> Result<()> {
        let mut seen = BTreeSet::new();
        for _ in 0..TRIES {
            self.call(self.credential.as_deref(), &allowed_call(rig))?;
            seen = rig.limits_in_use(ORGANISATION)?;
            // The window of the tight key stays for an hour; this check ignores it.
            seen.retain(|limit| !limit.contains("tight"));
            if seen.len() >= WINDOWS {
                break;
            }
        }
        if seen.len() < WINDOWS {
            return Err(Failure::new(format!(
                "{}: a call draws from {seen:?}, expected {WINDOWS} windows",
                self.name()
            )));
        }
        Ok(())
    }

    /// Checks that a small limit stops calls.
    fn limits_stop(&self, rig: &Rig) -> Result<()> {
        let tight = match self.variant.credential() {
            Credential::Nothing => return Ok(()),
            Credential::Token => format!("Bearer {}", rig.minted.tight),
            Credential::Key => format!("Bearer {}", rig.tight_key),
        };
        // Another variant may have used the limit up already.
        for _ in 0..TIGHT_LIMIT {
            self.call(Some(&tight), &allowed_call(rig))?;
        }
        let reply = self.call(Some(&tight), &allowed_call(rig))?;
        if reply.status == 429 { Ok(()) } else { Err(self.lax("one call too many", "429", &reply)) }
    }

    /// A well-formed credential that the gateway must refuse.
    fn stranger(&self, rig: &Rig) -> String {
        match self.variant.credential() {
            Credential::Nothing | Credential::Token => format!("Bearer {}", rig.minted.forged),
            Credential::Key => format!("Bearer {}", rig.revoked_key),
        }
    }

    fn call(&self, credential: Option<&str>, body: &str) -> Result<Reply> {
        let mut headers = HEADERS.to_vec();
        headers.extend(credential.map(|credential| ("authorization", credential)));
        let url = format!("{}{PATH}", self.envoy.url());
        Ok(http::send("POST", &url, &headers, body.as_bytes())?)
    }

    fn right(&self, reply: &Reply, what: &str) -> Result<()> {
        if reply.status == 200 && reply.body == ANSWER.as_bytes() {
            return Ok(());
        }
        Err(self.lax(what, "200 and the upstream's answer", reply))
    }

    fn lax(&self, what: &str, expected: &str, reply: &Reply) -> Failure {
        Failure::new(format!(
            "{}: {what} was answered with {} {}, expected {expected}",
            self.name(),
            reply.status,
            reply.text()
        ))
    }

    pub(crate) fn name(&self) -> String {
        format!("({}) {}", self.variant.letter(), self.variant.title())
    }

    /// The current counts of upstream and Redis. The counts of client and log come from each load.
    pub(crate) fn counts(&self, rig: &Rig) -> Result<Counts> {
        let admissions = self.variant.asks_redis().then(|| rig.admissions()).transpose()?;
        Ok(Counts { client: 0, upstream: rig.served()?, log_lines: None, admissions })
    }

    /// The increase of every count since `before`, for a load with `client` right answers; fails when the counts
    /// disagree.
    pub(crate) fn reconciled(&self, rig: &Rig, before: Counts, client: u64) -> Result<Counts> {
        let log_lines = self
            .variant
            .logs()
            .then(|| log::drained(self.envoy.audit_log(), client))
            .transpose()?;
        let now = self.counts(rig)?;
        let since = |now: u64, before: u64| now.saturating_sub(before);
        let grown = Counts {
            client,
            upstream: since(now.upstream, before.upstream),
            log_lines,
            admissions: now.admissions.map(|now| since(now, before.admissions.unwrap_or(0))),
        };
        if grown.agree(self.variant) {
            return Ok(grown);
        }
        Err(Failure::new(format!("{}: the counts disagree: {grown:?}", self.name())))
    }

    /// CPU time so far, in microseconds.
    pub(crate) fn cpu_us(&self) -> Result<f64> {
        machine::cpu_us(self.envoy.process().pid())
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        machine::memory(self.envoy.process().pid())
    }

    /// Writes all statistics of Envoy beside its log, for a later look.
    pub(crate) fn keep_stats(&self, rig: &Rig) -> Result<()> {
        let file = rig.dir.join(format!("logs/{}-stats.txt", self.variant.letter()));
        fs::write(&file, self.envoy.admin("stats")?.body)
            .map_err(|error| Failure::new(format!("could not write {}: {error}", file.display())))
    }

    /// One of Envoy's statistics.
    pub(crate) fn stat(&self, name: &str) -> Result<Option<u64>> {
        let page = self.envoy.admin(&format!("stats?filter=^{name}$"))?.text();
        Ok(page
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.trim().parse().ok()))
    }
}

/// A call with arguments that no earlier call had.
fn allowed_call(rig: &Rig) -> String {
    traffic::allowed_call(rig.serials(1))
}

fn bootstrap(rig: &Rig, chain: Chain) -> Result<Bootstrap> {
    let token = rig.dir.join("vault-token.yaml");
    // No connector of the benchmark has a credential, so the filter never asks Vault; Envoy only requires that the file
    // exists.
    let resource = "resources: [{\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret, \
                    name: vault_token, generic_secret: {secret: {inline_string: none}}}]\n";
    files::write_private(&token, resource)?;
    let bootstrap = Bootstrap::default()
        .wasm(&rig.artifacts)
        .redis(rig.valkey.address())
        .vault(rig.upstream_address, &token);
    Ok(match chain {
        Chain::Filter { mode } => bootstrap
            .set("REDIS_TIMEOUT_MS", REDIS_TIMEOUT_MS)
            .set("REFUSALS", "status")
            .set("MODE", mode)
            .set("HOLD_HEADERS", mode == "hold"),
        Chain::FilterUnguarded => {
            bootstrap.set("REDIS_TIMEOUT_MS", REDIS_TIMEOUT_MS).set("REFUSALS", "status")
        }
        Chain::RouterOnly
        | Chain::Native
        | Chain::NativeUnlimited
        | Chain::NativeHeaders
        | Chain::Inline
        | Chain::InlineUnguarded => bootstrap,
    })
}

/// The parts of the variant that `envoy/envoy.yaml` does not have.
fn parts(rig: &Rig, variant: Variant) -> Result<Value> {
    match variant.chain() {
        Chain::RouterOnly | Chain::Filter { .. } | Chain::FilterUnguarded => Ok(Value::Null),
        Chain::Native => native(rig, variant),
        Chain::NativeUnlimited | Chain::NativeHeaders => {
            configuration::unlimited(native(rig, variant)?)
        }
        Chain::Inline | Chain::InlineUnguarded => inline(rig, |mut policy| {
            policy["connectors"]["demo"]["tools"] = json!({(TOOL): traffic::pin()});
            policy
        }),
    }
}

/// Fills `envoy/bench/native.yaml`.
fn native(rig: &Rig, variant: Variant) -> Result<Value> {
    let file = rig.dir.join("native.yaml");
    let values = Bootstrap::default()
        .audit_log(&rig.dir.join(format!("{}-audit.jsonl", variant.letter())))
        .set("BENCH_ISSUER", ISSUER)
        .set("BENCH_AUDIENCE", AUDIENCE)
        .set("BENCH_JWKS", &rig.minted.jwks);
    envoy::write_config(&values, &rig.root.join("envoy/bench/native.yaml"), &file)?;
    configuration::document(&rig.tools, &file)
}

/// The same policy with this change, without limits, which only Redis counts, and the same issuer as in Envoy's own
/// chain.
pub(crate) fn inline(rig: &Rig, change: impl FnOnce(Value) -> Value) -> Result<Value> {
    let base = configuration::document(&rig.tools, &rig.root.join("envoy/bench/policy.yaml"))?;
    let mut policy = change(base);
    if let Some(members) = policy.as_object_mut() {
        members.remove("limits");
        let tiers = members.get_mut("tiers").and_then(Value::as_object_mut);
        for tier in tiers.into_iter().flat_map(serde_json::Map::values_mut) {
            *tier = json!({"limits": {}});
        }
    }
    Ok(json!({"policy": policy, "auth": issuers(rig)}))
}

/// The filter's `auth` with the issuer of the benchmark's tokens.
pub(crate) fn issuers(rig: &Rig) -> Value {
    let jwks: Value = serde_json::from_str(&rig.minted.jwks).unwrap_or_default();
    let issuer = json!({
        "issuer": ISSUER, "audiences": [AUDIENCE], "algorithms": ["ES256"], "jwks_inline": jwks,
    });
    json!({"issuers": [issuer]})
}
