//! A batch's rows as array parameters, one a column.

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::postgres::SinkError;
use super::statement;
use crate::table::{Key, Projection, Value};

/// One array parameter.
pub(crate) enum Array<'a> {
    Uuid(Vec<Uuid>),
    Text(Vec<Option<&'a str>>),
}

impl Array<'_> {
    pub(crate) fn as_sql(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Uuid(values) => values,
            Self::Text(values) => values,
        }
    }
}

/// The key columns of rows, each an array.
///
/// # Errors
///
/// [`SinkError::Key`] when a text is no value of a uuid key: the event belongs to another table.
pub(crate) fn keys<'a>(
    projection: &Projection,
    keys: &[&'a Key],
) -> Result<Vec<Array<'a>>, SinkError> {
    let column = |(index, column)| match statement::key_array(column) {
        "uuid[]" => keys
            .iter()
            .map(|key| Uuid::parse_str(key.part(index)).map_err(|_| SinkError::Key))
            .collect::<Result<_, _>>()
            .map(Array::Uuid),
        _ => Ok(Array::Text(keys.iter().map(|key| Some(key.part(index))).collect())),
    };
    projection.table.key_columns().enumerate().map(column).collect()
}

/// One column of values as an array.
///
/// # Panics
///
/// On an unknown value: those are read from the table before a batch is written.
pub(crate) fn values<'a>(values: impl Iterator<Item = &'a Value>) -> Array<'a> {
    Array::Text(values.map(Value::known).collect())
}
