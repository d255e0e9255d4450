//! The trials of the filter in front of a server's port: in its sidecar, and on a waypoint.
//!
//! Owns the order of a shipped file's parts and the trials. The modules of the two own how callers reach them; another
//! one owns the operations.

use super::doctor::Doctor;
use super::gateway::{Gateway, HOST, Kind, within};
use super::here::Here;
use super::operations::flows;
use super::{Ground, upgrades};
use crate::failure::{Failure, Result};
use portcullis_stack::http;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const PUSHED_WITHIN: Duration = Duration::from_secs(90);
/// The address that a client claims to have.
const CLAIMED: &str = "203.0.113.7";

/// The filter in front of a server's port.
pub(super) struct Inbound<'a> {
    pub(super) ground: &'a Ground<'a>,
    /// The name in rows and labels.
    pub(super) name: &'static str,
    /// Its calls come from a workload without an identity: they need a key.
    pub(super) gateway: Gateway,
    /// The URL of Envoy's admin interface.
    pub(super) admin: String,
    pub(super) parts: Parts,
    pub(super) scope: Scope,
}

/// What belongs to a proxy, as others name it in their resources.
pub(super) struct Scope {
    /// Selects the proxy in an EnvoyFilter.
    pub(super) filters: String,
    /// Selects the proxy in an AuthorizationPolicy.
    pub(super) policies: String,
    /// The listener in a match.
    pub(super) listener: String,
    /// Istio's name of the routes to the server, and of its cluster.
    pub(super) routes: String,
}

/// The EnvoyFilters of a shipped file, each as a file of its own.
pub(super) struct Parts {
    /// The whole file.
    pub(super) all: PathBuf,
    pub(super) base: PathBuf,
    routes: PathBuf,
    pub(super) filter: PathBuf,
}

impl Parts {
    /// The parts of the file `name` in `envoy/istio`.
    pub(super) fn of(ground: &Ground<'_>, here: &Here, name: &str) -> Result<Self> {
        let shipped = ground.workspace.root.join("envoy/istio").join(name);
        let all = here.file(&shipped, name)?;
        let text = fs::read_to_string(&all).map_err(|error| Failure::new(error.to_string()))?;
        let mut documents = text.split("\n---\n");
        let mut part = |of: &str| {
            let document = documents.next().unwrap_or_default();
            let file = ground.dir.join(format!("{of}-{name}"));
            fs::write(&file, document).map_err(|error| Failure::new(error.to_string()))?;
            Ok::<_, Failure>(file)
        };
        let (base, routes, filter) = (part("base")?, part("routes")?, part("filter")?);
        Ok(Self { all, base, routes, filter })
    }
}

impl Inbound<'_> {
    /// Checks that no call passes without the filter, that the policy applies with it, and that no call passes after
    /// its removal.
    pub(super) fn judges(&self) -> Result<()> {
        let (cluster, gateway) = (&self.ground.cluster, &self.gateway);
        cluster.apply(&self.parts.routes)?;
        self.is_closed("before")?;
        cluster.apply(&self.parts.all)?;
        flows(gateway, &self.label("install"))?;
        self.judges_each_kind("core")?;
        let large = gateway.large(&self.label("large"));
        let more = [("connection", "upgrade"), ("upgrade", "websocket")];
        let upgrade = gateway.send(HOST, Kind::Allowed, &self.label("upgrade"), ("", &more));
        if large.status != 200 || !large.judged || !(400..=503).contains(&upgrade.status) {
            return Err(Failure::new(format!("900 KB: {large:?}; an upgrade: {upgrade:?}")));
        }
        upgrades::are_refused(&|page| Ok(http::get(&format!("{}/{page}", self.admin))?))?;
        self.by_its_own_path()?;
        self.writes_the_true_address()
    }

    /// Installs the file without its guards: an allowed call is answered.
    pub(super) fn answers(&self) -> Result<()> {
        self.ground.cluster.apply(&self.parts.all)?;
        flows(&self.gateway, &self.label("install"))
    }

    /// Checks one call of each kind: what runs, and its entry.
    pub(super) fn judges_each_kind(&self, when: &str) -> Result<()> {
        let (gateway, label) = (&self.gateway, self.label(when));
        for (kind, executed) in [(Kind::Allowed, 1), (Kind::Danger, 0), (Kind::NoKey, 0)] {
            let reply = gateway.call(kind, &label, 0);
            if !reply.judged || reply.result != (executed == 1) {
                return Err(Failure::new(format!("{}: {reply:?}", kind.name())));
            }
            gateway.traces(&label, kind, executed, 1)?;
        }
        Ok(())
    }

    /// Checks the server's own path, which would bypass the connector's path.
    fn by_its_own_path(&self) -> Result<()> {
        let label = self.label("own-path");
        let body = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":\"{label}-allowed-0\",\"method\":\"tools/list\"}}"
        );
        let bearer = format!("Bearer {}", self.gateway.key);
        let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
        for path in ["/mcp", "/", "/demo/mcp/", "/DEMO/mcp"] {
            let url = format!("{}{path}", self.gateway.url);
            let status = http::send("POST", &url, &headers, body.as_bytes())?.status;
            if !(400..=503).contains(&status) {
                return Err(Failure::new(format!("{path}: {status}")));
            }
        }
        match self.gateway.reached(&label, Kind::Allowed) {
            0 => Ok(()),
            reached => Err(Failure::new(format!("{reached} calls by other paths at the server"))),
        }
    }

    /// Finding 11.12: on sidecars and waypoints a client wrote its own address into the audit log.
    fn writes_the_true_address(&self) -> Result<()> {
        let label = self.label("address");
        let more = [("x-forwarded-for", CLAIMED), ("x-envoy-external-address", CLAIMED)];
        self.gateway.call_saying(HOST, Kind::Allowed, (&label, 0), &more);
        self.gateway.traces(&label, Kind::Allowed, 1, 1)?;
        let entries = self.gateway.entries_with(&label, Kind::Allowed);
        let address = entries.first().and_then(|entry| entry.get("client_address"));
        match address.and_then(|address| address.as_str()) {
            Some(address) if !address.contains(CLAIMED) => Ok(()),
            found => Err(Failure::new(format!("client_address is {found:?}"))),
        }
    }

    /// Finding 11.8.
    pub(super) fn doctor_is_content(&self) -> Result<()> {
        Doctor::of(self.ground, self.admin.clone()).is_content()
    }

    pub(super) fn without_the_filter(&self) -> Result<()> {
        self.ground.cluster.delete(&self.parts.filter)?;
        self.is_closed("removed")?;
        self.ground.cluster.apply(&self.parts.filter)?;
        flows(&self.gateway, &self.label("again"))
    }

    /// Checks that no call of any kind reaches the server.
    pub(super) fn is_closed(&self, when: &str) -> Result<()> {
        let label = self.label(when);
        let mut last = String::new();
        within(PUSHED_WITHIN, "503 for calls that nothing has judged", || {
            let replies = Kind::ALL.map(|kind| self.gateway.call(kind, &label, 0));
            last = format!("{replies:?}");
            replies.iter().all(|reply| reply.status == 503 && !reply.judged).then_some(())
        })
        .map_err(|failure| Failure::new(format!("{failure}: {last}")))?;
        let count = || Kind::ALL.map(|kind| self.gateway.reached(&label, kind));
        let before = count();
        let replies = Kind::ALL.map(|kind| self.gateway.call(kind, &label, 1));
        let after = count();
        // No danger or nokey call reached the server, whatever its status was.
        if before == after && after[1..] == [0, 0] && replies.iter().all(|it| it.status == 503) {
            return Ok(());
        }
        Err(Failure::new(format!("{when}: {before:?}, then {after:?} at the server, {replies:?}")))
    }

    pub(super) fn label(&self, of: &str) -> String {
        format!("{}-{of}", self.name.rsplit(' ').next().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    fn shipped(name: &str) -> String {
        let file = format!("{}/../envoy/istio/{name}", env!("CARGO_MANIFEST_DIR"));
        fs::read_to_string(file).expect("a shipped file")
    }

    fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
        let (_, rest) = text.split_once(from).expect(from);
        rest.split(to).next().expect("a part")
    }

    // The filter calls the same services everywhere: a change of base.yaml belongs into these files, too.
    #[test]
    fn sidecars_and_waypoints_have_what_the_filter_of_a_gateway_has() {
        let gateway = shipped("base.yaml").replace("context: GATEWAY", "context: SIDECAR_INBOUND");
        for name in ["sidecar.yaml", "waypoint.yaml"] {
            let text = shipped(name);
            assert!(
                !text.contains("context: GATEWAY\n") && !text.contains("context: GATEWAY}"),
                "{name}"
            );
            for (from, to) in [
                ("# --- clusters", "# --- listener"),
                ("          normalize_path", "          # No address is internal"),
                ("          - name: portcullis_audit", "# --- the framing filter"),
                ("# --- the framing filter of the Redis cluster", "\n---\n"),
            ] {
                let wanted = between(&gateway, from, to).trim_end();
                assert_eq!(between(&text, from, to).trim_end(), wanted, "{name}: {from}");
            }
        }
    }
}
