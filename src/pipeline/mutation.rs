//! What a change asks of the table.

use crate::table::{Key, Value};

/// A write of one row, to be carried out by compare-and-set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mutation {
    /// Sets the targets to `values` where the sources still are `seen` and the targets differ.
    Fill { key: Key, seen: Vec<Value>, values: Vec<Value> },
    /// The event does not say all that is needed: read the row by key, then fill it from what was
    /// read.
    Reread { key: Key },
}

impl Mutation {
    pub fn key(&self) -> &Key {
        match self {
            Self::Fill { key, .. } | Self::Reread { key } => key,
        }
    }

    /// Bytes of text that a statement would carry.
    pub fn bytes(&self) -> usize {
        let text = |value: &Value| match value {
            Value::Text(text) => text.len(),
            Value::Null | Value::Unknown => 0,
        };
        match self {
            Self::Fill { key, seen, values } => {
                key.bytes() + seen.iter().chain(values).map(text).sum::<usize>()
            }
            Self::Reread { key } => key.bytes(),
        }
    }
}

/// What a transform makes of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Mutate(Mutation),
    /// The event's own image already has what would be written: our echo, or a dual-writer's work.
    Echo {
        key: Key,
    },
    /// The row went away; nothing in the same table is left to write.
    Gone {
        key: Key,
    },
}

impl Effect {
    pub fn key(&self) -> &Key {
        match self {
            Self::Mutate(mutation) => mutation.key(),
            Self::Echo { key } | Self::Gone { key } => key,
        }
    }
}
