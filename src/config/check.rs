//! What is wrong although every value by itself is right.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use tokio_postgres::config::Host;

use super::entry::{Entries, Entry, Origin};
use super::error::{Code, Problem};
use super::interpolate;
use super::mask;
use super::value::is_loopback;
use super::walk::{Visit, Walked};

/// librdkafka properties that a file may not set, and why.
const REFUSED_PROPERTIES: &[(&str, &str)] = &[
    ("bootstrap.servers", "set it as `brokers` in [source]"),
    ("metadata.broker.list", "set it as `brokers` in [source]"),
    ("group.id", "set it as `group` in [source]"),
    ("queued.max.messages.kbytes", "set it as `queue_bytes` in [source]"),
    ("enable.auto.commit", "the worker stores its own positions, beside the rows"),
    ("auto.commit.enable", "the worker stores its own positions, beside the rows"),
    ("auto.commit.interval.ms", "the worker stores its own positions, beside the rows"),
    ("enable.auto.offset.store", "the worker stores its own positions, beside the rows"),
    ("auto.offset.reset", "the worker starts at its stored position, or at the very beginning"),
    ("isolation.level", "only committed records may become rows"),
    ("enable.partition.eof", "the worker sets it to see the end of a partition"),
    ("partition.assignment.strategy", "the worker hands partitions over in its own way"),
    ("group.protocol", "the worker hands partitions over in its own way"),
    ("group.remote.assignor", "the worker hands partitions over in its own way"),
    ("statistics.interval.ms", "the worker sets it for its metrics"),
    ("enable.ssl.certificate.verification", "it would turn off the check of the broker's identity"),
    ("ssl.endpoint.identification.algorithm", "it could turn off the check of the broker's name"),
    ("plugin.library.paths", "it loads foreign code into the worker"),
    ("ssl.engine.location", "it loads foreign code into the worker"),
];

/// Finds what contradicts, opens a hole, or holds a secret. Looks at what was right by itself.
pub(super) fn check(source: &str, entries: &Entries, walked: &Walked) -> Vec<Problem> {
    let mut problems = Vec::new();
    one_table(&walked.visits, &mut problems);
    database(source, entries, walked, &mut problems);
    properties(source, entries, &mut problems);
    columns(entries, &mut problems);
    order(entries, &mut problems);
    problems
}

fn one_table(visits: &[Visit], problems: &mut Vec<Problem>) {
    let mut tables = visits.iter().filter(|visit| visit.section.path == "table.*");
    let first = tables.next().and_then(|visit| visit.span.clone());
    for more in tables {
        let (Some(first), Some(span)) = (first.clone(), more.span.clone()) else { continue };
        problems.push(
            Problem::new(Code::Unsupported, "more than one table")
                .at(span, "a second table")
                .also(first, "the first one")
                .help("one migration changes one table: write one file for each"),
        );
    }
}

fn database(source: &str, entries: &Entries, walked: &Walked, problems: &mut Vec<Problem>) {
    let section = walked.visits.iter().find(|visit| visit.section.path == "database");
    let is_given = walked.has(["database", "url"]) || walked.has(["database", "url_file"]);
    let url = entries.find("database.url");
    let file = entries.find("database.url_file");
    match (url.and_then(Entry::span), file.and_then(Entry::span)) {
        (Some(url), Some(file)) => problems.push(
            Problem::new(Code::Contradiction, "both `url` and `url_file` are given in [database]")
                .at(file, "this file holds a connection string")
                .also(url, "and here is one")
                .help("keep one of the two"),
        ),
        (None, None) if is_given => {}
        (None, None) => {
            if let Some(span) = section.and_then(|section| section.span.clone()) {
                problems.push(
                    Problem::new(Code::Missing, "key `database.url` is missing")
                        .at(span, "needs `url` or `url_file`")
                        .help("for example: url = \"${DATABASE_URL}\""),
                );
            }
        }
        (Some(_), None) | (None, Some(_)) => {}
    }
    let Some(url) = url else { return };
    if let (Some(span), true) = (url.span(), holds_password(source, url)) {
        problems.push(
            Problem::new(Code::LiteralSecret, "`database.url` holds a password")
                .at(span, "files are copied, committed and backed up")
                .help("url = \"${DATABASE_URL}\", or url_file = \"/run/secrets/database_url\""),
        );
    }
    let hosts = url.value.secret().and_then(|url| Hosts::of(url.expose()));
    let (Some(hosts), Some(span)) = (hosts, url.span()) else { return };
    match hosts {
        Hosts::None => problems.push(
            Problem::new(Code::Malformed, "`database.url` names no host")
                .at(span, "needs a host, or the folder of a socket"),
        ),
        Hosts::Remote => {
            let tls = entries.find("database.tls");
            if let Some(tls) = tls.filter(|tls| tls.value.text() == Some("disable")) {
                problems.push(
                    Problem::new(Code::Insecure, "`database.tls` is off for a remote database")
                        .at(
                            tls.span().unwrap_or(span.clone()),
                            "rows would cross the network in the clear",
                        )
                        .also(span, "a host that is not this machine")
                        .help("verify-full, with ca_file where the authority is your own"),
                );
            }
        }
        Hosts::Local => {}
    }
}

/// Where a connection string leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hosts {
    None,
    /// Sockets and loopback addresses only.
    Local,
    Remote,
}

impl Hosts {
    /// `None` when the text is no connection string.
    fn of(connection: &str) -> Option<Self> {
        let config: tokio_postgres::Config = connection.parse().ok()?;
        // An address overrides the name beside it.
        let addresses = config.get_hostaddrs();
        let is_local = match addresses {
            [] => config.get_hosts().iter().all(|host| match host {
                Host::Tcp(name) => is_loopback(name),
                Host::Unix(_) => true,
            }),
            addresses => addresses.iter().all(IpAddr::is_loopback),
        };
        Some(match is_local {
            _ if addresses.is_empty() && config.get_hosts().is_empty() => Self::None,
            true => Self::Local,
            false => Self::Remote,
        })
    }
}

/// Whether a connection string leads to sockets and loopback addresses only, so that plain text
/// stays on this machine.
///
/// For `url_file`, whose text is read at each connect, whoever reads it must ask again.
pub fn is_local(connection: &str) -> bool {
    Hosts::of(connection) == Some(Hosts::Local)
}

/// Whether the password of a connection string is in the file, as such or as a variable's default.
fn holds_password(source: &str, url: &Entry) -> bool {
    let Some(literal) = literal(source, url) else { return false };
    let Ok(parts) = interpolate::parts(&literal) else { return false };
    // A password that stays the same whatever the variables hold is the file's own. Numbers, since
    // a variable may stand for a port.
    let with = |value: &str| {
        let text = interpolate::join(&parts, |_, default| default.unwrap_or(value).to_owned());
        let config: tokio_postgres::Config = text.parse().ok()?;
        Some(config.get_password().map(<[u8]>::to_vec))
    };
    match (with("20011"), with("20021")) {
        (Some(one), Some(other)) => one.is_some_and(|one| !one.is_empty() && Some(one) == other),
        // The variables decide more than a part: look at the text itself.
        (None, _) | (_, None) => {
            mask::in_urls(&literal).into_iter().any(|span| !mask::is_variables(&literal[span]))
        }
    }
}

/// The value as the file has it, its variables not filled in.
fn literal(source: &str, entry: &Entry) -> Option<String> {
    let raw = source.get(entry.span()?)?;
    let value = toml::de::DeValue::parse(raw).ok()?;
    value.get_ref().as_str().map(str::to_owned)
}

fn properties(source: &str, entries: &Entries, problems: &mut Vec<Problem>) {
    let files: Vec<_> = entries.all("source.properties_files.*").collect();
    for entry in entries.all("source.properties.*").chain(files.iter().copied()) {
        let Origin::File { name: span, .. } = entry.origin.clone() else { continue };
        let name = entry.last();
        if let Some((_, why)) = REFUSED_PROPERTIES.iter().find(|(refused, _)| *refused == name) {
            problems.push(
                Problem::new(Code::RefusedProperty, format!("property `{name}` may not be set"))
                    .at(span, *why),
            );
        }
    }
    for entry in entries.all("source.properties.*") {
        let Some(span) = entry.span() else { continue };
        let name = entry.last();
        if let Some(file) = files.iter().find(|file| file.last() == name).and_then(|f| f.span()) {
            problems.push(
                Problem::new(Code::Contradiction, format!("property `{name}` is given twice"))
                    .at(file, "this file holds its value")
                    .also(span.clone(), "and here is one")
                    .help("keep one of the two"),
            );
        }
        let is_password =
            ["password", "secret", "jaas", "key.pem"].iter().any(|w| name.contains(w));
        if is_password && literal(source, entry).is_some_and(|text| !mask::is_variables(&text)) {
            problems.push(
                Problem::new(Code::LiteralSecret, format!("property `{name}` holds a secret"))
                    .at(span, "files are copied, committed and backed up")
                    .help(
                        "write a variable (\"${NAME}\"), or its file in [source.properties_files]",
                    ),
            );
        }
    }
}

fn columns(entries: &Entries, problems: &mut Vec<Problem>) {
    let rules: Vec<_> = entries.all("table.*.up.*.split").collect();
    for target in &rules {
        let Some(span) = target.span() else { continue };
        let name = target.path[target.path.len() - 2].as_str();
        let source = rules.iter().find(|rule| {
            rule.path[1] == target.path[1]
                && rule.value.ident().is_some_and(|column| column.as_str() == name)
        });
        if let Some(source) = source.and_then(|source| source.span()) {
            problems.push(
                Problem::new(
                    Code::Contradiction,
                    format!("column \"{name}\" is a source and a target"),
                )
                .at(source, "read here")
                .also(span.clone(), format!("fills \"{name}\""))
                .help("a rule reads old columns and fills new ones"),
            );
        }
        let key = entries.all("table.*.key").find(|key| {
            key.path[1] == target.path[1]
                && key
                    .value
                    .idents()
                    .is_some_and(|key| key.iter().any(|part| part.as_str() == name))
        });
        if let Some(key) = key.and_then(Entry::span) {
            problems.push(
                Problem::new(
                    Code::Contradiction,
                    format!("column \"{name}\" is a target and in the key"),
                )
                .at(key, "the key must not change")
                .also(span, "fills it"),
            );
        }
    }
}

/// Pairs of which the first must not pass the second.
fn order(entries: &Entries, problems: &mut Vec<Problem>) {
    let mut at_most = |small: &str, large: &str, equal_is_right: bool, why: &str| {
        let (Some(a), Some(b)) = (entries.find(small), entries.find(large)) else { return };
        let amount = |entry: &Entry| match (entry.value.whole(), entry.value.time()) {
            (Some(whole), _) => Some(u128::from(whole)),
            (None, time) => time.as_ref().map(Duration::as_millis),
        };
        let (Some(low), Some(high)) = (amount(a), amount(b)) else { return };
        if low < high || (equal_is_right && low == high) {
            return;
        }
        let must = if equal_is_right { "at most" } else { "less than" };
        let title = format!("`{small}` is not {must} `{large}`");
        let problem = Problem::new(Code::Contradiction, title);
        let says = |entry: &Entry| match entry.origin {
            Origin::Default => {
                format!("`{}` is {} by default", entry.dotted(), entry.key.example())
            }
            Origin::File { .. } => format!("`{}`", entry.dotted()),
        };
        problems.push(match (a.span(), b.span()) {
            (Some(a), Some(b)) => problem.at(a, why).also(b, format!("{must} this")),
            (Some(span), None) => problem.at(span, why).help(says(b)),
            (None, Some(span)) => problem.at(span, why).help(says(a)),
            (None, None) => unreachable!("the defaults agree"),
        });
    };
    at_most(
        "batch.tail_below",
        "batch.bulk_above",
        false,
        "a partition would change its mode for ever",
    );
    at_most("batch.slices", "batch.window", true, "a slice would hold less than one record");
    at_most(
        "database.lock_timeout",
        "database.statement_timeout",
        false,
        "it would never run out first",
    );
    at_most(
        "worker.sample_every",
        "gate.caught_up.stable_for",
        true,
        "the gate would open on a single sample",
    );
}

/// A relative path of a property, such as `ssl.ca.location`, resolved like every other path.
pub(super) fn property_value(name: &str, value: &str, folder: &Path) -> String {
    let is_path = name.starts_with("ssl.") && name.ends_with(".location") && value != "probe";
    if is_path { folder.join(value).to_string_lossy().into_owned() } else { value.to_owned() }
}
