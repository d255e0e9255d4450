//! The components of a program: a bill of materials in CycloneDX, from Cargo.lock and Cargo's resolution for the target.
//!
//! Owns its form. It has no time and no serial number, so that it is the same each time.

use crate::build::cargo_command;
use crate::failure::{Failure, Result};
use portcullis_stack::{Workspace, process};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// The bill of materials of `package` for a platform; the program has this SHA-256.
pub(super) fn of(
    workspace: &Workspace,
    (package, target): (&str, &str),
    sum: &str,
) -> Result<Value> {
    let arguments = ["metadata", "--format-version", "1", "--filter-platform", target];
    let output = process::output("cargo metadata", cargo_command(workspace, &arguments))?;
    let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|error| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Failure::new(format!("cargo metadata: {error} {said}"))
    })?;
    let lock = fs::read_to_string(workspace.root.join("Cargo.lock"))
        .map_err(|error| Failure::new(format!("Cargo.lock: {error}")))?;
    list(&metadata, &lock, package, sum)
}

fn list(metadata: &Value, lock: &str, package: &str, sum: &str) -> Result<Value> {
    let packages: BTreeMap<&str, &Value> =
        items(metadata, "/packages").map(|it| (text(it, "/id"), it)).collect();
    let nodes: BTreeMap<&str, &Value> =
        items(metadata, "/resolve/nodes").map(|it| (text(it, "/id"), it)).collect();
    let root = packages.iter().find(|(_, it)| text(it, "/name") == package).map(|(id, _)| *id);
    let root = root.ok_or_else(|| Failure::new(format!("Cargo knows no package {package}")))?;
    let sums = checksums(lock);
    let (mut seen, mut waiting) = (BTreeSet::from([root]), vec![root]);
    let mut dependencies = Vec::new();
    while let Some(id) = waiting.pop() {
        let needs = nodes.get(id).into_iter().flat_map(|it| linked(it));
        let needs: BTreeSet<&str> =
            needs.filter(|id| packages.get(id).is_some_and(|it| !runs_in_compiler(it))).collect();
        let named = |id: &&str| packages.get(id).map(|it| reference(it));
        let on: Vec<String> = needs.iter().filter_map(named).collect();
        dependencies.push((named(&id).unwrap_or_default(), on));
        waiting.extend(needs.into_iter().filter(|id| seen.insert(id)));
    }
    dependencies.sort();
    seen.remove(root);
    let mut components: Vec<Value> =
        seen.iter().filter_map(|id| Some(component(packages.get(id)?, &sums))).collect();
    components.sort_by_key(|it| text(it, "/bom-ref").to_owned());
    let dependencies: Vec<Value> =
        dependencies.into_iter().map(|(of, on)| json!({"ref": of, "dependsOn": on})).collect();
    let about = packages.get(root).copied().unwrap_or(&Value::Null);
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {
            "type": "application",
            "bom-ref": reference(about),
            "name": package,
            "version": text(about, "/version"),
            "hashes": [{"alg": "SHA-256", "content": sum}],
        }},
        "components": components,
        "dependencies": dependencies,
    }))
}

/// The linked dependencies: no build dependencies, no dev dependencies.
fn linked(node: &Value) -> impl Iterator<Item = &str> {
    items(node, "/deps").filter_map(|dependency| {
        let normal = items(dependency, "/dep_kinds").any(|it| it.get("kind") == Some(&Value::Null));
        normal.then(|| text(dependency, "/pkg"))
    })
}

/// Whether it is a macro: the program contains neither a macro nor its dependencies.
fn runs_in_compiler(package: &Value) -> bool {
    let kinds = items(package, "/targets").flat_map(|it| items(it, "/kind"));
    kinds.into_iter().any(|kind| kind == "proc-macro")
}

fn component(package: &Value, sums: &BTreeMap<(String, String), String>) -> Value {
    let (name, version) = (text(package, "/name"), text(package, "/version"));
    let mut component = Map::new();
    component.insert("type".into(), "library".into());
    component.insert("bom-ref".into(), reference(package).into());
    component.insert("name".into(), name.into());
    component.insert("version".into(), version.into());
    let license = text(package, "/license").replace('/', " OR ");
    if !license.is_empty() {
        component.insert("licenses".into(), json!([{"expression": license}]));
    }
    // Our own packages have no checksum: they are in the repository.
    if let Some(sum) = sums.get(&(name.to_owned(), version.to_owned())) {
        component.insert("purl".into(), reference(package).into());
        component.insert("hashes".into(), json!([{"alg": "SHA-256", "content": sum}]));
    }
    Value::Object(component)
}

fn reference(package: &Value) -> String {
    format!("pkg:cargo/{}@{}", text(package, "/name"), text(package, "/version"))
}

/// The checksums in Cargo.lock, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let blocks = lock.split("[[package]]").skip(1);
    blocks
        .filter_map(|block| {
            let field = |name: &str| {
                let start = format!("{name} = \"");
                let line = block.lines().find_map(|line| line.strip_prefix(start.as_str()))?;
                Some(line.trim_end_matches('"').to_owned())
            };
            Some(((field("name")?, field("version")?), field("checksum")?))
        })
        .collect()
}

fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_listed_and_what_only_builds_is_not() {
        let kind = |kind: Value| json!([{"kind": kind, "target": null}]);
        let metadata = json!({
            "packages": [
                {"id": "f", "name": "filter", "version": "1", "license": "Apache-2.0"},
                {"id": "a", "name": "a", "version": "2", "license": "MIT/Apache-2.0"},
                {"id": "b", "name": "b", "version": "3"},
                {"id": "m", "name": "m", "version": "4", "targets": [{"kind": ["proc-macro"]}]},
            ],
            "resolve": {"nodes": [
                {"id": "f", "deps": [
                    {"pkg": "a", "dep_kinds": kind(Value::Null)},
                    {"pkg": "b", "dep_kinds": kind("build".into())},
                    {"pkg": "m", "dep_kinds": kind(Value::Null)},
                ]},
                {"id": "a", "deps": []},
            ]},
        });
        let lock = "[[package]]\nname = \"a\"\nversion = \"2\"\nchecksum = \"cafe\"\n";
        let list = list(&metadata, lock, "filter", "beef").unwrap();
        let [a] = list["components"].as_array().unwrap().as_slice() else { panic!("{list}") };
        assert_eq!(a["purl"], "pkg:cargo/a@2");
        assert_eq!(a["hashes"][0]["content"], "cafe");
        assert_eq!(a["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(list["metadata"]["component"]["hashes"][0]["content"], "beef");
        let on = json!({"ref": "pkg:cargo/filter@1", "dependsOn": ["pkg:cargo/a@2"]});
        assert!(list["dependencies"].as_array().unwrap().contains(&on), "{list}");
    }
}
