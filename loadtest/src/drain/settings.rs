//! The worker's config file, with what `--set` and `--try` change.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, ensure};

use super::contestants::Arena;
use crate::worker;

/// `KEY=VALUE` for the worker's config file, as in `database.writers=2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Override {
    key: String,
    /// As it is written in TOML.
    value: String,
}

/// Several, with commas between: `database.writers=1,batch.window=8192`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variant {
    pub(crate) label: String,
    pub(crate) overrides: Vec<Override>,
}

/// A config file on disk and the log of who runs it.
#[derive(Debug, Clone)]
pub(crate) struct WorkerFile {
    pub(crate) path: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) http: SocketAddr,
}

impl Variant {
    /// The worker with what `--set` asks for and nothing else.
    pub(crate) fn plain(set: &[Override]) -> Self {
        let mut label = "worker".to_owned();
        for Override { key, value } in set {
            label += &format!(" {key}={value}");
        }
        Self { label, overrides: Vec::new() }
    }
}

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
        let bare = value.parse::<i64>().is_ok()
            || matches!(value, "true" | "false")
            || value.starts_with(['"', '\'', '[', '{']);
        let value = if bare { value.to_owned() } else { format!("{value:?}") };
        Ok(Self { key: key.trim().to_owned(), value })
    }
}

impl FromStr for Variant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let overrides = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { label: text.to_owned(), overrides })
    }
}

/// Writes the file of one run; a later override of the same key wins.
pub(crate) fn write<'a>(
    folder: &Path,
    name: &str,
    arena: &Arena,
    slot: &str,
    publication: &str,
    overrides: impl IntoIterator<Item = &'a Override>,
) -> anyhow::Result<WorkerFile> {
    let database = database_url(&arena.server, &arena.database);
    let http = worker::free_address()?;
    let mut keys: BTreeMap<&str, String> = [
        ("version", "1".to_owned()),
        ("name", format!("{name:?}")),
        ("database.url", format!("{database:?}")),
        ("database.tls", "\"disable\"".to_owned()),
        ("source.kind", "\"kafka\"".to_owned()),
        ("source.brokers", format!("{:?}", arena.brokers)),
        ("source.topic", format!("{:?}", arena.topic)),
        ("source.slot", format!("{slot:?}")),
        ("source.publication", format!("{publication:?}")),
        ("table.\"public.users\".key", "[\"id\"]".to_owned()),
        (
            "table.\"public.users\".up.first_name",
            "{ split = \"name\", take = \"first\" }".to_owned(),
        ),
        ("table.\"public.users\".up.last_name", "{ split = \"name\", take = \"rest\" }".to_owned()),
        ("http.listen", format!("\"{http}\"")),
    ]
    .into();
    let own: Vec<&str> = keys.keys().copied().collect();
    for Override { key, value } in overrides {
        ensure!(!own.contains(&key.as_str()), "\"{key}\" is set by the test itself");
        keys.insert(key, value.clone());
    }
    // Dotted keys, no table headers: so any key can stand in any line.
    let mut text = String::new();
    for (key, value) in keys {
        writeln!(text, "{key} = {value}")?;
    }
    let path = folder.join(format!("{name}.toml"));
    std::fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))?;
    Ok(WorkerFile { path, log: folder.join(format!("{name}.log")), http })
}

/// The server's URL with another database.
fn database_url(server: &str, database: &str) -> String {
    let base = server.rsplit_once('/').map_or(server, |(base, _)| base);
    format!("{base}/{database}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, key: &str, value: &str) {
        let parsed: Override = text.parse().unwrap();
        assert_eq!((&*parsed.key, &*parsed.value), (key, value));
    }

    #[test]
    fn a_value_that_is_no_number_and_no_truth_is_a_text() {
        check("database.writers=2", "database.writers", "2");
        check("database.synchronous_commit=false", "database.synchronous_commit", "false");
        check("batch.max_bytes=4MiB", "batch.max_bytes", "\"4MiB\"");
        check("http.listen=\"off\"", "http.listen", "\"off\"");
    }

    #[test]
    fn a_variant_is_several_with_commas_between() {
        let variant: Variant = "database.writers=1,batch.slices=4".parse().unwrap();
        assert_eq!(variant.overrides.len(), 2);
        assert!("database.writers".parse::<Variant>().is_err());
    }

    #[test]
    fn the_database_takes_the_place_of_the_urls_own() {
        assert_eq!(
            database_url("postgresql://postgres@127.0.0.1:5/postgres", "drain_1"),
            "postgresql://postgres@127.0.0.1:5/drain_1"
        );
    }
}
