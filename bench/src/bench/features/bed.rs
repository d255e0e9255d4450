//! What the features are measured on: a plain Envoy, three gateways, OpenBao, the server with all answers, and an Envoy in
//! front that speaks HTTP/2 and TLS to them.
//!
//! Owns starting them, the policies and keys of all features, and the checks before any load.

use super::feature::{Call, Caller, FEATURES, Feature, Gateway, Proof, Way, answers};
use super::front::Front;
use crate::configuration;
use crate::contender::{Contender, Surroundings, issuers};
use crate::log;
use crate::rig::Rig;
use crate::traffic::{self, HEADERS, PATH};
use crate::variant::Variant;
use portcullis_load::SERIAL;
use portcullis_stack::failure::{Failure, Result};
use portcullis_stack::http::{self, Reply};
use portcullis_stack::ports::{free_port, loopback};
use portcullis_stack::progress::step;
use portcullis_stack::{Certificates, KeySpec, OpenBao, Operator, Process};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;

/// The windows of the check last a second; on a stalled machine the check tries again.
const TRIES: u32 = 20;

/// Everything that is loaded, and what it needs.
pub(super) struct Bed {
    pub(super) plain: Contender,
    /// As shipped, in `split` mode, and with durable intents.
    pub(super) gateways: [Contender; 3],
    front: Front,
    openbao: OpenBao,
    _server: Process,
}

/// A feature that has shown that it is in force.
pub(super) struct Prepared {
    pub(super) feature: Feature,
    pub(super) plain: Target,
    pub(super) gateway: Target,
}

/// A request, and its only right answer.
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) request: String,
    pub(super) expected: String,
}

impl Bed {
    pub(super) fn start(rig: &Rig) -> Result<Self> {
        let upstream = loopback(free_port()?);
        let server = rig.serve(upstream, &answers())?;
        let logs = rig.dir.join("logs");
        let openbao = OpenBao::start(&rig.tools.bao, &rig.dir, &logs, free_port()?)?;
        let certificates = Certificates::make(&rig.dir.join("certificates"))?;
        let auth = issuers(rig);
        let envoy = |name, variant, members| -> Result<_> {
            let tls = free_port()?;
            let around = Surroundings {
                name,
                upstream,
                members,
                vault: Some(&openbao),
                tls: Some((tls, &certificates)),
            };
            Contender::among(rig, variant, &around).map(|envoy| (envoy, loopback(tls)))
        };
        let (plain, plain_tls) = envoy("plain", Variant::Plain, Value::Null)?;
        let (hold, hold_tls) = envoy("hold", Variant::Key, json!({"auth": auth}))?;
        let (split, _) = envoy("split", Variant::KeySplit, json!({"auth": auth}))?;
        let durable = json!({"auth": auth, "audit": {"durable": true}});
        let (durable, _) = envoy("durable", Variant::Key, durable)?;
        let front = Front::start(
            rig,
            [(plain.envoy.address(), plain_tls), (hold.envoy.address(), hold_tls)],
        )?;
        Ok(Self { plain, gateways: [hold, split, durable], front, openbao, _server: server })
    }

    /// Gives every feature its policy, and its key or token; then each has to show that it is in force.
    pub(super) fn prepare(&self, rig: &Rig, only: Option<&str>) -> Result<Vec<Prepared>> {
        let wanted = |feature: &&Feature| {
            feature.name == FEATURES[0].name || only.is_none_or(|only| feature.name.contains(only))
        };
        let features: Vec<_> = FEATURES.iter().filter(wanted).collect();
        let keys = step("pushing a policy for each feature", || self.settle(rig, &features))?;
        step("trying each feature", || {
            let prepared = features.iter().map(|feature| {
                let key = keys.get(feature.name).map_or("", String::as_str);
                self.prepared(rig, feature, key)
            });
            prepared.collect()
        })
    }

    /// The credential of each feature's caller.
    fn settle(&self, rig: &Rig, features: &[&Feature]) -> Result<BTreeMap<&'static str, String>> {
        let operator = Operator::new(&rig.artifacts.cli, &rig.valkey.url());
        let shipped =
            configuration::document(&rig.tools, &rig.root.join("envoy/bench/policy.yaml"))?;
        let mut credentials = BTreeMap::new();
        for feature in features {
            let file = rig.dir.join("feature.json");
            fs::write(&file, feature.document(&shipped).to_string())
                .map_err(|error| Failure::new(error.to_string()))?;
            operator.push_policy(&file, "benchmark")?;
            let credential = match feature.credential {
                Caller::Token => rig.minted.token.clone(),
                Caller::Key => {
                    let org = feature.name;
                    let spec = KeySpec { org, name: org, role: "analyst", tier: "wide" };
                    operator.issue_key(&spec)?.key
                }
            };
            credentials.insert(feature.name, format!("Bearer {credential}"));
            self.openbao.put_secret(
                &format!("connectors/{}", feature.name),
                "api_key",
                &format!("benchmark-{}", feature.name),
            )?;
        }
        Ok(credentials)
    }

    fn prepared(&self, rig: &Rig, feature: &Feature, credential: &str) -> Result<Prepared> {
        let body = feature.body();
        let gateway = self.gateway(feature.gateway);
        let target = |envoy: &Contender, address, credential: Option<&str>| -> Result<_> {
            let expected = right(feature, &send(rig, envoy.envoy.address(), credential, &body)?)?;
            let request = traffic::request_with(credential, &body);
            Ok(Target { address, request, expected })
        };
        let [plain_address, gateway_address] = match feature.way {
            Way::Http1 => [self.plain.envoy.address(), gateway.envoy.address()],
            way => self.front.addresses(way),
        };
        let plain = target(&self.plain, plain_address, None)?;
        let gateway_target = target(gateway, gateway_address, Some(credential))?;
        let unchanged = matches!(feature.call, Call::Tool { .. });
        if unchanged && plain.expected != gateway_target.expected {
            return Err(lax(feature, "the gateway's answer is not the server's"));
        }
        self.prove(rig, feature, credential, &gateway_target.expected)?;
        Ok(Prepared { feature: *feature, plain, gateway: gateway_target })
    }

    pub(super) fn gateway(&self, gateway: Gateway) -> &Contender {
        let [hold, split, durable] = &self.gateways;
        match gateway {
            Gateway::Hold => hold,
            Gateway::Split => split,
            Gateway::Durable => durable,
        }
    }

    fn prove(&self, rig: &Rig, feature: &Feature, credential: &str, right: &str) -> Result<()> {
        let gateway = self.gateway(feature.gateway);
        let call = |body: &str| send(rig, gateway.envoy.address(), Some(credential), body);
        let proven = match feature.proof {
            Proof::Answered => true,
            Proof::Refuses(arguments) => {
                call(&feature.body_with(arguments))?.body != right.as_bytes()
            }
            Proof::Draws(windows) => (0..TRIES).any(|_| {
                let called = call(&feature.body()).is_ok();
                let drawn = rig.limits_in_use(feature.name).map(|limits| limits.len());
                called && drawn.is_ok_and(|drawn| drawn == windows)
            }),
            Proof::Writes(text) => {
                log::forget(gateway.envoy.audit_log())?;
                call(&feature.body())?;
                log::drained(gateway.envoy.audit_log(), 1)?;
                log::example(gateway.envoy.audit_log())?.contains(text)
            }
            Proof::Stores(text) => {
                call(&feature.body())?;
                rig.keeps(text)?
            }
            Proof::Lists(tools) => {
                let list: Value = serde_json::from_str(right).unwrap_or_default();
                list.pointer("/result/tools").and_then(Value::as_array).map(Vec::len) == Some(tools)
            }
            Proof::ReadsVault => {
                let log = fs::read_to_string(self.openbao.audit_log()).unwrap_or_default();
                log.contains(&format!("secret/data/connectors/{}\"", feature.name))
                    && log.contains("\"operation\":\"read\"")
            }
        };
        if proven {
            return Ok(());
        }
        Err(lax(feature, &format!("it is not in force: expected {:?}", feature.proof)))
    }
}

/// The body of an answer that the loader then expects from every request.
fn right(feature: &Feature, reply: &Reply) -> Result<String> {
    if reply.status == 200 {
        return Ok(reply.text());
    }
    let text: String = reply.text().chars().take(200).collect();
    Err(lax(feature, &format!("a call was answered with {} {text}", reply.status)))
}

fn lax(feature: &Feature, what: &str) -> Failure {
    Failure::new(format!("{}: {what}", feature.name))
}

fn send(rig: &Rig, address: SocketAddr, credential: Option<&str>, body: &str) -> Result<Reply> {
    let body = body.replace(SERIAL, &format!("{:010}", rig.serials(1)));
    let mut headers = HEADERS.to_vec();
    headers.extend(credential.map(|credential| ("authorization", credential)));
    Ok(http::send("POST", &format!("http://{address}{PATH}"), &headers, body.as_bytes())?)
}
