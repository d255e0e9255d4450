//! Runs docs/get-started/istio.md step by step: its own commands, in its order, on the running control plane.
//!
//! Owns which lines cannot run here, and the expected result of each step.

use super::gateway::{HOST, Kind, expect, within};
use super::istio_trials::{Mesh, PUSHED_WITHIN};
use super::operations::flows;
use crate::failure::{Failure, Result};
use portcullis_markdown::blocks;
use std::fs;

const PAGE: &str = "docs/get-started/istio.md";
/// The files that the page tells users to copy.
const FILES: [&str; 5] =
    ["base.yaml", "envoyfilter.yaml", "routes.yaml", "sidecar.yaml", "waypoint.yaml"];
/// Lines for programs and pods that do not exist here: images are already pushed, and the admin interface is reachable.
const ELSEWHERE: [&str; 4] = ["cargo ", "crane ", "istioctl ", "kubectl port-forward "];

/// A block of commands of the page, by its beginning, and the check after it.
type Step<'a> = (&'a str, &'a dyn Fn(&str) -> Result<()>);

impl Mesh<'_> {
    /// From an empty gateway to an install, a check and a run of doctor, and back to an empty gateway.
    pub(super) fn follows_the_page(&self) -> Result<()> {
        let followed = self.steps();
        self.ground.cluster.delete(&self.file("sidecar.yaml")?)?;
        for file in ["base.yaml", "routes.yaml", "envoyfilter.yaml"] {
            self.apply(file)?;
        }
        followed.and_then(|()| flows(&self.gateway, "istio-page-again"))
    }

    fn steps(&self) -> Result<()> {
        let page = self.ground.workspace.root.join(PAGE);
        let text = fs::read_to_string(&page).map_err(|error| Failure::new(error.to_string()))?;
        let commands: Vec<String> = blocks(&text)
            .into_iter()
            .filter(|block| block.language == "sh")
            .map(|block| block.text)
            .collect();
        for file in FILES {
            self.ground.cluster.delete(&self.file(file)?)?;
        }
        let label = "istio-page";
        // Without a Gateway there is no listener.
        let gone = |statuses: &[u16]| {
            within(PUSHED_WITHIN, "calls that nobody serves", || {
                let reply = self.gateway.call(Kind::Allowed, label, 1);
                statuses.contains(&reply.status).then_some(())
            })
        };
        let steps: [Step<'_>; 5] = [
            ("kubectl apply -f base.yaml", &|_| flows(&self.gateway, label)),
            ("curl -si", &|said| {
                let judged = said.contains("401") && said.contains("x-portcullis-request-id");
                expect(judged, "401 with x-portcullis-request-id", &said)
            }),
            ("portcullis doctor", &|said| expect(said.contains(" 0 bad"), "no bad line", &said)),
            ("kubectl apply -f sidecar.yaml", &|said| {
                expect(said.contains("portcullis-sidecar-routes"), "three EnvoyFilters", &said)
            }),
            ("kubectl delete -f envoyfilter.yaml", &|_| gone(&[503])),
        ];
        for (begins, check) in steps {
            let said = self.run_block(&commands, begins)?;
            check(&said).map_err(|failure| Failure::new(format!("{begins}: {failure}")))?;
        }
        self.run_block(&commands, "kubectl delete -f routes.yaml")?;
        gone(&[404, 0])
    }

    /// Runs the line that begins like this, adapted to a machine beside the gateway.
    fn run_block(&self, commands: &[String], begins: &str) -> Result<String> {
        let mut lines = commands.iter().flat_map(|block| block.lines());
        let line = lines.find(|line| line.starts_with(begins)).ok_or_else(|| {
            Failure::new(format!("{PAGE} has no command that begins with `{begins}`"))
        })?;
        if ELSEWHERE.iter().any(|program| line.starts_with(program)) {
            return Err(Failure::new(format!("`{line}` is not for this machine")));
        }
        let line = line
            .replace("https://mcp.example.com", &self.gateway.url)
            .replace("curl -si", &format!("curl -si -H 'host: {HOST}'"))
            .replace("http://127.0.0.1:15000", &self.ingress.admin_url());
        let (stack, cluster) = (&self.ground.stack, &self.ground.cluster);
        let kubectl = format!("kubectl() {{ \"{}\" \"$@\"; }}", cluster.program().display());
        let script = format!("{kubectl}\n{line}");
        let kubeconfig = cluster.kubeconfig().to_string_lossy().into_owned();
        let vault = stack.openbao.url();
        let environment = [("KUBECONFIG", kubeconfig.as_str()), ("VAULT_ADDR", vault.as_str())];
        let output =
            stack.operator.shell(&script, &self.ground.dir.join("applied"), &environment)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(said);
        }
        let wrong = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Failure::new(format!("`{line}`: {said}{wrong}")))
    }
}
