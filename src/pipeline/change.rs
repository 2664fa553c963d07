//! What comes out of a source, and what a decoder makes of it.

use crate::pg::lsn::Lsn;
use crate::pipeline::position::{DatabaseMicros, PartitionId, Position};
use crate::table::{Key, Value};

/// A record as it came, and where from. Borrowed from the source's buffer: a stage that keeps
/// something copies it.
#[derive(Debug, Clone, Copy)]
pub struct RawChange<'a> {
    pub partition: &'a PartitionId,
    pub position: Position,
    /// The message's key; absent for tables without one.
    pub key: Option<&'a [u8]>,
    /// The message's value; absent for a tombstone.
    pub value: Option<&'a [u8]>,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    Change(ChangeEvent),
    /// Moves the position and writes nothing: a tombstone, a heartbeat, a transaction mark, a
    /// message, a truncate, another table's change. Without it an idle table never catches up.
    Progress,
}

/// One row's change, reduced to the columns that the migration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeEvent {
    pub op: Op,
    pub key: Key,
    /// In the order of [`crate::table::Projection::columns`]; empty for a delete.
    pub values: Vec<Value>,
    pub origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Create,
    Update,
    Delete,
    /// Read by a snapshot, not streamed.
    Read,
}

/// Where in the database's history an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    /// The low 32 bits of the writing transaction's id; `None` for snapshot reads, whose id is the
    /// snapshot's own and says nothing of the row.
    pub xid: Option<u32>,
    /// The position of the change record, not of its commit; several rows may share one.
    pub lsn: Option<Lsn>,
    /// When the transaction committed; `None` for snapshot reads, which carry the connector's clock.
    pub committed: Option<DatabaseMicros>,
}
