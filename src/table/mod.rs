//! What the pipeline knows of a table: names, types and keys as values, read once from the catalog.
//!
//! Pure: `pg::catalog` fills these types, everything else reads them.

mod key;
pub mod sample;
mod value;

use std::fmt;
use std::sync::Arc;

pub use key::Key;
pub use value::Value;

use crate::pg::ident::Ident;

/// A table as the catalog describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub oid: u32,
    pub schema: Ident,
    pub name: Ident,
    /// Live columns in attribute order.
    pub columns: Vec<Column>,
    /// Indexes into `columns`: the primary key, in the key's own order. Never empty.
    pub key: Vec<usize>,
    pub identity: ReplicaIdentity,
}

impl Table {
    /// The index of a column by its catalog name; case matters.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name.as_str() == name)
    }

    /// The columns of the primary key, in the key's order.
    pub fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.key.iter().map(|&index| &self.columns[index])
    }
}

/// The quoted, qualified name.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: Ident,
    pub ty: ColumnType,
    pub not_null: bool,
    pub has_default: bool,
    pub generated: bool,
}

/// The type of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnType {
    pub oid: u32,
    pub typmod: i32,
    /// The type as `format_type` prints it with its modifier, quoted where needed: `character
    /// varying(40)`. Safe in SQL, since the server made it.
    pub sql: String,
    /// The type to cast a text to, for comparing and for assigning: with the modifier where that
    /// rounds as an assignment would (numeric, timestamp), without it where a cast would cut what an
    /// assignment refuses (varchar, bit).
    pub cast: String,
    /// The type under every domain.
    pub kind: TypeKind,
    pub equality: Equality,
}

/// The types whose JSON form in a Debezium record is known to lose nothing; all others are read
/// from the table instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TypeKind {
    Bool,
    /// smallint, integer, bigint.
    Integer,
    /// text, varchar, and char(n) with its padding.
    Text,
    Uuid,
    Other,
}

/// How two values of a type are compared so that "same" means the same representation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Equality {
    /// `IS NOT DISTINCT FROM` decides.
    Operator,
    /// The type's `=` is missing or weaker than identity (json, citext, char(n)): the record image
    /// operator `*=` decides.
    Image,
}

/// What an UPDATE or DELETE event carries of the old row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaIdentity {
    Default,
    Nothing,
    Full,
    Index,
}

/// The columns that one migration reads and writes.
///
/// Events carry their values in this order: sources first, then targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projection {
    pub table: Arc<Table>,
    /// Indexes into `table.columns`: what the transforms read.
    pub sources: Vec<usize>,
    /// Indexes into `table.columns`: what the transforms write.
    pub targets: Vec<usize>,
}

impl Projection {
    pub fn source_columns(&self) -> impl Iterator<Item = &Column> {
        self.sources.iter().map(|&index| &self.table.columns[index])
    }

    pub fn target_columns(&self) -> impl Iterator<Item = &Column> {
        self.targets.iter().map(|&index| &self.table.columns[index])
    }

    /// Sources, then targets: the order of a [`crate::pipeline::ChangeEvent`]'s values.
    pub fn columns(&self) -> impl Iterator<Item = &Column> {
        self.source_columns().chain(self.target_columns())
    }
}
