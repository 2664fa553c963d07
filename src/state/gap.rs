//! Times at which the source may have lost something.

use tokio_postgres::{Client, GenericClient};

use super::{StateError, sql};
use crate::pg::ident::Ident;

/// Why the source no longer proves that nothing was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gap {
    /// The log starts after what would be read next: retention was faster than we.
    Expired { next: i64, low: i64 },
    /// The log ends before what is already accounted for: it was re-created or cut.
    Cut { next: i64, high: i64 },
    /// Another record stands where the last one stood.
    OtherRecord { position: i64 },
    /// The record at the position is gone, so nothing shows that this is the same log.
    NoRecord { position: i64, found: i64 },
    /// The position was stored for another database, timeline or cluster.
    OtherSource { stored: String, now: String },
    /// A person moved the position forward.
    Rewound { from: i64, to: i64 },
    /// The replication slot is gone, or the server threw away WAL that it needed.
    Slot { slot: String, state: &'static str },
}

impl Gap {
    /// The stable code in the table.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Expired { .. } => "expired",
            Self::Cut { .. } => "cut",
            Self::OtherRecord { .. } => "other_record",
            Self::NoRecord { .. } => "no_record",
            Self::OtherSource { .. } => "other_source",
            Self::Rewound { .. } => "rewound_forward",
            Self::Slot { .. } => "slot",
        }
    }

    /// What was found, in words for a person; no row values.
    pub fn detail(&self) -> String {
        match self {
            Self::Expired { next, low } => {
                format!(
                    "offset {next} was next, the log starts at {low}: {} records expired",
                    low - next
                )
            }
            Self::Cut { next, high } => format!("offset {next} was next, the log ends at {high}"),
            Self::OtherRecord { position } => format!("offset {position} holds another record"),
            Self::NoRecord { position, found } => {
                format!("offset {position} is gone from the middle of the log, {found} follows")
            }
            Self::OtherSource { stored, now } => {
                format!("progress was made on {stored}, this is {now}")
            }
            Self::Rewound { from, to } => format!("moved by hand from {from} forward to {to}"),
            Self::Slot { slot, state } => format!("replication slot \"{slot}\" {state}"),
        }
    }
}

/// Records a gap, once as long as the same one is open; without a partition it concerns all of them.
pub async fn record(
    client: &impl GenericClient,
    migration: &str,
    topic: &str,
    partition: Option<i32>,
    gap: &Gap,
) -> Result<(), StateError> {
    client
        .execute(
            "INSERT INTO crossfade.source_gap (migration, topic, partition, reason, detail)
             SELECT $1, $2, $3, $4, $5 WHERE NOT EXISTS (
                 SELECT FROM crossfade.source_gap WHERE migration = $1 AND topic = $2
                    AND partition IS NOT DISTINCT FROM $3 AND reason = $4 AND detail = $5 AND healed_at IS NULL)",
            &[&migration, &topic, &partition, &gap.reason(), &gap.detail()],
        )
        .await
        .map_err(sql("record a source gap"))?;
    Ok(())
}

/// Records a gap when the connector's slot has lost WAL, or is gone after it had been there.
///
/// A slot that is dropped and created again between two looks is not noticed here: PostgreSQL gives
/// slots no identity. The connector's `offset.mismatch.strategy = trust_offset` refuses that one.
pub async fn watch_slot(client: &Client, migration: &str, slot: &Ident) -> Result<(), StateError> {
    let row = client
        .query_one(
            "SELECT m.slot_seen = $2, s.wal_status
               FROM crossfade.migration m LEFT JOIN pg_replication_slots s ON s.slot_name = $2
              WHERE m.name = $1",
            &[&migration, &slot.as_str()],
        )
        .await
        .map_err(sql("look at the slot"))?;
    let seen = row.get::<_, Option<bool>>(0).unwrap_or(false);
    let state = match (seen, row.get::<_, Option<&str>>(1)) {
        (_, Some("lost")) => "has lost WAL that the connector needs",
        (true, None) => "is gone",
        (false, None) | (true, Some(_)) => return Ok(()),
        (false, Some(_)) => {
            client
                .execute(
                    "UPDATE crossfade.migration SET slot_seen = $2 WHERE name = $1",
                    &[&migration, &slot.as_str()],
                )
                .await
                .map_err(sql("remember the slot"))?;
            return Ok(());
        }
    };
    let gap = Gap::Slot { slot: slot.as_str().to_owned(), state };
    record(client, migration, slot.as_str(), None, &gap).await
}

/// The open gaps, oldest first, each in one line.
pub async fn open(client: &Client, migration: &str) -> Result<Vec<String>, StateError> {
    let rows = client
        .query(
            "SELECT format('%s since %s: %s', concat_ws('/', topic, partition), found_at::timestamptz(0), detail)
               FROM crossfade.source_gap WHERE migration = $1 AND healed_at IS NULL ORDER BY id",
            &[&migration],
        )
        .await
        .map_err(sql("read source gaps"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
