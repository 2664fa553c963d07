//! Reads a table's description from the catalog.

use tokio_postgres::{Client, Row};

use crate::pg::connect::Code;
use crate::pg::ident::{Ident, IdentError};
use crate::table::{Column, ColumnType, Equality, ReplicaIdentity, Table, TypeKind};

/// Why a table cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("there is no table {schema}.{name}")]
    NoTable { schema: Ident, name: Ident },
    #[error("{schema}.{name} is {kind}, not a table with rows of its own")]
    NotATable { schema: Ident, name: Ident, kind: &'static str },
    #[error("table {schema}.{name} has no primary key")]
    NoKey { schema: Ident, name: Ident },
    #[error("the catalog holds a name that cannot be used")]
    Name(#[from] IdentError),
    #[error("could not read the catalog ({code})")]
    Sql { code: Code },
}

impl CatalogError {
    /// What repairs it, as a statement where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoTable { schema, name } => Some(format!(
                "Check [table.\"{}.{}\"], and the database that database.url names.",
                schema.as_str(),
                name.as_str()
            )),
            Self::NoKey { schema, name } => {
                Some(format!("ALTER TABLE {schema}.{name} ADD PRIMARY KEY (…);"))
            }
            Self::NotATable { .. } | Self::Name(_) | Self::Sql { .. } => None,
        }
    }
}

fn sql(error: tokio_postgres::Error) -> CatalogError {
    CatalogError::Sql { code: Code::of(&error) }
}

/// Describes the table of that name; a missing primary key is an error, since events could not be
/// matched to rows.
pub async fn table(client: &Client, schema: &Ident, name: &Ident) -> Result<Table, CatalogError> {
    let row = client
        .query_opt(
            "SELECT c.oid, c.relkind::text, c.relreplident::text
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE n.nspname = $1 AND c.relname = $2",
            &[&schema.as_str(), &name.as_str()],
        )
        .await
        .map_err(sql)?
        .ok_or_else(|| CatalogError::NoTable { schema: schema.clone(), name: name.clone() })?;
    let oid: u32 = row.get(0);
    let not_a_table =
        |kind| CatalogError::NotATable { schema: schema.clone(), name: name.clone(), kind };
    match row.get::<_, &str>(1) {
        "r" | "p" => {}
        "v" => return Err(not_a_table("a view")),
        "m" => return Err(not_a_table("a materialised view")),
        "f" => return Err(not_a_table("a foreign table")),
        _ => return Err(not_a_table("something else")),
    }
    let identity = match row.get::<_, &str>(2) {
        "f" => ReplicaIdentity::Full,
        "n" => ReplicaIdentity::Nothing,
        "i" => ReplicaIdentity::Index,
        _ => ReplicaIdentity::Default,
    };

    // A domain is followed to the type below it: its values travel as that type's.
    let rows = client
        .query(
            "WITH RECURSIVE base(attnum, typ) AS (
                 SELECT attnum, atttypid FROM pg_attribute
                  WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
                 UNION ALL
                 SELECT b.attnum, t.typbasetype FROM base b JOIN pg_type t ON t.oid = b.typ
                  WHERE t.typtype = 'd')
             SELECT a.attname::text, a.atttypid, a.atttypmod, format_type(a.atttypid, a.atttypmod),
                    format_type(a.atttypid, -1), b.typ, a.attnotnull, a.atthasdef,
                    a.attgenerated <> '', coalesce(l.collisdeterministic, true),
                    a.attnum
               FROM pg_attribute a
               JOIN base b USING (attnum) JOIN pg_type t ON t.oid = b.typ AND t.typtype <> 'd'
               LEFT JOIN pg_collation l ON l.oid = a.attcollation
              WHERE a.attrelid = $1 ORDER BY a.attnum",
            &[&oid],
        )
        .await
        .map_err(sql)?;
    let columns = rows.iter().map(column).collect::<Result<Vec<_>, _>>()?;
    let numbers: Vec<i16> = rows.iter().map(|row| row.get(10)).collect();

    let key = client
        .query(
            "SELECT k.attnum FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place)
              WHERE i.indrelid = $1 AND i.indisprimary AND k.place <= i.indnkeyatts ORDER BY k.place",
            &[&oid],
        )
        .await
        .map_err(sql)?;
    let key: Vec<usize> = key
        .iter()
        .map(|row| {
            let number: i16 = row.get(0);
            numbers.iter().position(|n| *n == number).expect("a key column is a column")
        })
        .collect();
    if key.is_empty() {
        return Err(CatalogError::NoKey { schema: schema.clone(), name: name.clone() });
    }
    Ok(Table { oid, schema: schema.clone(), name: name.clone(), columns, key, identity })
}

fn column(row: &Row) -> Result<Column, CatalogError> {
    let base: u32 = row.get(5);
    let kind = kind(base);
    let deterministic: bool = row.get(9);
    Ok(Column {
        name: Ident::new(row.get(0))?,
        ty: ColumnType {
            oid: row.get(1),
            typmod: row.get(2),
            sql: row.get(3),
            cast: if rounds(base) { row.get(3) } else { row.get(4) },
            kind,
            equality: equality(base, deterministic),
        },
        not_null: row.get(6),
        has_default: row.get(7),
        generated: row.get(8),
    })
}

/// By the oids of `pg_type.dat`, which never change.
fn kind(base: u32) -> TypeKind {
    match base {
        16 => TypeKind::Bool,
        20 | 21 | 23 => TypeKind::Integer,
        25 | 1042 | 1043 => TypeKind::Text,
        2950 => TypeKind::Uuid,
        _ => TypeKind::Other,
    }
}

/// numeric, time, timestamp, timestamptz, interval, timetz: a modifier limits the digits kept.
fn rounds(base: u32) -> bool {
    matches!(base, 1700 | 1083 | 1114 | 1184 | 1186 | 1266)
}

/// Types whose `=` means the same representation; a numeric's does not (`1.0 = 1.00`), a json has
/// none.
fn equality(base: u32, deterministic: bool) -> Equality {
    match base {
        // bool, bytea, int8, int2, int4, uuid, date, time, timestamp, timestamptz, jsonb
        16 | 17 | 20 | 21 | 23 | 2950 | 1082 | 1083 | 1114 | 1184 | 3802 => Equality::Operator,
        // text, varchar, and char(n), where trailing blanks mean nothing: identity unless the
        // collation equates different texts
        25 | 1042 | 1043 if deterministic => Equality::Operator,
        _ => Equality::Image,
    }
}
