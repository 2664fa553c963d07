//! The rows in schema `crossfade` that both planes use.
//!
//! Versioned by numbered SQL files, applied at start under a lock. A version that this binary does
//! not know is refused, never guessed at.

pub mod dead_letter;
pub mod gap;
pub mod ownership;
pub mod progress;

use tokio_postgres::{Client, GenericClient};

use crate::pg::connect::Code;

/// The numbered files, oldest first; the number is the place in the list, from 1.
const VERSIONS: &[&str] = &[include_str!("sql/001_state.sql")];

/// One application at a time, in whatever database: an arbitrary constant, "crossfad" in ASCII.
const APPLY_LOCK: i64 = 0x6372_6f73_7366_6164;

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("could not {what} in schema \"crossfade\" ({code})")]
    Sql { what: &'static str, code: Code },
    #[error("schema \"crossfade\" has version {found}, this binary knows versions up to {known}")]
    Newer { found: i32, known: usize },
    #[error(
        "the migration \"{name}\" was started with another meaning (digest {stored}, now {now})"
    )]
    OtherConfig { name: String, stored: String, now: String },
    #[error("ownership of the target columns is \"{found}\", the worker only runs in \"derive\"")]
    Mode { found: String },
}

impl StateError {
    /// What an operator can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Sql { code: Code::State(state), .. } if state == "42501" => Some(
                "The role lacks rights in schema \"crossfade\", which belongs to the role that created it. \
                 Start the worker as that one."
                    .into(),
            ),
            Self::Sql { .. } => None,
            Self::Newer { .. } => Some("Run the newer binary, or the one that wrote it.".into()),
            Self::OtherConfig { .. } => Some(
                "Rows written so far follow the former rules. Give the changed migration another \
                 name, or restore the former config."
                    .into(),
            ),
            Self::Mode { .. } => Some("Services own the columns now; nothing is left to fill.".into()),
        }
    }
}

/// Names what was tried; the server's words stay out, they can hold values.
pub(crate) fn sql(what: &'static str) -> impl FnOnce(tokio_postgres::Error) -> StateError {
    move |error| StateError::Sql { what, code: Code::of(&error) }
}

/// Brings the schema to the version of this binary; returns how many files were applied.
///
/// # Errors
///
/// [`StateError::Newer`] when a later binary was here; [`StateError::Sql`] when rights are missing.
pub async fn apply(client: &mut Client) -> Result<usize, StateError> {
    let what = sql("apply the state tables");
    let work = client.transaction().await.map_err(sql("begin"))?;
    work.execute("SELECT pg_advisory_xact_lock($1)", &[&APPLY_LOCK]).await.map_err(sql("lock"))?;
    let found = version(&work).await?;
    let done = usize::try_from(found).expect("versions count from zero");
    if done > VERSIONS.len() {
        return Err(StateError::Newer { found, known: VERSIONS.len() });
    }
    let mut statements = String::new();
    if done == 0 {
        let there = work
            .query_one("SELECT to_regnamespace('crossfade') IS NOT NULL", &[])
            .await
            .map_err(sql("look for the schema"))?;
        // Asked for, since IF NOT EXISTS wants the right to create one all the same.
        if !there.get::<_, bool>(0) {
            statements.push_str("CREATE SCHEMA crossfade;");
        }
        statements.push_str(
            "CREATE TABLE crossfade.version (
                 number     integer PRIMARY KEY,
                 applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
             );",
        );
    }
    for (index, file) in VERSIONS.iter().enumerate().skip(done) {
        statements.push_str(file);
        statements.push_str(&format!("INSERT INTO crossfade.version VALUES ({});", index + 1));
    }
    work.batch_execute(&statements).await.map_err(what)?;
    work.commit().await.map_err(sql("commit the state tables"))?;
    Ok(VERSIONS.len() - done)
}

/// The stored version; zero where there is none.
async fn version(client: &impl GenericClient) -> Result<i32, StateError> {
    let there = client
        .query_one("SELECT to_regclass('crossfade.version') IS NOT NULL", &[])
        .await
        .map_err(sql("look for the state tables"))?;
    if !there.get::<_, bool>(0) {
        return Ok(0);
    }
    let row = client
        .query_one("SELECT coalesce(max(number), 0) FROM crossfade.version", &[])
        .await
        .map_err(sql("read the version"))?;
    Ok(row.get(0))
}

/// Registers the migration, or checks that it still means what it meant.
///
/// # Errors
///
/// [`StateError::OtherConfig`] when the stored digest differs: the same name must not come to mean
/// another transform.
pub async fn register(client: &Client, name: &str, digest: &str) -> Result<(), StateError> {
    // Two statements: the second one's snapshot has the row of whoever was first.
    client
        .execute(
            "INSERT INTO crossfade.migration (name, config_digest) VALUES ($1, $2)
             ON CONFLICT (name) DO NOTHING",
            &[&name, &digest],
        )
        .await
        .map_err(sql("register the migration"))?;
    let row = client
        .query_one("SELECT config_digest FROM crossfade.migration WHERE name = $1", &[&name])
        .await
        .map_err(sql("read the migration"))?;
    let stored: String = row.get(0);
    if stored != digest {
        return Err(StateError::OtherConfig { name: name.into(), stored, now: digest.into() });
    }
    Ok(())
}
