//! Which server this is: positions and transaction ids of another mean nothing.

use std::fmt;

use tokio_postgres::Client;

use crate::pg::connect::Code;

/// A cluster and its timeline; a promotion or a restore changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerIdentity {
    pub system: String,
    pub timeline: u32,
}

/// The identity could not be read.
#[derive(Debug, thiserror::Error)]
#[error("could not read the identity of the database server ({0})")]
pub struct IdentityError(pub Code);

/// Reads the identity of the primary behind this connection.
pub async fn identity(client: &Client) -> Result<ServerIdentity, IdentityError> {
    let row = client
        .query_one(
            // The timeline in the name of the present WAL file; the control file's lags behind.
            "SELECT system_identifier::text, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)
               FROM pg_control_system()",
            &[],
        )
        .await
        .map_err(|error| IdentityError(Code::of(&error)))?;
    let timeline = u32::from_str_radix(row.get(1), 16).expect("a WAL file name is hexadecimal");
    Ok(ServerIdentity { system: row.get(0), timeline })
}

impl fmt::Display for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "system {} timeline {}", self.system, self.timeline)
    }
}
