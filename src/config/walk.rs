//! From spanned TOML to entries, checked key by key against the description.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::entry::{Entry, Origin, dotted};
use super::error::{Code, Problem};
use super::interpolate::{self, Malformed, Part};
use super::keys::{self, Key, Kind, Presence, Section};
use super::value::{Refusal, Value};
use crate::pg::ident::Ident;

/// What the walk found. Entries are those that were right.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) entries: Vec<Entry>,
    pub(super) visits: Vec<Visit>,
    pub(super) problems: Vec<Problem>,
    /// Paths of the keys and sections that are there, right or wrong.
    present: Vec<Vec<String>>,
}

impl Walked {
    /// Whether the file has a key, right or wrong.
    pub(super) fn has(&self, path: [&str; 2]) -> bool {
        self.present.iter().any(|present| present == &path)
    }
}

/// A section that the file has.
#[derive(Debug, Clone)]
pub(super) struct Visit {
    pub(super) path: Vec<String>,
    pub(super) section: &'static Section,
    /// Of its name; `None` for the file itself.
    pub(super) span: Option<Range<usize>>,
    /// Nothing stands in it.
    empty: bool,
}

/// Reads every key of a file.
pub(super) fn walk(
    source: &str,
    table: &DeTable<'_>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Walked {
    let mut walk = Walk { source, env, found: Walked::default() };
    let top = keys::section("").expect("the list starts with the file itself");
    walk.section(table, Visit { path: Vec::new(), section: top, span: None, empty: false });
    walk.missing();
    walk.found
}

struct Walk<'a> {
    source: &'a str,
    env: &'a dyn Fn(&str) -> Option<String>,
    found: Walked,
}

/// A text with its variables filled in.
struct Filled {
    text: String,
    variables: Vec<String>,
}

impl Walk<'_> {
    fn section(&mut self, table: &DeTable<'_>, visit: Visit) {
        let Visit { path, section, .. } = &visit;
        let mut below = Vec::new();
        for (name, value) in table {
            let mut path = path.clone();
            path.push(name.get_ref().to_string());
            let [named, free] = [name.get_ref().as_ref(), "*"].map(|last| match section.path {
                "" => last.to_owned(),
                above => format!("{above}.{last}"),
            });
            let inner = keys::section(&named).or_else(|| keys::section(&free));
            let key = keys::key(&named).or_else(|| keys::key(&free));
            if let Some(inner) = inner.filter(|inner| inner.path != "table.*" || is_table(&path)) {
                if inner.path == "table.*.up.*" && Ident::new(name.get_ref()).is_err() {
                    self.found.problems.push(
                        Problem::new(Code::Malformed, "a column's name is not an identifier")
                            .at(name.span(), format!("expected {}", Kind::Ident.expected())),
                    );
                    continue;
                }
                self.found.present.push(path.clone());
                let DeValue::Table(table) = value.get_ref() else {
                    let found = type_of(value.get_ref());
                    let title = format!("`{}` is {found}, not a table", dotted(&path));
                    self.found.problems.push(
                        Problem::new(Code::WrongType, title)
                            .at(value.span(), "expected a table of keys")
                            .help(keys_of(&path, inner)),
                    );
                    continue;
                };
                let empty = table.is_empty();
                below.push((table, Visit { path, section: inner, span: Some(name.span()), empty }));
            } else if let Some(key) = key {
                self.found.present.push(path.clone());
                match self.value(key, &path, name.span(), value) {
                    Ok(entry) => self.found.entries.push(entry),
                    Err(problems) => self.found.problems.extend(problems),
                }
            } else {
                self.found.problems.push(unknown(name, path, section));
            }
        }
        self.found.visits.push(visit);
        for (table, visit) in below {
            self.section(table, visit);
        }
    }

    fn value(
        &self,
        key: &'static Key,
        path: &[String],
        name: Range<usize>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Entry, Vec<Problem>> {
        let mut variables = Vec::new();
        let refused = |refusal: Refusal, variables: &[String], span| {
            let title = format!("`{}` {}", dotted(path), refusal.says);
            let label = match variables {
                [] => refusal.label,
                names => format!("filled in from {}: {}", names.join(", "), refusal.label),
            };
            vec![Problem::new(refusal.code, title).at(span, label)]
        };
        let wrong_type = || {
            let found = type_of(value.get_ref());
            let title = format!("`{}` is {found}, not {}", dotted(path), key.kind.noun());
            let problem = Problem::new(Code::WrongType, title)
                .at(value.span(), format!("expected {}", key.kind.expected()));
            let is_split = matches!(value.get_ref(), DeValue::Table(_)) && key.name() == "*";
            vec![match is_split {
                true => problem.help("a name with dots goes in quotes: \"sasl.password\" = …"),
                false => problem,
            }]
        };
        let read = match (key.kind, value.get_ref()) {
            (Kind::Version | Kind::Whole { .. }, DeValue::Integer(number)) => {
                let digits = number.as_str();
                match i128::from_str_radix(digits, number.radix()).map(u64::try_from) {
                    Ok(Ok(number)) => key.kind.within(Value::Whole(number)),
                    Ok(Err(_)) | Err(_) => Err(key.kind.out_of_range()),
                }
            }
            (Kind::Flag, DeValue::Boolean(flag)) => Ok(Value::Flag(*flag)),
            (Kind::Idents, DeValue::Array(items)) => {
                self.idents(key, path, items, &mut variables)?
            }
            (Kind::Idents, _) => return Err(wrong_type()),
            (kind, DeValue::String(text)) => {
                let filled = self.fill(text, value.span())?;
                variables = filled.variables;
                // A quoted number is a slip, unless a variable had to be quoted to be there.
                let bare = matches!(kind, Kind::Version | Kind::Whole { .. } | Kind::Flag);
                if bare && variables.is_empty() && !text.contains("${") {
                    return Err(wrong_type());
                }
                kind.parse(&filled.text).map_err(|mut refusal| {
                    if let (Kind::Word(words), []) = (kind, variables.as_slice())
                        && let Some(near) = nearest(text, words.iter().copied())
                    {
                        refusal.label = format!("did you mean \"{near}\"?");
                    }
                    refusal
                })
            }
            _ => return Err(wrong_type()),
        };
        let value_read = read.map_err(|refusal| refused(refusal, &variables, value.span()))?;
        let line = self.source[..value.span().start].matches('\n').count() + 1;
        let origin = Origin::File { name, span: value.span(), line, variables };
        Ok(Entry { path: path.to_vec(), key, value: value_read, origin })
    }

    fn idents(
        &self,
        key: &'static Key,
        path: &[String],
        items: &[Spanned<DeValue<'_>>],
        variables: &mut Vec<String>,
    ) -> Result<Result<Value, Refusal>, Vec<Problem>> {
        let mut idents = Vec::new();
        let mut problems = Vec::new();
        for item in items {
            let DeValue::String(text) = item.get_ref() else {
                let found = type_of(item.get_ref());
                let title = format!("`{}` holds {found}, not a name", dotted(path));
                problems.push(
                    Problem::new(Code::WrongType, title)
                        .at(item.span(), format!("expected {}", key.kind.expected())),
                );
                continue;
            };
            match self.fill(text, item.span()) {
                Err(more) => problems.extend(more),
                Ok(filled) => {
                    variables.extend(filled.variables);
                    match Kind::Ident.parse(&filled.text).map(|value| value.ident().cloned()) {
                        Ok(Some(ident)) if idents.contains(&ident) => problems.push(
                            Problem::new(
                                Code::Contradiction,
                                format!("`{}` names a column twice", dotted(path)),
                            )
                            .at(item.span(), "here again"),
                        ),
                        Ok(ident) => idents.extend(ident),
                        Err(refusal) => problems.push(
                            Problem::new(
                                refusal.code,
                                format!("`{}` holds a name that {}", dotted(path), refusal.says),
                            )
                            .at(item.span(), refusal.label),
                        ),
                    }
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(if idents.is_empty() {
            Err(Refusal {
                code: Code::OutOfRange,
                says: "is empty".to_owned(),
                label: format!("expected {}", key.kind.expected()),
            })
        } else {
            Ok(Value::Idents(idents))
        })
    }

    /// Fills in the variables of a string; all that are undefined are reported.
    fn fill(&self, text: &str, span: Range<usize>) -> Result<Filled, Vec<Problem>> {
        // An escape in the source moves what follows it: then the whole value is shown.
        let place = |at: &Range<usize>| {
            let raw = &self.source[span.clone()];
            match raw.find(&text[at.clone()]) {
                Some(start) => span.start + start..span.start + start + at.len(),
                None => span.clone(),
            }
        };
        let parts = interpolate::parts(text).map_err(|Malformed { at, why }| {
            vec![
                Problem::new(Code::Variable, "a variable is not written as `${NAME}`")
                    .at(place(&at), why)
                    .help("`${{` and `}}` around a text give it literally, with `${` and `}`"),
            ]
        })?;
        let mut problems = Vec::new();
        let mut variables = Vec::new();
        for part in &parts {
            if let Part::Variable { name, default, at } = part {
                if (self.env)(name).is_some() {
                    variables.push((*name).to_owned());
                } else if default.is_none() {
                    let title = format!("environment variable `{name}` is not set");
                    problems.push(
                        Problem::new(Code::Variable, title)
                            .at(place(at), "and has no default here")
                            .help(format!("set it, or write `${{{name}:default}}`")),
                    );
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let text = interpolate::join(&parts, |name, default| {
            (self.env)(name).unwrap_or_else(|| default.unwrap_or_default().to_owned())
        });
        Ok(Filled { text, variables })
    }

    /// Reports what must be there and is not.
    fn missing(&mut self) {
        let found = &mut self.found;
        for visit in &found.visits {
            for below in keys::sections_in(visit.section.path).filter(|below| below.required) {
                let is_there = match below.name() {
                    // Names that were wrong have been reported as such.
                    "*" => !visit.empty,
                    name => {
                        let mut path = visit.path.clone();
                        path.push(name.to_owned());
                        found.present.contains(&path)
                    }
                };
                if !is_there {
                    found.problems.push(missing_section(below, visit));
                }
            }
            for key in keys::keys_in(visit.section.path) {
                let Presence::Required { example } = key.presence else { continue };
                let mut path = visit.path.clone();
                path.push(key.name().to_owned());
                if !found.present.contains(&path) {
                    let problem =
                        Problem::new(Code::Missing, format!("key `{}` is missing", dotted(&path)))
                            .help(format!("for example: {} = {example}", key.name()));
                    found.problems.push(match &visit.span {
                        Some(span) => problem.at(span.clone(), format!("needs `{}`", key.name())),
                        None => problem,
                    });
                }
            }
        }
    }
}

/// A table's name is `schema.name`.
fn is_table(path: &[String]) -> bool {
    let name = path.last().map_or("", String::as_str);
    name.split_once('.').is_some_and(|(schema, table)| {
        !table.contains('.') && [schema, table].iter().all(|name| Ident::new(name).is_ok())
    })
}

fn unknown(
    name: &Spanned<std::borrow::Cow<'_, str>>,
    path: Vec<String>,
    section: &Section,
) -> Problem {
    let (last, above) = path.split_last().expect("a path has a segment");
    if section.path == "table" {
        return Problem::new(Code::Malformed, "a table in [table] is not named \"schema.name\"")
            .at(name.span(), "not a schema and a table with one dot between, in quotes")
            .help("for example: [table.\"public.users\"]");
    }
    let shown: String = last.escape_debug().take(64).collect();
    let place = if above.is_empty() { String::new() } else { format!(" in [{}]", dotted(above)) };
    let names = keys::names_in(section.path);
    let elsewhere = keys::KEYS.iter().find(|key| key.name() == last && !key.path.contains('*'));
    let label = match (nearest(last, names.iter().copied()), elsewhere) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, Some(key)) if key.section().is_empty() => {
            format!("`{last}` belongs at the top of the file, before any section")
        }
        (None, Some(key)) => format!("`{last}` is a key of [{}]", key.section()),
        (None, None) => "no such key".to_owned(),
    };
    Problem::new(Code::UnknownKey, format!("unknown key `{shown}`{place}"))
        .at(name.span(), label)
        .help(keys_of(above, section))
}

/// `keys of [tail]: max_rows`.
fn keys_of(path: &[String], section: &Section) -> String {
    let names = keys::names_in(section.path).join(", ");
    match path {
        [] => format!("keys of the file: {names}"),
        path => format!("keys of [{}]: {names}", dotted(path)),
    }
}

/// The name that a slip of the fingers would have turned into `typed`.
fn nearest<'n>(typed: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    // Comparing is quadratic in the length, and no key is this long.
    if typed.len() > 64 {
        return None;
    }
    // One slip in three letters: `on` is no slip of `off`, `max_leg` is one of `max_lag`.
    names
        .map(|name| (strsim::osa_distance(typed, name), name))
        .filter(|(slips, name)| slips * 3 <= name.len().max(3))
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, name)| name)
}

fn missing_section(section: &Section, parent: &Visit) -> Problem {
    let rule = "first_name = { split = \"name\", take = \"first\" }";
    let above = dotted(&parent.path);
    let (title, help) = match section.path {
        "table.*" => ("no table is named".to_owned(), "[table.\"public.users\"]".to_owned()),
        "table.*.up.*" => (format!("[{above}] fills no column"), rule.to_owned()),
        "table.*.up" => (format!("section [{above}.up] is missing"), rule.to_owned()),
        "table" => {
            let title = "section [table.\"schema.name\".up] is missing";
            (title.to_owned(), format!("[table.\"public.users\".up] with {rule}"))
        }
        path => {
            let needed: Vec<_> = keys::keys_in(path)
                .filter(|key| key.is_asked_for())
                .map(|key| format!("{} = {}", key.name(), key.example()))
                .collect();
            let help = format!("[{path}] with {}", needed.join(", "));
            (format!("section [{path}] is missing"), help)
        }
    };
    let problem = Problem::new(Code::Missing, title).help(format!("for example: {help}"));
    match &parent.span {
        Some(span) => problem.at(span.clone(), ""),
        None => problem,
    }
}

fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
