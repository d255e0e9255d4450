//! What decides here, and what real readers make of the same text: Node's WHATWG URL parser and JSON, Python's JSON.
//!
//! Texts are made up from a seed, thousands of them, and read in one run of each program. What passes a rule must be,
//! to that reader, what the rule means.

use std::fs;

use portcullis_core::json::{canonical, parse_strict};
use portcullis_core::mcp::{Message, Operation};
use portcullis_core::policy::{Globs, Names, Uris};
use portcullis_stack::Tools;
use portcullis_tests::{Case, World, cases, node};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    cases!["readers":
        ten_thousand_spellings_of_uris_mean_to_node_what_the_rules_say,
        thousands_of_bodies_mean_the_same_to_node_and_python,
    ]
}

const SPELLINGS: usize = 10_000;
const BODIES: usize = 4_000;

/// A small generator, the same on every machine (Knuth's MMIX).
struct Random(u64);

impl Random {
    fn random_below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % bound
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.random_below(all.len())]
    }

    /// `text` with up to `most` of `pieces` put in, or put over what stands there.
    fn mutated(&mut self, text: &str, pieces: &[&str], most: usize) -> String {
        let mut text = text.to_owned();
        for _ in 0..self.random_below(most + 1) {
            let places: Vec<usize> =
                text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            let from = *self.of(&places);
            let to = match self.random_below(4) {
                0 => places.iter().copied().find(|at| *at > from).unwrap_or(from),
                _ => from,
            };
            let piece: &str = self.of::<&str>(pieces);
            text.replace_range(from..to, piece);
        }
        text
    }
}

const URIS: [&str; 14] = [
    "file:///srv/public/plan",
    "file:///srv/secret/plan",
    "file:///srv/public/../secret/plan",
    "file:///srv/public/.%2e/secret/plan",
    "file:/srv/secret/plan",
    "file:srv/secret/plan",
    "file://localhost/srv/secret/plan",
    "file:////srv//secret/plan",
    "FILE:///srv/Secret/plan",
    "note://public/a",
    "note://secret/a",
    "note://public/../secret/a",
    "note://me:pw@secret:80/a?x#y",
    "NOTE://Secret/a",
];
const PIECES: [&str; 44] = [
    "\t",
    "\n",
    "\r",
    " ",
    "\0",
    "\u{a0}",
    ".",
    "..",
    "/",
    "//",
    "/./",
    "/../",
    "\\",
    "..\\",
    "%2e",
    "%2E%2e",
    "%252e",
    "%2f",
    "%5c",
    "%00",
    "%09",
    "%0a",
    "%20",
    "%73",
    "%53",
    "%2573",
    "%",
    "@",
    "u@",
    "u:p@",
    ":",
    ":80",
    "localhost",
    "?",
    "#",
    "|",
    "{id}",
    "\u{e9}",
    "\u{17f}",
    "\u{212a}",
    "\u{ff0e}",
    "\u{ff0f}",
    "S",
    "secret",
];

fn rules(allow: &[&str], deny: &[&str]) -> Uris {
    let globs = |list: &[&str]| {
        let mut globs = Globs::default();
        list.iter().for_each(|glob| globs.insert(glob));
        globs
    };
    Names { allow: globs(allow), deny: globs(deny) }.into()
}

/// What Node says of each text: protocol, host and decoded, normalised path; null where it finds no URL.
fn as_node_reads(world: &World<'_>, texts: &[String], script: &str) -> Vec<Value> {
    let file = world.dir().join("texts.json");
    fs::create_dir_all(world.dir()).expect("a directory of the test");
    fs::write(&file, json!(texts).to_string()).expect("the texts");
    let mut command = node::node(world.workspace()).script(script);
    command.arg(file);
    let Value::Array(said) = node::said(script, command) else { panic!("no list") };
    assert_eq!(said.len(), texts.len());
    said
}

// Finding 4.1: with `allow: file:///srv/public/*` the official TypeScript server read a file of /srv/secret.
// Proves: C3
fn ten_thousand_spellings_of_uris_mean_to_node_what_the_rules_say(world: &World<'_>) {
    let mut random = Random(20_261_128);
    let texts: Vec<String> = (0..SPELLINGS)
        .map(|_| {
            let base = *random.of(&URIS);
            random.mutated(base, &PIECES, 4)
        })
        .collect();
    let allowing = rules(&["file:///srv/public/*", "note://public/*"], &[]);
    let denying = rules(&["*"], &["file:///srv/secret/*", "note://secret/*"]);
    let (mut passed, mut denied, mut wrong) = (0, 0, Vec::new());
    for (text, read) in texts.iter().zip(as_node_reads(world, &texts, "read-urls.mjs")) {
        let is = |protocol: &str, folder: &str| {
            read["protocol"] == protocol
                && read["paths"].as_array().is_some_and(|paths| {
                    let inside =
                        |path: &Value| path.as_str().is_some_and(|it| it.starts_with(folder));
                    if folder.contains("public") {
                        paths.iter().all(inside)
                    } else {
                        paths.iter().any(inside)
                    }
                })
        };
        if allowing.opens(text) {
            passed += 1;
            let inside = is("file:", "//srv/public/") || is("note:", "public/");
            if !inside {
                wrong.push(format!("{text:?} is allowed, and Node reads {read}"));
            }
        }
        let inside = is("file:", "//srv/secret/") || is("note:", "secret/");
        if inside {
            denied += 1;
            if denying.opens(text) {
                wrong.push(format!("{text:?} is not denied, and Node reads {read}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} readings, such as {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(9)]
    );
    assert!(passed > 100 && denied > 1_000, "{passed} passed, {denied} denied");
}

const MESSAGES: [&str; 6] = [
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"limit":5,"text":"a b","deep":{"x":[1,2.5,null]}},"_meta":{"progressToken":1}}}"#,
    r#"{"jsonrpc":"2.0","id":"a","method":"resources/read","params":{"uri":"file:///srv/a"}}"#,
    r#"{"jsonrpc":"2.0","id":7,"method":"prompts/get","params":{"name":"p","arguments":{"a":"b"}}}"#,
    r#"{"jsonrpc":"2.0","id":7,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"p"},"argument":{"name":"a","value":"v"}}}"#,
    r#"{"jsonrpc":"2.0","id":7,"method":"subscriptions/listen","params":{"notifications":{"resourceSubscriptions":["a:b"],"taskIds":["t"]}}}"#,
    r#"{"jsonrpc":"2.0","id":7,"method":"tasks/get","params":{"taskId":"t"}}"#,
];
const JSON_PIECES: [&str; 60] = [
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "0",
    "1",
    "9",
    "-",
    "+",
    ".",
    "e5",
    "E-5",
    "null",
    "true",
    "NaN",
    "Infinity",
    "-0",
    "1e400",
    "1e-400",
    "9007199254740993",
    "100000000000000000000001",
    "0.10000000000000000001",
    "01",
    "0x1",
    " ",
    "\t",
    "\n",
    "\r",
    "\u{b}",
    "\u{a0}",
    "\u{feff}",
    "\u{2028}",
    "\0",
    "//",
    "/**/",
    "#",
    "\"name\":\"x\",",
    "\"Name\":\"x\",",
    "\"n\\u0061me\":\"x\",",
    "\"NAME\":\"x\",",
    "\"arguments\":{},",
    "\"method\":\"ping\",",
    "\"METHOD\":\"ping\",",
    "\"Limit\":9,",
    "\"limit\":9,",
    "\"uri\":\"z:z\",",
    "\"params\":null,",
    "\"__proto__\":{\"name\":\"x\"},",
    "\\u0000",
    "\\ud800",
    "\\ud83d\\ude00",
    "\\/",
    "\\x41",
    "'a'",
    "\u{e9}",
    "\u{1f600}",
];

// Proves: B2
fn thousands_of_bodies_mean_the_same_to_node_and_python(world: &World<'_>) {
    let mut random = Random(42);
    let mut texts = Vec::new();
    let mut ours = Vec::new();
    while texts.len() < BODIES {
        let base = *random.of(&MESSAGES);
        let text = random.mutated(base, &JSON_PIECES, 3);
        if let Ok(message) = Message::parse(text.as_bytes()) {
            ours.push(read(&message));
            texts.push(text);
        }
    }
    let node = as_node_reads(world, &texts, "read-messages.mjs");
    let file = world.dir().join("texts.json");
    let mut python = Tools::install(world.workspace()).expect("tools").python_command();
    python.arg(world.workspace().root.join("tests/python/read_messages.py")).arg(file);
    let Value::Array(python) = node::said("Python", python) else { panic!("no list") };
    let distinct: std::collections::BTreeSet<_> = texts.iter().collect();
    assert!(distinct.len() > BODIES / 4, "{} different bodies", distinct.len());
    for (((text, ours), node), python) in texts.iter().zip(ours).zip(node).zip(python) {
        assert_eq!(rounded(&ours), rounded(&node), "Node reads otherwise: {text:?}");
        assert_eq!(rounded(&ours), rounded(&python), "Python reads otherwise: {text:?}");
    }
}

/// With numbers as doubles, which is how JavaScript reads them.
fn rounded(value: &Value) -> String {
    canonical(value)
}

/// What a decision goes by.
fn read(message: &Message) -> Value {
    let objects = match &message.operation {
        Operation::CallTool(call) => json!([call.name, call.arguments]),
        Operation::Prompt(name) => json!([name]),
        Operation::Resource(uri) => json!([uri]),
        Operation::Subscriptions { resources, tasks } => json!([resources, tasks]),
        Operation::Task(id) => json!([id]),
        _ => json!([]),
    };
    let read = json!([message.method, objects]);
    parse_strict(read.to_string().as_bytes()).expect("JSON")
}
