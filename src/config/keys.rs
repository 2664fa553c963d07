//! Every key of a config file, described once.
//!
//! The reader, the error messages, the JSON schema, `config/reference.toml` and `config print` all
//! read this list, so none of them can forget a key or tell another default.

/// One key.
#[derive(Debug)]
pub struct Key {
    /// Segments joined by dots; `*` stands for a name that the file chooses.
    pub path: &'static str,
    pub kind: Kind,
    pub presence: Presence,
    /// One sentence for a person.
    pub doc: &'static str,
}

/// A table of keys.
#[derive(Debug)]
pub struct Section {
    pub path: &'static str,
    /// Without it the file is incomplete.
    pub required: bool,
    pub doc: &'static str,
}

/// What a value may be. Bounds are inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The version of the file format.
    Version,
    /// `[a-z0-9_-]{1,48}`.
    Name,
    /// Any text that is not empty.
    Text,
    Flag,
    Whole {
        min: u64,
        max: u64,
    },
    /// Milliseconds.
    Time {
        min: u64,
        max: u64,
    },
    /// Bytes.
    Size {
        min: u64,
        max: u64,
    },
    /// One of these words.
    Word(&'static [&'static str]),
    Ident,
    /// `[a-z0-9_]{1,63}`, what a replication slot may be called.
    SlotName,
    /// At least one identifier, none twice.
    Idents,
    /// `[a-zA-Z0-9._-]{1,249}`, what a Kafka topic may be called.
    Topic,
    /// `host:port`, several with commas between.
    HostPorts,
    /// An address on this machine, or `off`.
    Listen,
    /// `http://` or `https://`, without credentials.
    HttpUrl,
    /// A path; a relative one starts at the config file's folder.
    File,
    /// A PostgreSQL connection string. Secret.
    Connection,
    /// The value of a librdkafka property. Secret.
    Property,
}

impl Kind {
    /// A secret is masked wherever it could be shown.
    pub fn is_secret(self) -> bool {
        matches!(self, Self::Connection | Self::Property)
    }

    /// A number of bytes.
    pub fn is_size(self) -> bool {
        matches!(self, Self::Size { .. })
    }
}

/// Whether a key must be there. Examples and defaults are TOML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Wherever its section is.
    Required {
        example: &'static str,
    },
    /// Nothing takes its place.
    Optional {
        example: &'static str,
    },
    /// Exactly one of this key and the other.
    Either {
        other: &'static str,
        example: &'static str,
    },
    Default(&'static str),
    /// Follows from the migration's name.
    Derived {
        rule: &'static str,
        example: &'static str,
    },
}

impl Section {
    /// The last segment.
    pub fn name(&self) -> &'static str {
        split(self.path).1
    }

    /// The section that it is in; empty at the top.
    pub fn above(&self) -> &'static str {
        split(self.path).0
    }
}

impl Key {
    /// The last segment.
    pub fn name(&self) -> &'static str {
        split(self.path).1
    }

    /// The section that it is in; empty at the top.
    pub fn section(&self) -> &'static str {
        split(self.path).0
    }

    /// A file that has its section has this key too, or at least a stand-in for it.
    pub fn is_asked_for(&self) -> bool {
        match self.presence {
            Presence::Required { .. } => true,
            Presence::Optional { .. } | Presence::Default(_) | Presence::Derived { .. } => false,
            // The first of the two.
            Presence::Either { other, .. } => {
                let place = |path| KEYS.iter().position(|key| key.path == path);
                place(self.path) < place(other)
            }
        }
    }

    /// A TOML value that the key takes: its default, where it has one.
    pub fn example(&self) -> &'static str {
        match self.presence {
            Presence::Required { example }
            | Presence::Optional { example }
            | Presence::Either { example, .. }
            | Presence::Derived { example, .. } => example,
            Presence::Default(default) => default,
        }
    }
}

/// A path as what is above and the last segment.
fn split(path: &'static str) -> (&'static str, &'static str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

/// The key of this path, with `*` where the file chooses the name.
pub fn key(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The section of this path.
pub fn section(path: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| section.path == path)
}

/// The keys right below a section.
pub fn keys_in(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.section() == section)
}

/// The sections right below a section.
pub fn sections_in(section: &str) -> impl Iterator<Item = &'static Section> {
    SECTIONS.iter().filter(move |below| !below.path.is_empty() && below.above() == section)
}

/// The names that may stand right below a section, in the order of the list.
pub fn names_in(section: &str) -> Vec<&'static str> {
    let below = sections_in(section).map(Section::name);
    keys_in(section).map(Key::name).chain(below).filter(|name| *name != "*").collect()
}

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

const fn required(path: &'static str, kind: Kind, example: &'static str, doc: &'static str) -> Key {
    Key { path, kind, presence: Presence::Required { example }, doc }
}

const fn optional(path: &'static str, kind: Kind, example: &'static str, doc: &'static str) -> Key {
    Key { path, kind, presence: Presence::Optional { example }, doc }
}

const fn either(
    path: &'static str,
    other: &'static str,
    kind: Kind,
    example: &'static str,
    doc: &'static str,
) -> Key {
    Key { path, kind, presence: Presence::Either { other, example }, doc }
}

const fn default(path: &'static str, kind: Kind, value: &'static str, doc: &'static str) -> Key {
    Key { path, kind, presence: Presence::Default(value), doc }
}

/// Sections in the order of the reference file.
pub const SECTIONS: &[Section] = &[
    Section { path: "", required: true, doc: "One migration." },
    Section { path: "database", required: true, doc: "Where the table is and how it is written." },
    Section { path: "source", required: true, doc: "Where changes come from." },
    Section {
        path: "source.connect",
        required: false,
        doc: "Kafka Connect, asked whether the connector's task runs.",
    },
    Section {
        path: "source.properties",
        required: false,
        doc: "Further librdkafka properties, such as TLS and SASL. All values are secrets.",
    },
    Section {
        path: "source.properties_files",
        required: false,
        doc: "The same, each value read from a file: a mounted secret.",
    },
    Section { path: "table", required: true, doc: "The table that changes; exactly one." },
    Section {
        path: "table.*",
        required: true,
        doc: "Named \"schema.name\", as the catalog spells it, in quotes.",
    },
    Section { path: "table.*.up", required: true, doc: "What each new column is made of." },
    Section { path: "table.*.up.*", required: true, doc: "The rule of one new column." },
    Section {
        path: "batch",
        required: false,
        doc: "Bulk mode: snapshot reads, and while far behind.",
    },
    Section { path: "tail", required: false, doc: "Near the head." },
    Section {
        path: "dead_letters",
        required: false,
        doc: "Rows that can never be written, set aside.",
    },
    Section { path: "gate", required: false, doc: "What must hold before a phase may end." },
    Section {
        path: "gate.caught_up",
        required: false,
        doc: "Whether the new columns keep up with the old ones.",
    },
    Section { path: "http", required: false, doc: "Status, metrics, health and gates." },
    Section { path: "worker", required: false, doc: "The process itself." },
];

/// Keys in the order of the reference file.
pub const KEYS: &[Key] = &[
    required("version", Kind::Version, "1", "Version of this file format."),
    required(
        "name",
        Kind::Name,
        "\"users-name-split\"",
        "Names the migration in the state tables; never change it half way.",
    ),
    // ---- database
    either(
        "database.url",
        "database.url_file",
        Kind::Connection,
        "\"${DATABASE_URL}\"",
        "Connection string. A password comes from a variable or a file, and an \
         sslmode in it is not read: tls decides.",
    ),
    either(
        "database.url_file",
        "database.url",
        Kind::File,
        "\"/run/secrets/database_url\"",
        "File with the connection string, read again at each connect.",
    ),
    default(
        "database.tls",
        Kind::Word(&["verify-full", "verify-ca", "disable"]),
        "\"verify-full\"",
        "verify-full checks the certificate and the host name, verify-ca only the certificate; \
         disable is for loopback addresses and sockets.",
    ),
    optional(
        "database.ca_file",
        Kind::File,
        "\"certs/database-ca.pem\"",
        "PEM file with the authorities to trust instead of the system's.",
    ),
    default(
        "database.writers",
        Kind::Whole { min: 1, max: 32 },
        "2",
        "Connections that write; each owns a share of the partitions.",
    ),
    default(
        "database.control_connections",
        Kind::Whole { min: 1, max: 16 },
        "4",
        "Connections for everything else: progress, gates, status.",
    ),
    default(
        "database.synchronous_commit",
        Kind::Flag,
        "true",
        "false lets the server report a commit before it is flushed; progress still counts only \
         once it is.",
    ),
    default(
        "database.connect_timeout",
        Kind::Time { min: 100, max: 5 * MINUTE },
        "\"10s\"",
        "Longest wait for one connection.",
    ),
    default(
        "database.statement_timeout",
        Kind::Time { min: 100, max: HOUR },
        "\"30s\"",
        "Longest time that one statement may take.",
    ),
    default(
        "database.lock_timeout",
        Kind::Time { min: 10, max: MINUTE },
        "\"200ms\"",
        "Longest wait for a lock; shorter than statement_timeout.",
    ),
    // ---- source
    required("source.kind", Kind::Word(&["kafka"]), "\"kafka\"", "What the source is."),
    required(
        "source.brokers",
        Kind::HostPorts,
        "\"localhost:9092\"",
        "Kafka brokers to start from, host:port with commas between.",
    ),
    required(
        "source.topic",
        Kind::Topic,
        "\"cdc.public.users\"",
        "Topic with the table's change events, as the connector names it.",
    ),
    Key {
        path: "source.group",
        kind: Kind::Text,
        presence: Presence::Derived { rule: "name", example: "\"users-name-split\"" },
        doc: "Consumer group; workers in one group share the partitions.",
    },
    Key {
        path: "source.slot",
        kind: Kind::SlotName,
        presence: Presence::Derived {
            rule: "crossfade_ and name, with - as _",
            example: "\"crossfade_users_name_split\"",
        },
        doc: "The connector's replication slot, whose confirmed position the gates read.",
    },
    Key {
        path: "source.publication",
        kind: Kind::Ident,
        presence: Presence::Derived {
            rule: "crossfade_ and name, with - as _",
            example: "\"crossfade_users_name_split\"",
        },
        doc: "The connector's publication, checked at start.",
    },
    default(
        "source.unavailable_value",
        Kind::Text,
        "\"__debezium_unavailable_value\"",
        "What the connector writes for an unchanged out-of-line value \
         (unavailable.value.placeholder).",
    ),
    default(
        "source.queue_bytes",
        // librdkafka's own bound is just under 2 GiB (`queued.max.messages.kbytes`).
        Kind::Size { min: MIB, max: 2_000 * MIB },
        "\"16MiB\"",
        "Bytes that the Kafka client may hold ahead of the worker.",
    ),
    required(
        "source.connect.url",
        Kind::HttpUrl,
        "\"http://localhost:8083\"",
        "Kafka Connect's REST address, without credentials.",
    ),
    required(
        "source.connect.connector",
        Kind::Text,
        "\"users-postgres-connector\"",
        "The connector's name there.",
    ),
    optional(
        "source.properties.*",
        Kind::Property,
        "\"${KAFKA_PASSWORD}\"",
        "A librdkafka property; those that the worker sets itself, and those that weaken TLS, are \
         refused.",
    ),
    optional(
        "source.properties_files.*",
        Kind::File,
        "\"/run/secrets/kafka_password\"",
        "File with the value of a librdkafka property, read at start.",
    ),
    // ---- table
    optional(
        "table.*.key",
        Kind::Idents,
        "[\"id\"]",
        "The primary key that the table must have; left out, the catalog's is taken.",
    ),
    required("table.*.up.*.split", Kind::Ident, "\"name\"", "The text column to split at blanks."),
    required(
        "table.*.up.*.take",
        Kind::Word(&["first", "rest", "last"]),
        "\"first\"",
        "The first word, the rest after it, or the last word; null where there is none.",
    ),
    // ---- batch
    default(
        "batch.max_rows",
        Kind::Whole { min: 1, max: 50_000 },
        "2000",
        "Rows of one statement at most.",
    ),
    default(
        "batch.max_bytes",
        Kind::Size { min: KIB, max: 64 * MIB },
        "\"1MiB\"",
        "Bytes of text of one statement at most.",
    ),
    default(
        "batch.window",
        Kind::Whole { min: 1, max: 1_000_000 },
        "8192",
        "Records gathered before they are sliced.",
    ),
    default(
        "batch.slices",
        Kind::Whole { min: 1, max: 256 },
        "8",
        "Key-hash slices of a window, written one after another.",
    ),
    default(
        "batch.target_time",
        Kind::Time { min: 1, max: 10 * SECOND },
        "\"100ms\"",
        "Statement time that the batch size is steered to.",
    ),
    default(
        "batch.bulk_above",
        Kind::Whole { min: 1, max: 1_000_000_000 },
        "5000",
        "Records behind the end of a partition at which it is written in bulk.",
    ),
    default(
        "batch.tail_below",
        Kind::Whole { min: 0, max: 1_000_000_000 },
        "500",
        "Records behind at which it is back to tailing; below bulk_above.",
    ),
    // ---- tail
    default(
        "tail.max_rows",
        Kind::Whole { min: 1, max: 50_000 },
        "500",
        "Rows of one statement at most; 1 makes it one row, one statement, one commit.",
    ),
    // ---- dead_letters
    default(
        "dead_letters.limit",
        Kind::Whole { min: 1, max: 1_000_000 },
        "1000",
        "Unresolved dead letters at which the worker stops.",
    ),
    // ---- gate
    default(
        "gate.caught_up.max_lag",
        Kind::Time { min: 100, max: HOUR },
        "\"5s\"",
        "Longest that a marker may take from the database through the source to the rows.",
    ),
    default(
        "gate.caught_up.stable_for",
        Kind::Time { min: SECOND, max: 24 * HOUR },
        "\"10s\"",
        "How long that must hold.",
    ),
    // ---- http
    default(
        "http.listen",
        Kind::Listen,
        "\"127.0.0.1:8787\"",
        "Loopback address and port, or \"off\".",
    ),
    // ---- worker
    default(
        "worker.shutdown_timeout",
        Kind::Time { min: SECOND, max: 10 * MINUTE },
        "\"25s\"",
        "How long a stop may take to drain; shorter than what the supervisor waits before it kills.",
    ),
    default(
        "worker.visibility_timeout",
        Kind::Time { min: SECOND, max: HOUR },
        "\"5m\"",
        "Longest wait for an event's transaction to become visible before the worker stops.",
    ),
    default(
        "worker.sample_every",
        Kind::Time { min: 100, max: MINUTE },
        "\"1s\"",
        "How often lag, slot and end offsets are read; at most gate.caught_up.stable_for.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_in_a_section_and_none_is_listed_twice() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(section(key.section()).is_some(), "{} has no section", key.path);
            assert!(KEYS[..index].iter().all(|other| other.path != key.path), "{}", key.path);
            assert!(key.doc.ends_with('.') && !key.doc.contains('\n'), "{}", key.path);
        }
    }

    #[test]
    fn a_section_follows_the_one_that_it_is_in() {
        for (index, below) in SECTIONS.iter().enumerate().skip(1) {
            let above = below.above();
            assert!(
                SECTIONS[..index].iter().any(|section| section.path == above),
                "{}",
                below.path
            );
        }
    }
}
