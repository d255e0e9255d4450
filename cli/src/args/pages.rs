//! The pages that speak of the command line: the reference is made from the definition, and commands in pages exist.
//!
//! Owns the form of `docs/reference/cli.md` (`UPDATE_GOLDEN=1` writes it), and how a page's commands are read.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Arg, Command, CommandFactory as _};
use portcullis_markdown as markdown;

use super::Cli;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The definition as it is when it is run, with the options that all commands share.
fn definition() -> Command {
    let mut command = Cli::command();
    command.build();
    command
}

/// The whole reference.
fn reference() -> String {
    let command = definition();
    let mut page = String::from(
        "# Command line\n\nThe commands of `portcullis`, made from its definition (a test compares them). \
         [Guides](../README.md) have the steps.\n\nExit status: 0 done, 1 refused or found wanting, 2 wrong usage or nothing \
         found out (an outage, a file that cannot be read), 3 done in part (some of several keys).\n\nA command that \
         changes something exits with 1 in an outage.\n\n## Options of all commands\n\n",
    );
    let global: Vec<_> = command.get_arguments().filter(|arg| arg.is_global_set()).collect();
    table(&mut page, &global);
    write_commands(&mut page, &command, "portcullis");
    page
}

fn write_commands(page: &mut String, command: &Command, path: &str) {
    for sub in command.get_subcommands().filter(|it| it.get_name() != "help") {
        let path = format!("{path} {}", sub.get_name());
        let about = sub.get_long_about().or(sub.get_about()).map(ToString::to_string);
        if sub.has_subcommands() {
            let _ = write!(page, "\n## {path}\n\n{}\n", sentence(&about.unwrap_or_default()));
            write_commands(page, sub, &path);
            continue;
        }
        let level = if path.split(' ').count() == 2 { "##" } else { "###" };
        let _ = write!(page, "\n{level} {path}\n\n{}\n", sentence(&about.unwrap_or_default()));
        let own = |arg: &&Arg| !arg.is_global_set() && arg.get_id() != "help" && !arg.is_hide_set();
        let arguments: Vec<_> = sub.get_arguments().filter(own).collect();
        if !arguments.is_empty() {
            page.push('\n');
            table(page, &arguments);
        }
    }
}

fn sentence(text: &str) -> String {
    let text = text.trim();
    let end = if text.ends_with('.') { "" } else { "." };
    format!("{text}{end}")
}

fn table(page: &mut String, arguments: &[&Arg]) {
    page.push_str("| argument | meaning |\n|---|---|\n");
    for arg in arguments {
        let names = arg.get_value_names().unwrap_or_default();
        let value = names.first().map(ToString::to_string).unwrap_or_default();
        let shown = match (arg.get_long(), arg.get_action().takes_values()) {
            (Some(long), true) if arg.is_require_equals_set() => format!("--{long}[={value}]"),
            (Some(long), true) => format!("--{long} {value}"),
            (Some(long), false) => format!("--{long}"),
            (None, _) => value,
        };
        let mut meaning = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let possible: Vec<_> =
            arg.get_possible_values().iter().map(|it| it.get_name().to_owned()).collect();
        if arg.get_action().takes_values() && !possible.is_empty() {
            let _ = write!(meaning, ". One of `{}`", possible.join("`, `"));
        }
        let default = arg.get_default_values().first().map(|it| it.to_string_lossy().into_owned());
        if let (true, Some(default)) = (arg.get_action().takes_values(), default) {
            let _ = write!(meaning, ". Default: `{default}`");
        }
        if let Some(variable) = arg.get_env() {
            let _ = write!(meaning, ". Environment: `{}`", variable.to_string_lossy());
        }
        if arg.is_required_set() {
            meaning.push_str(". Required");
        }
        let meaning = meaning.replace('\n', " ").replace('|', "\\|").replace("..", ".");
        let _ = writeln!(page, "| `{}` | {} |", shown.replace('|', "\\|"), meaning.trim());
    }
}

#[test]
fn the_reference_is_that_of_the_definition() {
    let file = root().join("docs/reference/cli.md");
    let page = reference();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == page, "docs/reference/cli.md differs: UPDATE_GOLDEN=1 writes it");
}

// Finding of a fresh reader: `policy push --reason` did not look required. clap shows no condition of it anywhere.
#[test]
fn what_is_required_without_another_option_says_so() {
    fn each(command: &Command, seen: &mut Vec<String>) {
        command.get_subcommands().for_each(|sub| each(sub, seen));
        for arg in command.get_arguments() {
            // Only its debug output has the condition.
            if !format!("{arg:?}").contains("r_unless: []") {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Required without --"), "{}: {help}", arg.get_id());
                seen.push(arg.get_id().to_string());
            }
        }
    }
    let mut seen = Vec::new();
    each(&definition(), &mut seen);
    assert!(seen.len() >= 7 && seen.iter().any(|id| id == "reason"), "{seen:?}");
}

/// Commands of a page: lines of fenced blocks, and what stands in single backquotes.
fn commands(text: &str) -> Vec<String> {
    let blocks = markdown::blocks(text).into_iter();
    let blocks: Vec<_> = blocks.map(|block| block.text.replace("\\\n", " ")).collect();
    let spans = markdown::prose(text).flat_map(|(_, line)| markdown::spans(line));
    let lines = blocks.iter().flat_map(|block| block.lines());
    spans.chain(lines).flat_map(calls).collect()
}

/// What of a line of shell calls `portcullis`: between pipes, in substitutions, before comments and redirections.
fn calls(line: &str) -> Vec<String> {
    let mut quote = None;
    let mut parts = vec![String::new()];
    for c in line.chars() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            (None, '|' | '>' | '<' | ';' | '&' | '(' | ')') => {
                parts.push(String::new());
                continue;
            }
            (None, '#') if parts.last().is_some_and(|it| it.ends_with(' ')) => break,
            _ => {}
        }
        if let Some(last) = parts.last_mut() {
            // What is quoted is one word, and no option.
            last.push(if quote.is_some() && c == ' ' { '_' } else { c });
        }
    }
    let from_name = |part: &String| {
        let words: Vec<_> = part.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "portcullis")?;
        let assignments = words.get(..at)?.iter().all(|word| word.contains('='));
        let rest: Vec<_> = words.iter().skip(at).skip(1).copied().collect();
        (assignments && !rest.is_empty()).then(|| rest.join(" "))
    };
    parts.iter().filter_map(from_name).collect()
}

/// What is wrong with a call: a verb or an option that does not exist.
fn fault(definition: &Command, call: &str) -> Option<String> {
    let mut command = definition;
    let mut words = call.split_whitespace().peekable();
    while command.has_subcommands() {
        let word = words.peek()?;
        if word.starts_with("--") || word.chars().all(|c| c.is_ascii_uppercase()) {
            break;
        }
        match command.find_subcommand(word) {
            Some(sub) => command = sub,
            None => return Some(format!("no command `{word}` in `portcullis {call}`")),
        }
        words.next();
    }
    let has = |name: &str| {
        let own = command.get_arguments().any(|arg| arg.get_long() == Some(name));
        own || ["help", "version"].contains(&name)
            || definition.get_arguments().any(|arg| arg.get_long() == Some(name))
    };
    words
        .filter_map(|word| word.trim_matches(['[', ']', ',']).strip_prefix("--"))
        .map(|word| word.split('=').next().unwrap_or(word))
        .find(|name| !has(name))
        .map(|name| format!("no option `--{name}` in `portcullis {call}`"))
}

#[test]
fn commands_in_pages_exist() {
    let mut all = vec![root().join("README.md"), root().join("SECURITY.md")];
    all.extend(markdown::pages(&root().join("docs")).unwrap());
    let (definition, mut seen, mut faults) = (definition(), 0, Vec::new());
    for page in all {
        let text = std::fs::read_to_string(&page).unwrap();
        for call in commands(&text) {
            seen += 1;
            faults.extend(fault(&definition, &call).map(|it| format!("{}: {it}", page.display())));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(seen >= 100, "only {seen} commands were found");
}

#[test]
fn a_command_that_does_not_exist_is_found() {
    let text = "Run `portcullis key burn ID`.\n```sh\nA=b portcullis audit verify --admin \\\n  --exhaustive | jq\n\
                x=$(portcullis key list --org acme) # portcullis nonsense\nportcullis COMMAND --help\n```\n";
    let faults: Vec<_> =
        commands(text).iter().filter_map(|call| fault(&definition(), call)).collect();
    assert_eq!(commands(text).len(), 4);
    assert_eq!(
        faults,
        [
            "no command `burn` in `portcullis key burn ID`",
            "no option `--exhaustive` in `portcullis audit verify --admin --exhaustive`"
        ]
    );
}
