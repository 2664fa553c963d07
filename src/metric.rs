//! Every metric: its name, type, unit, labels and meaning, and the functions that emit it.
//!
//! A leaf, so that the data plane can count without knowing who serves the numbers; the recorder is
//! `ops::metrics`. Call these once a batch or a sample, never once a row. Labels are bounded: a
//! partition, an outcome, a reason, never a key or a value.
//!
//! Counters are emitted where the event happens. Gauges come from [`Progress`] alone, so they agree
//! with `/v1/status`. What is unknown is not set, and the recorder drops a gauge that is no longer
//! set: a partition that another worker took over, or a lag that nobody can read, is *absent*. Zero
//! would open somebody's gate, and NaN would spoil every sum over the fleet.

use std::time::{Duration, Instant};

use metrics::{counter, gauge, histogram};

use crate::pipeline::progress::{Mode, Progress, WorkerState};

/// One metric as it is exposed.
#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub labels: &'static [&'static str],
    /// One sentence, also the `HELP` line and the meaning in `docs/metrics.md`.
    pub help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets, in the metric's unit.
    Histogram(&'static [f64]),
}

impl Kind {
    /// The word of the Prometheus text format.
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// Base units only, as Prometheus asks; the name carries them too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    Bytes,
    Count,
    /// 0 or 1.
    Flag,
}

impl Unit {
    pub fn word(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::Count => "count",
            Self::Flag => "0 or 1",
        }
    }
}

/// Statements are steered to some tens of milliseconds; the ends catch a tail write of one row and
/// the statement time-out.
const STATEMENT_BUCKETS: &[f64] =
    &[0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

/// From a tailing worker's milliseconds to a backlog of a day.
const LAG_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0,
    86400.0,
];

/// One row to the largest batch that the settings allow.
const ROWS_BUCKETS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 2.5e4, 5e4];

macro_rules! metrics_table {
    ($($constant:ident = $name:literal, $kind:expr, $unit:ident, [$($label:literal),*], $help:literal;)*) => {
        $(pub const $constant: Metric = Metric {
            name: $name,
            kind: $kind,
            unit: Unit::$unit,
            labels: &[$($label),*],
            help: $help,
        };)*

        /// Every metric, in the order of `docs/metrics.md`.
        pub const ALL: &[&Metric] = &[$(&$constant),*];
    };
}

metrics_table! {
    LAG_SECONDS = "crossfade_lag_seconds", Kind::Gauge, Seconds, ["partition"],
        "Age of the last applied event by the database's clock while records wait, zero at the end";
    LAG_RECORDS = "crossfade_lag_records", Kind::Gauge, Count, ["partition"],
        "Records between the committed position and the end of the partition";
    ROWS_REMAINING = "crossfade_rows_remaining", Kind::Gauge, Count, [],
        "Records before the end offsets of all partitions of this worker, absent while one is unknown";
    LAG_BYTES = "crossfade_lag_bytes", Kind::Gauge, Bytes, [],
        "WAL that the connector has not confirmed";
    SLOT_RETAINED_BYTES = "crossfade_slot_retained_bytes", Kind::Gauge, Bytes, [],
        "WAL that the replication slot keeps on the server's disk";
    SLOT_ACTIVE = "crossfade_slot_active", Kind::Gauge, Flag, [],
        "Whether a connector is connected to the replication slot";
    RECORDS_TOTAL = "crossfade_records_total", Kind::Counter, Count, [],
        "Records read from the source";
    ROWS_TOTAL = "crossfade_rows_total", Kind::Counter, Count, ["outcome"],
        "Rows by what became of them";
    BATCH_ROWS = "crossfade_batch_rows", Kind::Histogram(ROWS_BUCKETS), Count, ["mode"],
        "Rows sent in one statement";
    STATEMENT_SECONDS = "crossfade_statement_seconds", Kind::Histogram(STATEMENT_BUCKETS), Seconds, ["mode"],
        "Time from sending a batch to the last reply";
    APPLY_LAG_SECONDS = "crossfade_apply_lag_seconds", Kind::Histogram(LAG_BUCKETS), Seconds, [],
        "Time from the commit of an event to our commit, both by the database's clock";
    RETRIES_TOTAL = "crossfade_retries_total", Kind::Counter, Count, ["reason"],
        "Batches tried again";
    RECONNECTS_TOTAL = "crossfade_reconnects_total", Kind::Counter, Count, ["peer"],
        "Connections opened again after one was lost";
    MODE_BULK = "crossfade_mode_bulk", Kind::Gauge, Flag, ["partition"],
        "Whether the partition is written in bulk (1) or tailed (0)";
    PARTITIONS_PAUSED = "crossfade_partitions_paused", Kind::Gauge, Count, [],
        "Partitions that are not fetched for now";
    THROTTLED = "crossfade_throttled", Kind::Gauge, Flag, [],
        "Whether the worker writes less than it could";
    SOURCE_GAP = "crossfade_source_gap", Kind::Gauge, Count, [],
        "Reasons to believe that the source lost events";
    DEAD_LETTERS_OPEN = "crossfade_dead_letters_open", Kind::Gauge, Count, [],
        "Unresolved dead letters of the migration, all workers together";
    SAMPLE_AGE_SECONDS = "crossfade_sample_age_seconds", Kind::Gauge, Seconds, [],
        "Time since the figures that need a round trip were last read";
    WORKER_STATE = "crossfade_worker_state", Kind::Gauge, Flag, ["state"],
        "1 for the state that the worker is in, 0 for the others";
    BUILD_INFO = "crossfade_build_info", Kind::Gauge, Flag, ["version"],
        "Always 1; the label tells the build";
}

/// What became of a row or of the record that named it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A statement changed it.
    Written,
    /// It already had the values.
    Equal,
    /// Its sources had changed since the event.
    Newer,
    /// It no longer exists.
    Deleted,
    /// It was read by key, because the event did not say all.
    Reread,
    /// It was parked as a dead letter.
    Dead,
    /// The event already carried what would have been written.
    Echo,
}

impl Outcome {
    pub const ALL: [Self; 7] = [
        Self::Written,
        Self::Equal,
        Self::Newer,
        Self::Deleted,
        Self::Reread,
        Self::Dead,
        Self::Echo,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Equal => "equal",
            Self::Newer => "newer",
            Self::Deleted => "deleted",
            Self::Reread => "reread",
            Self::Dead => "dead",
            Self::Echo => "echo",
        }
    }
}

/// Why a batch was tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// SQLSTATE 40P01.
    Deadlock,
    /// SQLSTATE 40001.
    Serialization,
    /// SQLSTATE 55P03.
    LockTimeout,
    /// SQLSTATE 57014.
    Canceled,
    /// The connection was lost; whether the batch committed is read back.
    Connection,
    /// The server is full, starting, stopping or no longer the primary.
    Unavailable,
    /// The batch waits until its transactions are visible.
    NotVisible,
    Other,
}

impl Retry {
    pub const ALL: [Self; 8] = [
        Self::Deadlock,
        Self::Serialization,
        Self::LockTimeout,
        Self::Canceled,
        Self::Connection,
        Self::Unavailable,
        Self::NotVisible,
        Self::Other,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::Deadlock => "deadlock",
            Self::Serialization => "serialization",
            Self::LockTimeout => "lock_timeout",
            Self::Canceled => "canceled",
            Self::Connection => "connection",
            Self::Unavailable => "unavailable",
            Self::NotVisible => "not_visible",
            Self::Other => "other",
        }
    }
}

/// The far end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Database,
    Source,
}

impl Peer {
    pub const ALL: [Self; 2] = [Self::Database, Self::Source];

    pub fn word(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Source => "source",
        }
    }
}

/// The word of a mode in labels, status and the terminal.
pub fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Bulk => "bulk",
        Mode::Tail => "tail",
    }
}

/// Every state of a worker.
pub const STATES: [WorkerState; 5] = [
    WorkerState::Starting,
    WorkerState::Running,
    WorkerState::Draining,
    WorkerState::Stopped,
    WorkerState::Failed,
];

/// The word of a state in labels, status and the terminal.
pub fn state_word(state: WorkerState) -> &'static str {
    match state {
        WorkerState::Starting => "starting",
        WorkerState::Running => "running",
        WorkerState::Draining => "draining",
        WorkerState::Stopped => "stopped",
        WorkerState::Failed => "failed",
    }
}

/// Counts records read from the source.
pub fn records(count: u64) {
    counter!(RECORDS_TOTAL.name).increment(count);
}

/// Counts rows of a batch that had the same outcome; zero makes the series appear.
pub fn rows(outcome: Outcome, count: u64) {
    counter!(ROWS_TOTAL.name, "outcome" => outcome.word()).increment(count);
}

/// Records one durable batch: `rows` in its statement, `statement` from sending it to the last
/// reply.
pub fn batch_written(mode: Mode, rows: usize, statement: Duration) {
    histogram!(BATCH_ROWS.name, "mode" => mode_word(mode)).record(rows as f64);
    histogram!(STATEMENT_SECONDS.name, "mode" => mode_word(mode)).record(statement);
}

/// Records the time from an event's commit to ours, once a batch, for its oldest streamed event.
/// Both readings by the database's clock.
pub fn apply_lag(seconds: f64) {
    histogram!(APPLY_LAG_SECONDS.name).record(seconds);
}

/// Counts a batch that is tried again.
pub fn retry(reason: Retry) {
    retries(reason, 1);
}

/// Counts batches that are tried again for the same reason; zero makes the series appear.
pub fn retries(reason: Retry, count: u64) {
    counter!(RETRIES_TOTAL.name, "reason" => reason.word()).increment(count);
}

/// Counts a connection that was opened again.
pub fn reconnect(peer: Peer) {
    counter!(RECONNECTS_TOTAL.name, "peer" => peer.word()).increment(1);
}

/// Sets the number of partitions that are not fetched for now. Repeat it with every sample: a gauge
/// that is not set again is dropped.
pub fn partitions_paused(count: usize) {
    gauge!(PARTITIONS_PAUSED.name).set(count as f64);
}

/// Sets the gauges from a sample; `now` is a reading of the clock that stamped it.
pub fn publish(progress: &Progress, now: Instant) {
    for (id, partition) in &progress.partitions {
        let label = id.to_string();
        if let Some(lag) = partition.lag_seconds {
            gauge!(LAG_SECONDS.name, "partition" => label.clone()).set(lag);
        }
        if let Some(records) = partition.lag_records() {
            gauge!(LAG_RECORDS.name, "partition" => label.clone()).set(records as f64);
        }
        let bulk = partition.mode == Mode::Bulk;
        gauge!(MODE_BULK.name, "partition" => label).set(flag(bulk));
    }
    if let Some(remaining) = remaining(progress) {
        gauge!(ROWS_REMAINING.name).set(remaining as f64);
    }
    if let Some(slot) = progress.slot {
        gauge!(LAG_BYTES.name).set(slot.lag_bytes as f64);
        gauge!(SLOT_RETAINED_BYTES.name).set(slot.retained_bytes as f64);
        gauge!(SLOT_ACTIVE.name).set(flag(slot.active));
    }
    if let Some(sampled) = progress.sampled {
        let age = now.saturating_duration_since(sampled);
        gauge!(SAMPLE_AGE_SECONDS.name).set(age.as_secs_f64());
        gauge!(DEAD_LETTERS_OPEN.name).set(progress.dead_letters_open as f64);
    }
    gauge!(SOURCE_GAP.name).set(progress.source_gaps.len() as f64);
    gauge!(THROTTLED.name).set(flag(progress.throttled.is_some()));
    for state in STATES {
        let here = state == progress.state;
        gauge!(WORKER_STATE.name, "state" => state_word(state)).set(flag(here));
    }
    gauge!(BUILD_INFO.name, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// Records before the end offsets of all partitions of this worker; `None` while it owns none or
/// the end of one is unknown.
pub fn remaining(progress: &Progress) -> Option<u64> {
    if progress.partitions.is_empty() {
        return None;
    }
    let behind: Option<Vec<u64>> =
        progress.partitions.values().map(|partition| partition.lag_records()).collect();
    behind.map(|behind| behind.iter().sum())
}

/// The largest lag of all partitions of this worker; `None` while it owns none or the lag of one is
/// unknown.
pub fn worst_lag_seconds(progress: &Progress) -> Option<f64> {
    let lags: Option<Vec<f64>> =
        progress.partitions.values().map(|partition| partition.lag_seconds).collect();
    lags?.into_iter().reduce(f64::max)
}

fn flag(yes: bool) -> f64 {
    if yes { 1.0 } else { 0.0 }
}
