//! What a file says, key by key, and where each value came from.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::keys::{self, Key};
use super::value::Value;
use crate::pg::ident::Ident;

/// The value of one key.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// With the names that the file chose.
    pub(super) path: Vec<String>,
    pub(super) key: &'static Key,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    Default,
    File {
        /// Of the key's last segment, in bytes of the file.
        name: Range<usize>,
        /// Of the value.
        span: Range<usize>,
        /// From 1.
        line: usize,
        /// The environment variables that took part.
        variables: Vec<String>,
    },
}

impl Entry {
    /// The value's place in the file, if it has one.
    pub(super) fn span(&self) -> Option<Range<usize>> {
        match &self.origin {
            Origin::Default => None,
            Origin::File { span, .. } => Some(span.clone()),
        }
    }

    /// The path as TOML spells it.
    pub(super) fn dotted(&self) -> String {
        dotted(&self.path)
    }

    pub(super) fn last(&self) -> &str {
        self.path.last().expect("a path has a segment")
    }
}

/// Joins segments as TOML does, in quotes where it needs them.
pub(super) fn dotted(path: &[String]) -> String {
    path.iter().map(|segment| spelled(segment)).collect::<Vec<_>>().join(".")
}

/// A key as TOML spells it.
pub(super) fn spelled(name: &str) -> String {
    let bare = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'-';
    if !name.is_empty() && name.bytes().all(bare) { name.to_owned() } else { quoted(name) }
}

/// A basic TOML string.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// All values, in the order of the key list.
#[derive(Debug, Clone, Default)]
pub(super) struct Entries(pub(super) Vec<Entry>);

impl Entries {
    /// The entry of a key whose path has no `*`.
    pub(super) fn find(&self, path: &str) -> Option<&Entry> {
        debug_assert!(keys::key(path).is_some(), "{path} is not described");
        self.0.iter().find(|entry| entry.key.path == path)
    }

    /// All entries of a key, in the order of the file.
    pub(super) fn all(&self, path: &str) -> impl Iterator<Item = &Entry> {
        debug_assert!(keys::key(path).is_some(), "{path} is not described");
        self.0.iter().filter(move |entry| entry.key.path == path)
    }

    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.find(path)?.value.text()
    }

    pub(super) fn whole(&self, path: &str) -> Option<u64> {
        self.find(path)?.value.whole()
    }

    pub(super) fn time(&self, path: &str) -> Option<Duration> {
        self.find(path)?.value.time()
    }

    pub(super) fn flag(&self, path: &str) -> Option<bool> {
        self.find(path)?.value.flag()
    }

    pub(super) fn ident(&self, path: &str) -> Option<&Ident> {
        self.find(path)?.value.ident()
    }

    pub(super) fn listen(&self, path: &str) -> Option<Option<SocketAddr>> {
        self.find(path)?.value.listen()
    }

    /// The path of a file, resolved against `folder`.
    pub(super) fn file(&self, path: &str, folder: &Path) -> Option<PathBuf> {
        self.find(path)?.value.file(folder)
    }
}
