//! Files of a crate that import each other in a circle.
//!
//! Owns what an import is: a path from `crate`, `self`, `super` or a child module, in a `use` or in code, except in
//! tests. A file that names its parent module does not import it: a parent has what its children share.

use super::Finding;
use crate::source::Source;
use std::collections::{BTreeMap, BTreeSet};
use syn::visit::{self, Visit};

/// A module's path from the crate's root.
type Module = Vec<String>;

/// In a larger circle, or in one that leaves its folder, it is hard to find a line.
const MOST_FILES: usize = 3;
/// The crates to check.
const CRATES: [&str; 3] = ["filter/core/src/", "cli/src/", "filter/src/"];

/// Circles that are too large.
pub(super) fn too_large(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for root in CRATES {
        let files: BTreeMap<Module, &Source> = sources
            .iter()
            .filter_map(|source| Some((module(source.path.strip_prefix(root)?)?, source)))
            .collect();
        let circles = circles(&imports(&files));
        for circle in circles.iter().filter(|circle| circle.len() > MOST_FILES) {
            complaints.push(complaint(root, circle, "import each other; let imports run one way"));
        }
    }
    complaints
}

fn complaint(root: &str, circle: &[Module], what: &str) -> String {
    let names: Vec<_> = circle.iter().map(|module| module.join("/")).collect();
    let Finding { line, message } = Finding::new(0, format!("{} {what}", names.join(", ")));
    format!("{root}:{line}: {message}")
}

/// The module of a file; tests are not modules.
fn module(path: &str) -> Option<Module> {
    let mut parts: Module = path.strip_suffix(".rs")?.split('/').map(str::to_owned).collect();
    if parts.iter().any(|part| part == "tests") {
        return None;
    }
    if parts.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        parts.pop();
    }
    Some(parts)
}

fn imports(files: &BTreeMap<Module, &Source>) -> BTreeMap<Module, BTreeSet<Module>> {
    files
        .iter()
        .map(|(module, source)| {
            let mut paths = Paths(Vec::new());
            if let Ok(file) = syn::parse_file(&source.text) {
                paths.visit_file(&file);
            }
            let known = |path: &Module| target(files, module, path);
            (module.clone(), paths.0.iter().filter_map(known).collect())
        })
        .collect()
}

/// The file that a path used in `module` leads to.
fn target(files: &BTreeMap<Module, &Source>, module: &Module, path: &[String]) -> Option<Module> {
    let ups = path.iter().take_while(|part| *part == "super").count();
    let (base, rest): (&[String], &[String]) = match path.first()?.as_str() {
        "crate" => (&[], path.get(1..)?),
        "self" => (module, path.get(1..)?),
        "super" => (module.get(..module.len().checked_sub(ups)?)?, path.get(ups..)?),
        _ => (module, path),
    };
    let full: Module = base.iter().chain(rest).cloned().collect();
    let found = (1..=full.len()).rev().find_map(|end| files.get_key_value(full.get(..end)?))?.0;
    (!module.starts_with(found)).then(|| found.clone())
}

/// Sets of at least two modules in which each one imports each other, directly or not.
fn circles(imports: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<Vec<Module>> {
    let reached: BTreeMap<&Module, BTreeSet<&Module>> =
        imports.keys().map(|from| (from, reachable(imports, from))).collect();
    let reaches = |a: &Module, b: &Module| reached.get(a).is_some_and(|all| all.contains(b));
    let together = |a: &Module, b: &Module| reaches(a, b) && reaches(b, a);
    let mut found: Vec<Vec<Module>> = Vec::new();
    for module in imports.keys() {
        match found.iter_mut().find(|it| it.first().is_some_and(|one| together(one, module))) {
            Some(circle) => circle.push(module.clone()),
            None => found.push(vec![module.clone()]),
        }
    }
    found.retain(|circle| circle.len() > 1);
    found
}

fn reachable<'a>(
    imports: &'a BTreeMap<Module, BTreeSet<Module>>,
    from: &'a Module,
) -> BTreeSet<&'a Module> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(module) = open.pop() {
        for next in imports.get(module).into_iter().flatten() {
            if seen.insert(next) {
                open.push(next);
            }
        }
    }
    seen
}

/// The paths in a file, without tests.
struct Paths(Vec<Module>);

impl Paths {
    fn walk(&mut self, tree: &syn::UseTree, prefix: &[String]) {
        let with = |name: &syn::Ident| {
            let name = name.to_string();
            prefix.iter().cloned().chain([name]).collect::<Module>()
        };
        match tree {
            syn::UseTree::Path(path) => self.walk(&path.tree, &with(&path.ident)),
            syn::UseTree::Name(name) => self.0.push(with(&name.ident)),
            syn::UseTree::Rename(rename) => self.0.push(with(&rename.ident)),
            syn::UseTree::Glob(_) => self.0.push(prefix.to_vec()),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|item| self.walk(item, prefix));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let is_test = |it: &syn::Attribute| {
            it.path().is_ident("cfg")
                && it.parse_args::<syn::Ident>().is_ok_and(|what| what == "test")
        };
        if !item.attrs.iter().any(is_test) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if item.leading_colon.is_none() {
            self.walk(&item.tree, &[]);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() && path.segments.len() > 1 {
            self.0.push(path.segments.iter().map(|it| it.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let source = |(path, text): &(&str, &str)| Source {
            path: format!("cli/src/{path}"),
            text: (*text).to_owned(),
        };
        too_large(&files.iter().map(source).collect::<Vec<_>>())
    }

    #[test]
    fn a_circle_of_four_files_is_named() {
        let circle = [
            ("main.rs", "mod a; mod b; mod c; mod d;"),
            ("a.rs", "use crate::b::{self, Word};"),
            ("b.rs", "fn b() { crate::c::c() }"),
            ("c/mod.rs", "mod inner; use super::d;"),
            ("d.rs", "impl D { fn d(_: &crate::a::A) {} }"),
        ];
        let complaints = found(&circle);
        assert_eq!(
            complaints,
            ["cli/src/:0: a, b, c, d import each other; let imports run one way"]
        );
    }

    #[test]
    fn parents_tests_and_small_circles_are_none() {
        let fine = [
            ("main.rs", "mod a; mod b; mod c; mod d; use a::A;"),
            ("a.rs", "use crate::b; use super::Main;"),
            ("b.rs", "use crate::a;"),
            ("c.rs", "use crate::a; #[cfg(test)] mod tests { use crate::d; }"),
            ("d.rs", "use crate::c;"),
        ];
        assert_eq!(found(&fine), Vec::<String>::new());
    }
}
