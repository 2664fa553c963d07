//! The typed settings: what a config file means once it is read and checked.
//!
//! Every key, its type, range and default stand in `config/reference.toml`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::secret::Secret;
use crate::pg::ident::Ident;

/// One migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Names the migration in the state tables: `[a-z0-9_-]{1,48}`.
    pub name: String,
    pub database: Database,
    pub source: Source,
    pub table: TableSettings,
    pub batch: Batch,
    pub tail: Tail,
    pub dead_letters: DeadLetters,
    pub gate: Gates,
    pub http: Http,
    pub worker: Worker,
}

/// `[database]`: where the table is and how it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    pub url: Url,
    pub tls: Tls,
    /// PEM file with the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Connections that write; each owns a share of the partitions. 1 to 32.
    pub writers: usize,
    /// Connections of the control pool. 1 to 16.
    pub control_connections: usize,
    /// `false` lets the server report a commit before it is flushed; progress still counts only
    /// once it is.
    pub synchronous_commit: bool,
    pub connect_timeout: Duration,
    pub statement_timeout: Duration,
    pub lock_timeout: Duration,
}

/// A connection string, given or read from a file at each connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Url {
    Given(Secret),
    File(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Plain text, for sockets and loopback.
    Disable,
    /// Encrypted, the certificate's chain is checked, the host name is not.
    VerifyCa,
    /// Encrypted, chain and host name are checked.
    VerifyFull,
}

/// `[source]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Kafka(KafkaSource),
}

/// `[source]` with `kind = "kafka"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaSource {
    pub brokers: String,
    pub topic: String,
    pub group: String,
    /// The connector's replication slot, whose confirmed position the gates read.
    pub slot: Ident,
    /// The connector's publication, checked at start.
    pub publication: Ident,
    /// What the connector writes for an unchanged out-of-line value (`unavailable.value.placeholder`).
    pub unavailable_value: String,
    /// Kafka Connect's REST address and the connector's name, to see that its task runs.
    pub connect: Option<Connect>,
    /// Further librdkafka properties (TLS, SASL); those that the product sets itself are refused.
    pub properties: BTreeMap<String, Secret>,
    /// The same, each value in a file of its own (`[source.properties_files]`).
    pub property_files: BTreeMap<String, PathBuf>,
    /// Bytes that librdkafka may hold ahead of us.
    pub queue_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    pub url: String,
    pub connector: String,
}

/// `[table."schema.name"]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSettings {
    pub schema: Ident,
    pub name: Ident,
    /// Asserted against the catalog's primary key where given.
    pub key: Option<Vec<Ident>>,
    /// Target column to what fills it, in the order of the file.
    pub up: Vec<(Ident, Rule)>,
}

/// What fills a target column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// `{ split = "name", take = "first" | "rest" | "last" }`
    Split { column: Ident, take: Take },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    First,
    Rest,
    Last,
}

/// `[batch]`: bulk mode, for snapshot reads and while far behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Rows of one statement at most. 1 to 50000.
    pub max_rows: usize,
    /// Bytes of text of one statement at most.
    pub max_bytes: usize,
    /// Records gathered before they are sliced. 1 to 1000000.
    pub window: usize,
    /// Key-hash slices of a window, written one after another. 1 to 256.
    pub slices: usize,
    /// Statement time that the batch size is steered to.
    pub target_time: Duration,
    /// Records behind the end of a partition at which it is written in bulk.
    pub bulk_above: u64,
    /// Records behind at which it is back to tailing.
    pub tail_below: u64,
}

/// `[tail]`: near the head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// Rows of one statement at most; 1 makes it strictly one row, one statement, one commit.
    pub max_rows: usize,
}

/// `[dead_letters]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetters {
    /// Unresolved dead letters at which the worker stops.
    pub limit: u64,
}

/// `[gate]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gates {
    pub caught_up: CaughtUpSettings,
}

/// `[gate.caught_up]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaughtUpSettings {
    /// The longest that a barrier may take from the database through the source to our own rows.
    pub max_lag: Duration,
    /// How long that must hold.
    pub stable_for: Duration,
}

/// `[http]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// `None` (`listen = "off"`) serves nothing. Loopback addresses only.
    pub listen: Option<SocketAddr>,
}

/// `[worker]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// How long a stop may take to drain.
    pub shutdown_timeout: Duration,
    /// Longest wait for an event's transaction to become visible before the worker stops.
    pub visibility_timeout: Duration,
    /// How often lag, slot and end offsets are read.
    pub sample_every: Duration,
}
