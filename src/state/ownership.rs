//! Who may write the target columns.

use tokio_postgres::Client;

use super::{StateError, sql};
use crate::pipeline::position::Epoch;

/// The right to write, as it was when read: every transaction checks that it still holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    pub mode: Mode,
    pub epoch: Epoch,
}

/// What the worker may do to the target columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They belong to the worker: it writes wherever they differ from what the sources give.
    Derive,
}

impl Mode {
    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Derive => "derive",
        }
    }
}

/// Reads the ownership of a registered migration; the first reader founds it as `derive`.
///
/// # Errors
///
/// [`StateError::Mode`] in a mode in which this worker has nothing to do.
pub async fn read(client: &Client, migration: &str) -> Result<Ownership, StateError> {
    client
        .execute(
            "INSERT INTO crossfade.ownership (migration, mode, epoch) VALUES ($1, 'derive', 1)
             ON CONFLICT (migration) DO NOTHING",
            &[&migration],
        )
        .await
        .map_err(sql("found the ownership"))?;
    let row = client
        .query_one(
            "SELECT mode, epoch FROM crossfade.ownership WHERE migration = $1",
            &[&migration],
        )
        .await
        .map_err(sql("read the ownership"))?;
    match row.get::<_, String>(0).as_str() {
        "derive" => Ok(Ownership { mode: Mode::Derive, epoch: Epoch(row.get(1)) }),
        other => Err(StateError::Mode { found: other.to_owned() }),
    }
}
