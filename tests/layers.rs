//! Who may import whom, and how long a file may be.
//!
//! Every module has a line in [`RULES`]; the longest prefix of its path decides. A module without one
//! fails, so that a new one gets its place on purpose. Tests inside a module may import what they like.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Values that every stage hands over; each imports only those before it.
const BASE: [&str; 5] = [
    "pipeline::position",
    "pipeline::checkpoint",
    "pipeline::change",
    "pipeline::mutation",
    "pipeline::progress",
];

/// What all may import: names, positions and codes of PostgreSQL, and the table's description.
const PLAIN: [&str; 4] = ["table", "pg::ident", "pg::lsn", "pg::sqlstate"];

/// A module and what it may import beside itself. `base` and `plain` stand for the lists above.
const RULES: &[(&str, &[&str])] = &[
    // Below both planes.
    ("clock", &[]),
    ("failpoint", &[]),
    ("table", &["pg::ident"]),
    ("config", &["pg::ident"]),
    ("metric", &["pipeline::progress"]),
    ("pg", &["table", "config", "clock"]),
    ("pg::ident", &[]),
    ("pg::lsn", &[]),
    ("pg::sqlstate", &[]),
    ("state", &["pg", "plain", "pipeline::position", "pipeline::checkpoint"]),
    // The data plane: stages see the base and never each other; those that write or read also what
    // they write to. The sink takes a batch, which is its input. Only `run` joins them.
    ("pipeline::position", &["plain"]),
    ("pipeline::checkpoint", &["plain", "pipeline::position"]),
    ("pipeline::change", &["plain", "pipeline::position", "pipeline::checkpoint"]),
    (
        "pipeline::mutation",
        &["plain", "pipeline::position", "pipeline::checkpoint", "pipeline::change"],
    ),
    ("pipeline::progress", &["base", "plain"]),
    (
        "pipeline::source",
        &["base", "plain", "pg", "state", "config", "clock", "metric", "failpoint"],
    ),
    ("pipeline::envelope", &["base", "plain"]),
    ("pipeline::transform", &["base", "plain", "config"]),
    ("pipeline::batch", &["base", "plain", "config"]),
    (
        "pipeline::sink",
        &[
            "base",
            "plain",
            "pipeline::batch",
            "pg",
            "state",
            "config",
            "clock",
            "metric",
            "failpoint",
        ],
    ),
    ("pipeline::sink::statement", &["plain"]),
    (
        "pipeline::run",
        &["pipeline", "plain", "pg", "state", "config", "clock", "metric", "failpoint"],
    ),
    // The control plane: knows how far the data is, not how it got there.
    (
        "migration",
        &[
            "plain",
            "pg",
            "state",
            "config",
            "clock",
            "pipeline::position",
            "pipeline::progress",
            "pipeline::transform",
        ],
    ),
    ("ops", &["base", "plain", "config", "clock", "metric"]),
    ("cli", &["table", "config", "clock", "metric", "pg", "state", "pipeline", "migration", "ops"]),
    // What is to be proven must not prove itself.
    ("demo", &["clock"]),
    // Declares what there is.
    ("pipeline", &["pipeline"]),
];

/// Modules that decide and never act: same input, same answer, and no server needed to test them.
const PURE: &[&str] = &[
    "table",
    "pipeline::position",
    "pipeline::checkpoint",
    "pipeline::change",
    "pipeline::mutation",
    "pipeline::progress",
    "pipeline::batch",
    "pipeline::envelope",
    "pipeline::transform",
    "pipeline::sink::statement",
    "pipeline::sink::visibility",
    "migration::gate::catch_up",
];

/// What acts: input and output, clocks, metrics.
const ACTS: &[&str] = &[
    "tokio",
    "rdkafka",
    "tokio_postgres",
    "deadpool_postgres",
    "axum",
    "ureq",
    "metrics",
    "crate::clock",
    "crate::metric",
];

#[test]
fn modules_import_only_what_the_design_allows() {
    let mut wrong = BTreeSet::new();
    for (module, text) in modules() {
        if module == "lib" || module == "main" {
            continue;
        }
        let Some((_, allowed)) = rule(&module) else {
            wrong.insert(format!("{module} has no rule: give it one"));
            continue;
        };
        for import in imports(&module, &text) {
            let fits = is_within(&import, &module)
                || siblings(&module, &import)
                || allowed.iter().flat_map(|name| expand(name)).any(|one| is_within(&import, one));
            if !fits {
                wrong.insert(format!("{module} imports {import}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_decides_does_not_act() {
    let mut wrong = Vec::new();
    let modules = modules();
    for pure in PURE {
        assert!(modules.keys().any(|module| is_within(module, pure)), "there is no module {pure}");
    }
    for (module, text) in &modules {
        if PURE.iter().any(|pure| is_within(module, pure)) {
            let acts = ACTS.iter().filter(|name| mentions(text, name));
            wrong.extend(acts.map(|name| format!("{module} uses {name}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_file_is_longer_than_600_lines() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["src", "tests", "benches", "fuzz", "loadtest"];
    let long: Vec<_> = folders
        .iter()
        .flat_map(|folder| files(&root.join(folder)))
        .map(|file| (std::fs::read_to_string(&file).expect("a source file").lines().count(), file))
        .filter(|(lines, _)| *lines > 600)
        .collect();
    assert!(long.is_empty(), "a noun hides in there: {long:#?}");
}

#[test]
fn use_trees_are_read_to_their_leaves() {
    let text = "use crate::pg::{ident::Ident, lsn};\nuse super::{ClaimRequest, run::{a, b}};\nfn f() { crate::clock::x() }";
    let found: Vec<_> = imports("pipeline::sink::params", text).into_iter().collect();
    assert_eq!(
        found,
        [
            "clock::x",
            "pg::ident::Ident",
            "pg::lsn",
            "pipeline::sink::ClaimRequest",
            "pipeline::sink::run::a",
            "pipeline::sink::run::b"
        ]
    );
}

/// Module paths and their texts, without comments and tests.
fn modules() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut texts = BTreeMap::new();
    let mut only_tests = BTreeSet::new();
    for file in files(&root) {
        let text = std::fs::read_to_string(&file).expect("a source file");
        let text = without_comments(&text);
        only_tests.extend(test_modules(&text));
        let path = file.strip_prefix(&root).expect("found below it").with_extension("");
        let mut parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
        parts.pop_if(|last| last == "mod");
        texts.insert(parts.join("::"), without_tests(&text).to_owned());
    }
    texts.retain(|module, _| {
        let name = module.rsplit("::").next().unwrap_or(module);
        !only_tests.contains(name)
    });
    texts
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn without_comments(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Tests come last.
fn without_tests(text: &str) -> &str {
    let mut from = 0;
    while let Some(found) = text[from..].find("#[cfg(test)]") {
        let at = from + found;
        let next = text[at..].lines().nth(1).unwrap_or_default();
        if next.contains("mod ") && next.ends_with('{') {
            return &text[..at];
        }
        from = at + 1;
    }
    text
}

/// Files that are declared for tests alone.
fn test_modules(text: &str) -> Vec<String> {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let mut found = Vec::new();
    for (number, _) in lines.iter().enumerate().filter(|(_, line)| **line == "#[cfg(test)]") {
        let next = &lines[number + 1..lines.len().min(number + 3)];
        for line in next {
            if let Some(path) = line.strip_prefix("#[path = \"") {
                found.extend(path.strip_suffix(".rs\"]").map(String::from));
            } else if let Some(name) = line.strip_suffix(';').and_then(|l| l.rsplit_once("mod ")) {
                found.push(name.1.to_owned());
                break;
            } else {
                break;
            }
        }
    }
    found
}

/// Paths that start with `crate::` or `super::`, from the crate's root.
fn imports(module: &str, text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (start, anchor) in
        ["crate::", "super::"].into_iter().flat_map(|anchor| text.match_indices(anchor))
    {
        // Part of a longer path, or of another word.
        if text[..start]
            .ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$')
        {
            continue;
        }
        let mut parents: Vec<&str> =
            if anchor == "crate::" { Vec::new() } else { module.split("::").collect() };
        let mut rest = &text[start..];
        while let Some(after) = rest.strip_prefix("super::") {
            parents.pop();
            rest = after;
        }
        rest = rest.strip_prefix("crate::").unwrap_or(rest);
        leaves(&parents.join("::"), rest, &mut found);
    }
    found
}

/// Reads one use tree; returns what is behind it.
fn leaves<'a>(prefix: &str, text: &'a str, found: &mut BTreeSet<String>) -> &'a str {
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':' || c == '*'))
        .unwrap_or(text.len());
    let (path, mut rest) = text.split_at(end);
    let join = |name: &str| match (prefix, name) {
        ("", name) => name.to_owned(),
        (prefix, "" | "self") => prefix.to_owned(),
        (prefix, name) => format!("{prefix}::{name}"),
    };
    if let (true, Some(tree)) = (path.is_empty() || path.ends_with("::"), rest.strip_prefix('{')) {
        rest = tree;
        loop {
            rest = leaves(&join(path.trim_end_matches(':')), rest.trim_start(), found).trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
            if rest.is_empty() || rest.starts_with('}') {
                return rest.strip_prefix('}').unwrap_or("");
            }
        }
    }
    found.insert(join(path.trim_end_matches(':')));
    // `as name`
    rest.find([',', '}', ';']).map_or("", |at| &rest[at..])
}

fn rule(module: &str) -> Option<&'static (&'static str, &'static [&'static str])> {
    RULES
        .iter()
        .filter(|(prefix, _)| is_within(module, prefix))
        .filter(|(prefix, _)| *prefix != "pipeline" || module == "pipeline")
        .max_by_key(|(prefix, _)| prefix.len())
}

fn expand(name: &'static str) -> Vec<&'static str> {
    match name {
        "base" => BASE.to_vec(),
        "plain" => PLAIN.to_vec(),
        name => vec![name],
    }
}

/// Whether both are parts of one module that has a rule of its own.
fn siblings(module: &str, import: &str) -> bool {
    rule(module).is_some_and(|(prefix, _)| is_within(import, prefix))
        // The pipeline's own names are those of its base.
        || import.strip_prefix("pipeline::").is_some_and(|name| {
            name.starts_with(char::is_uppercase) && is_within(module, "pipeline")
        })
}

fn is_within(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Whether a path in the text starts with `name`.
fn mentions(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = &text[at + name.len()..];
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':')
            && (after.starts_with("::") || after.starts_with(';'))
    })
}
