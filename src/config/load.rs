//! From a file to settings, or to everything that is wrong with it.

use std::io::Read;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::check;
use super::entry::{Entries, Entry, Origin};
use super::error::{Code, ConfigErrors, Problem};
use super::keys::{KEYS, Kind, Presence};
use super::mask::mask;
use super::secret::Secret;
use super::settings::{
    Batch, CaughtUpSettings, Connect, Database, DeadLetters, Gates, Http, KafkaSource, Rule,
    Settings, Source, TableSettings, Tail, Take, Tls, Url, Worker,
};
use super::value::Value;
use super::walk;
use crate::pg::ident::Ident;

/// A config file that is right.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub settings: Settings,
    /// Every value that counts and where it came from, for `config print`.
    pub(super) entries: Entries,
}

/// The largest file that is read, in bytes. A real one has two thousand; the bound keeps checks
/// that compare all keys with each other short.
const MAX_BYTES: u64 = 64 << 10;

/// Reads a config file. `env` gives the value of an environment variable.
///
/// # Errors
///
/// All mistakes at once; the file's secrets and the variables' values are in none of them.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, ConfigErrors> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => parse(path, &bytes, env),
        Err(error) => Err(unreadable(path, &error)),
    }
}

/// Reads the text of a config file; `path` stands in messages and resolves relative paths.
///
/// # Errors
///
/// As [`load`]. Never panics, whatever the bytes.
pub fn parse(
    path: &Path,
    bytes: &[u8],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, ConfigErrors> {
    let source = text(bytes).map_err(|why| unreadable(path, why))?;
    let (table, errors) = DeTable::parse_recoverable(source);
    let table = table.into_inner();
    let failed =
        |problems| ConfigErrors::new(path, mask(source, &secrets(source, &table)), problems);
    if !errors.is_empty() {
        return Err(failed(errors.iter().map(syntax).collect()));
    }
    let mut walked = walk::walk(source, &table, env);
    let entries = complete(std::mem::take(&mut walked.entries));
    let mut problems = check::check(source, &entries, &walked);
    problems.append(&mut walked.problems);
    if !problems.is_empty() {
        return Err(failed(problems));
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let settings = assemble(&entries, folder).expect("nothing is missing where nothing is wrong");
    Ok(Loaded { settings, entries })
}

fn text(bytes: &[u8]) -> Result<&str, &'static str> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err("it is larger than 64 KiB");
    }
    std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8 text")
}

fn unreadable(path: &Path, why: impl std::fmt::Display) -> ConfigErrors {
    let problem =
        Problem::new(Code::Unreadable, "could not read the config file").help(why.to_string());
    ConfigErrors::new(path, String::new(), vec![problem])
}

fn syntax(error: &toml::de::Error) -> Problem {
    let title = match error.message() {
        "duplicate key" => "a key is given twice",
        _ => "the file is not TOML",
    };
    let problem = Problem::new(Code::Syntax, title);
    match error.span() {
        Some(span) => problem.at(span, error.message()),
        None => problem.help(error.message()),
    }
}

/// Spans that must not be shown, found in whatever could be read of the file.
fn secrets(source: &str, table: &DeTable<'_>) -> Vec<std::ops::Range<usize>> {
    let within =
        |section: &str| table.get(section).and_then(|section| section.get_ref().as_table());
    let properties =
        within("source").and_then(|source| source.get("properties")?.get_ref().as_table());
    let properties =
        properties.into_iter().flat_map(|table| table.values().map(|value| value.span()));
    // An escape could hide a password from a look at the text: then the whole string goes.
    let url = within("database").and_then(|database| database.get("url")).filter(|url| {
        matches!(url.get_ref(), DeValue::String(_))
            && source.get(url.span()).is_none_or(|raw| raw.contains('\\'))
    });
    properties.chain(url.map(|url| url.span())).collect()
}

/// Adds defaults, and brings all into the order of the key list.
fn complete(mut entries: Vec<Entry>) -> Entries {
    let name = entries.iter().find(|entry| entry.key.path == "name");
    let name = name.and_then(|entry| entry.value.text()).map(str::to_owned);
    for key in KEYS {
        if entries.iter().any(|entry| entry.key.path == key.path) {
            continue;
        }
        let value = match (key.presence, &name) {
            (Presence::Default(default), _) => {
                key.kind.parse(default.trim_matches('"')).expect("a default is a value of its key")
            }
            (Presence::Derived { .. }, Some(name)) => derived(key.kind, name),
            (Presence::Derived { .. }, None)
            | (
                Presence::Required { .. } | Presence::Optional { .. } | Presence::Either { .. },
                _,
            ) => continue,
        };
        let path = key.path.split('.').map(str::to_owned).collect();
        entries.push(Entry { path, key, value, origin: Origin::Default });
    }
    entries.sort_by_key(|entry| {
        let key = KEYS.iter().position(|key| key.path == entry.key.path);
        // Keys that repeat stay in the order of the file.
        (key, entry.span().map(|span| span.start))
    });
    Entries(entries)
}

/// What follows from the migration's name.
fn derived(kind: Kind, name: &str) -> Value {
    if kind == Kind::Text {
        return Value::Text(name.to_owned());
    }
    let ident = Ident::new(&format!("crossfade_{}", name.replace('-', "_")));
    Value::Ident(ident.expect("a migration's name leaves room in an identifier"))
}

/// `None` when a required value is missing.
fn assemble(entries: &Entries, folder: &Path) -> Option<Settings> {
    Some(Settings {
        name: entries.text("name")?.to_owned(),
        database: database(entries, folder)?,
        source: Source::Kafka(kafka(entries, folder)?),
        table: table(entries)?,
        batch: Batch {
            max_rows: count(entries, "batch.max_rows")?,
            max_bytes: count(entries, "batch.max_bytes")?,
            window: count(entries, "batch.window")?,
            slices: count(entries, "batch.slices")?,
            target_time: entries.time("batch.target_time")?,
            bulk_above: entries.whole("batch.bulk_above")?,
            tail_below: entries.whole("batch.tail_below")?,
        },
        tail: Tail { max_rows: count(entries, "tail.max_rows")? },
        dead_letters: DeadLetters { limit: entries.whole("dead_letters.limit")? },
        gate: Gates {
            caught_up: CaughtUpSettings {
                max_lag: entries.time("gate.caught_up.max_lag")?,
                stable_for: entries.time("gate.caught_up.stable_for")?,
            },
        },
        http: Http { listen: entries.listen("http.listen")? },
        worker: Worker {
            shutdown_timeout: entries.time("worker.shutdown_timeout")?,
            visibility_timeout: entries.time("worker.visibility_timeout")?,
            sample_every: entries.time("worker.sample_every")?,
        },
    })
}

fn database(entries: &Entries, folder: &Path) -> Option<Database> {
    let url = match entries.find("database.url") {
        Some(url) => Url::Given(url.value.secret()?.clone()),
        None => Url::File(entries.file("database.url_file", folder)?),
    };
    let tls = match entries.text("database.tls")? {
        "verify-full" => Tls::VerifyFull,
        "verify-ca" => Tls::VerifyCa,
        "disable" => Tls::Disable,
        _ => return None,
    };
    Some(Database {
        url,
        tls,
        ca_file: entries.file("database.ca_file", folder),
        writers: count(entries, "database.writers")?,
        control_connections: count(entries, "database.control_connections")?,
        synchronous_commit: entries.flag("database.synchronous_commit")?,
        connect_timeout: entries.time("database.connect_timeout")?,
        statement_timeout: entries.time("database.statement_timeout")?,
        lock_timeout: entries.time("database.lock_timeout")?,
    })
}

fn kafka(entries: &Entries, folder: &Path) -> Option<KafkaSource> {
    let connect = entries.text("source.connect.url").zip(entries.text("source.connect.connector"));
    let property = |entry: &Entry| {
        let value = check::property_value(entry.last(), entry.value.secret()?.expose(), folder);
        Some((entry.last().to_owned(), Secret::new(value)))
    };
    let file = |entry: &Entry| Some((entry.last().to_owned(), entry.value.file(folder)?));
    Some(KafkaSource {
        brokers: entries.text("source.brokers")?.to_owned(),
        topic: entries.text("source.topic")?.to_owned(),
        group: entries.text("source.group")?.to_owned(),
        slot: entries.ident("source.slot")?.clone(),
        publication: entries.ident("source.publication")?.clone(),
        unavailable_value: entries.text("source.unavailable_value")?.to_owned(),
        connect: connect.map(|(url, connector)| Connect {
            url: url.to_owned(),
            connector: connector.to_owned(),
        }),
        properties: entries.all("source.properties.*").filter_map(property).collect(),
        property_files: entries.all("source.properties_files.*").filter_map(file).collect(),
        queue_bytes: entries.whole("source.queue_bytes")?,
    })
}

fn table(entries: &Entries) -> Option<TableSettings> {
    let mut up = Vec::new();
    for split in entries.all("table.*.up.*.split") {
        let take = entries
            .all("table.*.up.*.take")
            .find(|take| take.path[..take.path.len() - 1] == split.path[..split.path.len() - 1])?;
        let take = match take.value.text()? {
            "first" => Take::First,
            "rest" => Take::Rest,
            "last" => Take::Last,
            _ => return None,
        };
        let target = Ident::new(&split.path[split.path.len() - 2]).ok()?;
        up.push((target, Rule::Split { column: split.value.ident()?.clone(), take }));
    }
    let (schema, name) = entries.all("table.*.up.*.split").next()?.path[1].split_once('.')?;
    let key = entries.all("table.*.key").next().and_then(|key| key.value.idents());
    Some(TableSettings {
        schema: Ident::new(schema).ok()?,
        name: Ident::new(name).ok()?,
        key: key.map(<[Ident]>::to_vec),
        up,
    })
}

fn count(entries: &Entries, path: &str) -> Option<usize> {
    usize::try_from(entries.whole(path)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINIMAL: &str = r#"
version = 1
name = "users-name-split"
database.url = "${DATABASE_URL}"
[source]
kind = "kafka"
brokers = "localhost:9092"
topic = "cdc.public.users"
[table."public.users".up]
first_name = { split = "name", take = "first" }
"#;

    fn env(name: &str) -> Option<String> {
        (name == "DATABASE_URL").then(|| "postgres://app:hunter2@localhost/app".to_owned())
    }

    fn parsed(text: &str) -> Result<Loaded, ConfigErrors> {
        parse(Path::new("conf/users.toml"), text.as_bytes(), &env)
    }

    #[track_caller]
    fn loaded(text: &str) -> Settings {
        parsed(text).unwrap_or_else(|errors| panic!("{errors}")).settings
    }

    /// The codes of what is wrong with the minimal file after an edit.
    #[track_caller]
    fn codes(from: &str, to: &str) -> Vec<Code> {
        assert!(MINIMAL.contains(from), "{from:?} is not in the file");
        match parsed(&MINIMAL.replace(from, to)) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.problems().iter().map(|problem| problem.code).collect(),
        }
    }

    #[test]
    fn a_short_file_gets_every_default() {
        let settings = loaded(MINIMAL);
        assert_eq!(settings.batch.max_bytes, 1 << 20);
        let Source::Kafka(kafka) = settings.source;
        assert_eq!(kafka.group, "users-name-split");
        assert_eq!(kafka.slot.as_str(), "crossfade_users_name_split");
        assert_eq!(kafka.publication.as_str(), "crossfade_users_name_split");
    }

    #[test]
    fn the_example_loads() {
        let text = include_str!("../../config/users_name_split.toml");
        let settings = loaded(text);
        let split = |take| Rule::Split { column: Ident::new("name").unwrap(), take };
        assert_eq!(
            settings.table.up,
            vec![
                (Ident::new("first_name").unwrap(), split(Take::First)),
                (Ident::new("last_name").unwrap(), split(Take::Rest)),
            ]
        );
    }

    #[test]
    fn the_minimal_file_is_what_the_following_tests_spoil() {
        assert_eq!(codes("version = 1", "version = 1"), []);
    }

    #[test]
    fn plain_text_stays_on_this_machine() {
        for url in [
            "postgres://localhost/a",
            "postgres://127.0.0.1,127.0.0.2:6000/a",
            "postgres://[::1]/a",
            "postgres://%2Frun%2Fpostgresql/a",
            "host=/run/postgresql",
            "host=db.example hostaddr=127.0.0.1",
        ] {
            assert!(check::is_local(url), "{url}");
            let edit = format!("\"{url}\"\ndatabase.tls = \"disable\"");
            assert_eq!(codes("\"${DATABASE_URL}\"", &edit), [], "{url}");
        }
        for url in [
            "postgres://db.example/a",
            "postgres://localhost,db.example/a",
            "host=localhost hostaddr=10.0.0.1",
            "postgres://localhost.example/a",
        ] {
            assert!(!check::is_local(url), "{url}");
            let edit = format!("\"{url}\"\ndatabase.tls = \"disable\"");
            assert_eq!(codes("\"${DATABASE_URL}\"", &edit), [Code::Insecure], "{url}");
        }
    }

    #[test]
    fn a_password_in_the_file_is_found_in_every_disguise() {
        for url in [
            "postgres://a:b@c/d",
            "postgres://a:b@${HOST:c}:${PORT:1}/d",
            "postgres://a:${PW:b}@c/d",
            "${ALL:postgres://a:b@c/d}",
            "postgres://c/d?password=b",
            "host=c password=b",
            "postgres://a:\\u0062@c/d",
        ] {
            let edit = format!("\"{url}\"");
            assert_eq!(codes("\"${DATABASE_URL}\"", &edit), [Code::LiteralSecret], "{url}");
        }
        let names_a_variable = "\"postgres://a:${DATABASE_URL}@c/d\"";
        assert_eq!(codes("\"${DATABASE_URL}\"", names_a_variable), []);
        assert_eq!(codes("\"${DATABASE_URL}\"", "\"postgres://a@c/d\""), []);
        assert_eq!(codes("\"${DATABASE_URL}\"", "\"dbname=d\""), [Code::Malformed]);
    }

    #[test]
    fn names_that_the_file_chooses_must_be_identifiers() {
        let long = "x".repeat(64);
        for name in ["\"\"", long.as_str(), "\"a\\u0000\""] {
            assert_eq!(codes("first_name", name), [Code::Malformed], "{name}");
        }
        for name in ["users", ".users", "public.", "a.b.c", &format!("public.{long}")] {
            assert_eq!(codes("public.users\".up", &format!("{name}\".up")), [Code::Malformed]);
        }
    }

    #[test]
    fn a_number_may_come_from_a_variable_but_not_from_a_quoted_literal() {
        let of = |value: &str| codes("[source]", &format!("database.writers = {value}\n[source]"));
        assert_eq!(of("\"${WRITERS:3}\""), []);
        assert_eq!(of("\"${WRITERS:33}\""), [Code::OutOfRange]);
        assert_eq!(of("\"3\""), [Code::WrongType]);
        assert_eq!(of("0x10"), []);
        assert_eq!(of("99999999999999999999999"), [Code::OutOfRange]);
    }

    #[test]
    fn a_property_with_dots_wants_quotes() {
        let text = format!("{MINIMAL}[source.properties]\nsasl.username = \"a\"\n");
        let errors = parsed(&text).unwrap_err();
        assert_eq!(errors.problems()[0].code, Code::WrongType);
        assert!(errors.to_string().contains("goes in quotes"));
    }

    #[test]
    fn relative_paths_of_properties_start_at_the_folder_too() {
        let text = format!("{MINIMAL}[source.properties]\n\"ssl.ca.location\" = \"ca.pem\"\n");
        let Source::Kafka(kafka) = loaded(&text).source;
        assert_eq!(kafka.properties["ssl.ca.location"].expose(), "conf/ca.pem");
    }

    #[test]
    fn a_file_that_is_no_text_or_too_large_is_refused() {
        for bytes in [vec![0xff], vec![b'#'; 65_537]] {
            let errors = parse(Path::new("x"), &bytes, &env).unwrap_err();
            assert_eq!(errors.problems()[0].code, Code::Unreadable);
        }
    }

    proptest! {
        /// Most spoiled files are still TOML, so this reaches behind the parser.
        #[test]
        fn a_spoiled_file_is_read_or_refused(
            at in 0..MINIMAL.len(), cut in 0..12_usize, put in "[a-z0-9\"'=.,${}\\[\\]\\\\ \né]{0,8}"
        ) {
            let end = (at + cut).min(MINIMAL.len());
            let text = format!("{}{put}{}", &MINIMAL[..at], &MINIMAL[end..]);
            if let Err(errors) = parsed(&text) {
                prop_assert!(!errors.to_string().contains("hunter2"));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Err(errors) = parse(Path::new("x"), &bytes, &env) {
                let _ = errors.render(true);
            }
        }
    }
}
