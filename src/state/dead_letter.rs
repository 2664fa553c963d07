//! Records and rows that could not be applied: pointers and reasons, never values.

use tokio_postgres::Client;

use super::{StateError, sql};

/// Adds dead letters of one partition. One that comes back is open again, resolved or not.
///
/// `$1` migration, `$2` topic, `$3` partition, then arrays of position, key hash, reason, detail.
pub(crate) const INSERT: &str =
    "INSERT INTO crossfade.dead_letter (migration, topic, partition, position, key_hash, reason, detail)
     SELECT $1, $2, $3, v.position, v.key_hash, v.reason, v.detail
       FROM unnest($4::bigint[], $5::text[], $6::text[], $7::text[])
         AS v(position, key_hash, reason, detail)
     ON CONFLICT (migration, topic, partition, position) DO UPDATE
        SET key_hash = excluded.key_hash, reason = excluded.reason, detail = excluded.detail,
            found_at = clock_timestamp(), resolved_at = NULL, resolution = NULL";

/// How many dead letters of the migration nobody has resolved.
pub async fn open(client: &Client, migration: &str) -> Result<u64, StateError> {
    let row = client
        .query_one(
            "SELECT count(*) FROM crossfade.dead_letter WHERE migration = $1 AND resolved_at IS NULL",
            &[&migration],
        )
        .await
        .map_err(sql("count dead letters"))?;
    Ok(u64::try_from(row.get::<_, i64>(0)).expect("a count is not negative"))
}
