//! What the data plane tells everyone else, on a `watch` channel.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::pg::lsn::Lsn;
use crate::pipeline::position::{DatabaseMicros, PartitionId, Position};

/// The state of the local worker; a sample, never a proof.
#[derive(Debug, Clone)]
pub struct Progress {
    pub state: WorkerState,
    /// The partitions that this worker owns now.
    pub partitions: BTreeMap<PartitionId, PartitionProgress>,
    pub counters: Counters,
    /// Why the worker writes less than it could, in words for a person.
    pub throttled: Option<String>,
    /// The last reading of slot and clock; `None` until the first.
    pub slot: Option<SlotSample>,
    /// Reasons for which no gate opens until a person or a sweep has dealt with them.
    pub source_gaps: Vec<String>,
    /// Unresolved dead letters of the migration, all workers together.
    pub dead_letters_open: u64,
    /// When the figures that need a round trip were last read, by this process's clock.
    pub sampled: Option<Instant>,
    /// When a partition was last moved forward, by this process's clock.
    pub moved: Option<Instant>,
}

impl Progress {
    /// A worker that has not begun.
    pub fn starting() -> Self {
        Self {
            state: WorkerState::Starting,
            partitions: BTreeMap::new(),
            counters: Counters::default(),
            throttled: None,
            slot: None,
            source_gaps: Vec::new(),
            dead_letters_open: 0,
            sampled: None,
            moved: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    Starting,
    Running,
    Draining,
    Stopped,
    /// Stopped by an error that a person must see.
    Failed,
}

#[derive(Debug, Clone, PartialEq)]
pub struct PartitionProgress {
    /// The last position that is committed in the database.
    pub position: Position,
    /// The end offset (exclusive) when last sampled.
    pub end: Option<i64>,
    pub mode: Mode,
    /// Seconds between the database's clock and the commit time of the last streamed event, while
    /// records wait; zero at the end of the partition.
    pub lag_seconds: Option<f64>,
    /// The latest commit time among the streamed events that are written.
    pub committed: Option<DatabaseMicros>,
}

impl PartitionProgress {
    /// Records between the position and the sampled end.
    pub fn lag_records(&self) -> Option<u64> {
        let behind = self.end? - self.position.next_offset();
        Some(u64::try_from(behind).unwrap_or(0))
    }
}

/// How a partition is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Large interleaved slices: snapshot reads and catching up.
    Bulk,
    /// Whatever is queued, at once.
    Tail,
}

/// Counts since the worker started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records read from the source.
    pub records: u64,
    /// Rows that a statement changed.
    pub written: u64,
    /// Rows that already had the values.
    pub equal: u64,
    /// Rows whose sources had changed since the event.
    pub newer: u64,
    /// Rows that no longer exist.
    pub deleted: u64,
    /// Rows read by key, because the event did not say all.
    pub reread: u64,
    /// Records or rows parked as dead letters.
    pub dead: u64,
    /// Events that already carried what would have been written.
    pub echoes: u64,
    /// Batches tried again.
    pub retries: u64,
    pub batches: u64,
}

/// The capture side, as the database sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotSample {
    pub active: bool,
    /// WAL that the connector has not confirmed, in bytes.
    pub lag_bytes: u64,
    /// WAL that the slot keeps on the server's disk, in bytes.
    pub retained_bytes: u64,
    pub confirmed: Option<Lsn>,
}
