//! Tables as the catalog would describe them, for tests, benches and fuzzing: no database needed.

use super::{Column, ColumnType, Equality, Projection, ReplicaIdentity, Table, TypeKind};
use crate::pg::ident::Ident;

/// A nullable column without a default, of a usual type of that kind.
///
/// # Panics
///
/// On a name that PostgreSQL could not hold.
pub fn column(name: &str, kind: TypeKind) -> Column {
    let sql = match kind {
        TypeKind::Bool => "boolean",
        TypeKind::Integer => "bigint",
        TypeKind::Text => "text",
        TypeKind::Uuid => "uuid",
        TypeKind::Other => "bytea",
    };
    Column {
        name: Ident::new(name).expect("a sample's name is an identifier"),
        ty: ColumnType {
            oid: 0,
            typmod: -1,
            sql: sql.into(),
            cast: sql.into(),
            kind,
            equality: Equality::Operator,
        },
        not_null: false,
        has_default: false,
        generated: false,
    }
}

/// The same, NOT NULL.
pub fn required(name: &str, kind: TypeKind) -> Column {
    Column { not_null: true, ..column(name, kind) }
}

/// `public.users` with these columns; `key` holds indexes of them.
pub fn users(columns: Vec<Column>, key: &[usize]) -> Table {
    Table {
        oid: 0,
        schema: Ident::new("public").expect("an identifier"),
        name: Ident::new("users").expect("an identifier"),
        columns,
        key: key.to_vec(),
        identity: ReplicaIdentity::Default,
    }
}

/// What a migration reads and writes of [`users`]; all but `columns` hold indexes of them.
pub fn projection(
    columns: Vec<Column>,
    key: &[usize],
    sources: &[usize],
    targets: &[usize],
) -> Projection {
    let table = users(columns, key).into();
    Projection { table, sources: sources.to_vec(), targets: targets.to_vec() }
}
