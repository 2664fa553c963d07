//! What a batch accounts for, and the proof that it was written.

use crate::pg::lsn::Lsn;
use crate::pipeline::position::{DatabaseMicros, PartitionId, Position};

/// A share of a partition's keys, so that several connections write one partition side by side.
///
/// Lanes own disjoint keys by [`crate::table::Key::stable_hash`]. A changed count restarts from the
/// minimum of the old lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    pub index: u16,
    pub count: u16,
}

impl Lane {
    /// The one lane of a partition that is written by one connection.
    pub const ONLY: Self = Self { index: 0, count: 1 };
}

/// The stretch of a partition that a batch accounts for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    pub partition: PartitionId,
    pub lane: Lane,
    /// Exclusive: where progress must stand before the batch.
    pub from: Position,
    /// Inclusive: where progress stands after it.
    pub to: Position,
    /// Names the record at `to`, to be recognised when the source is read again.
    pub mark: Mark,
}

/// What tells one record from another at the same offset of a re-created topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    pub lsn: Option<Lsn>,
    /// A stable hash of the record's key and value bytes.
    pub digest: u64,
}

/// Rows and checkpoint of a batch are committed in one transaction, every reply seen.
///
/// Made by the sink alone.
#[derive(Debug, Clone)]
pub struct WriteReceipt {
    pub partition: PartitionId,
    pub position: Position,
    /// Rows that the statements changed.
    pub written: u64,
    /// The database's clock, read in the transaction.
    pub at: DatabaseMicros,
}
