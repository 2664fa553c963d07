//! `config/reference.toml`: every key with what it takes and what it is when left out.

use super::entry::spelled;
use super::keys::{self, Key, Presence, Section};

const HEAD: &str = "\
#:schema ./schema.json
# Every key of a config file. Values are the defaults; a key without one is in a comment, or has an
# example. A string may hold ${NAME} or ${NAME:default}, filled in from the environment; ${{x}} is
# the literal text ${x}. Relative paths start at the folder of the config file.
";

/// The columns that a comment may take.
const WIDTH: usize = 100;

/// The text of the reference file: a config file that loads, with every default written out.
pub fn reference() -> String {
    let mut text = HEAD.to_owned();
    for section in keys::SECTIONS {
        write_section(section, &mut text);
    }
    text
}

fn write_section(section: &Section, text: &mut String) {
    let keys: Vec<_> = keys::keys_in(section.path).collect();
    // `[table]` and `[gate]` hold only sections.
    if keys.is_empty() && section.path != "table.*.up" {
        return;
    }
    if section.path == "table.*.up.*" {
        return write_rule(section, &keys, text);
    }
    // A section that may be left out stays out if it would ask for something.
    let is_asking = keys.iter().any(|key| matches!(key.presence, Presence::Required { .. }));
    let is_out = !section.required && (is_asking || !keys.iter().any(|key| is_live(key)));
    let off = if is_out { "# " } else { "" };
    if !section.path.is_empty() {
        text.push('\n');
        comment(section.doc, text);
        text.push_str(&format!("{off}[{}]\n", path(section.path)));
    }
    for key in keys {
        text.push('\n');
        comment(key.doc, text);
        comment(&facts(key), text);
        let off = if is_out || !is_live(key) { "# " } else { "" };
        text.push_str(&format!("{off}{} = {}\n", name(key.path), key.example()));
    }
}

/// The rule of a column on one line, as people write it.
fn write_rule(section: &Section, keys: &[&Key], text: &mut String) {
    text.push('\n');
    for key in keys {
        comment(&format!("{}: {} {}", key.name(), key.doc, facts(key)), text);
    }
    let pairs: Vec<_> =
        keys.iter().map(|key| format!("{} = {}", key.name(), key.example())).collect();
    text.push_str(&format!("{} = {{ {} }}\n", name(section.path), pairs.join(", ")));
}

/// Stands in the file as it is; others are in comments.
fn is_live(key: &Key) -> bool {
    match key.presence {
        Presence::Default(_) | Presence::Derived { .. } => true,
        Presence::Required { .. } | Presence::Optional { .. } | Presence::Either { .. } => {
            key.is_asked_for()
        }
    }
}

/// What it takes, and what it is when left out.
fn facts(key: &Key) -> String {
    let absent = match key.presence {
        Presence::Required { .. } => "required".to_owned(),
        Presence::Optional { .. } => "no default".to_owned(),
        Presence::Either { other, .. } => format!("required, or {other}"),
        Presence::Default(default) => format!("default {default}"),
        Presence::Derived { rule, .. } => format!("default: {rule}"),
    };
    format!("Takes {}; {absent}.", key.kind.expected())
}

/// A path with names where the file chooses them.
fn path(described: &str) -> String {
    let mut above = String::new();
    let mut names = Vec::new();
    for segment in described.split('.') {
        if !above.is_empty() {
            above.push('.');
        }
        above.push_str(segment);
        names.push(name(&above));
    }
    names.join(".")
}

/// The last segment of a path, as a file could have it.
fn name(described: &str) -> String {
    spelled(match described {
        "table.*" => "public.users",
        "table.*.up.*" => "first_name",
        "source.properties.*" | "source.properties_files.*" => "sasl.password",
        path => path.rsplit('.').next().expect("a split has a last part"),
    })
}

fn comment(sentence: &str, text: &mut String) {
    let mut line = String::from("#");
    for word in sentence.split(' ') {
        if line.len() + 1 + word.len() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}
