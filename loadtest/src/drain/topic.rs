//! The topic that the worker drains: filled by the real connector's snapshot, then left alone.

use std::time::Duration;

use anyhow::{Context as _, bail};
use crossfade::clock::Clock;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde_json::Value;
use tokio_postgres::Client;
use tokio_postgres::types::PgLsn;

use crate::servers::{Connect, ConnectorFor};

/// A broker's answer.
const ANSWER: Duration = Duration::from_secs(5);
/// From the connector's request to a marker of ours having passed through it.
const BARRIER: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);
/// A connector does 10,000 rows a second and more, schemas on.
const SLOWEST_SNAPSHOT: u64 = 1_000;

/// Who fills the topic.
pub(crate) struct Connector<'a> {
    pub(crate) connect: &'a Connect,
    pub(crate) name: &'a str,
    pub(crate) place: ConnectorFor<'a>,
    pub(crate) schemas: bool,
}

/// Has the connector snapshot the table, and stops it once that is proven to be all.
///
/// Returns the end offset of each partition. The proof is the caught-up rule's: a logical message
/// gives an LSN, the slot confirms it, and only then the ends are read. The connector is stopped, its
/// slot stays: both contestants write under `wal_level = logical`, and neither shares the machine
/// with a connector that decodes what it writes.
pub(crate) async fn fill(
    connector: &Connector<'_>,
    client: &Client,
    brokers: &str,
    topic: &str,
    rows: u64,
    clock: &Clock,
) -> anyhow::Result<Vec<i64>> {
    let mut config = connector.place.config()?;
    for converter in ["key.converter", "value.converter"] {
        config[format!("{converter}.schemas.enable")] = Value::from(connector.schemas.to_string());
    }
    connector.connect.register(connector.name, &config).await?;

    let reader: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .context("could not make a Kafka client")?;
    let limit = Duration::from_secs(60 + rows / SLOWEST_SNAPSHOT);
    let began = clock.now();
    loop {
        // The topic is made with its first record.
        let records = ends(&reader, topic).map(|ends| ends.iter().sum()).unwrap_or(0_i64);
        if u64::try_from(records)? >= rows && snapshot_ended(client, connector.place.slot).await? {
            break;
        }
        if clock.now() - began > limit {
            bail!("the snapshot had put {records} of {rows} records into {topic} after {limit:?}");
        }
        tokio::time::sleep(LOOK).await;
    }

    await_barrier(client, connector.place.slot, clock).await?;
    let ends = ends(&reader, topic)?;
    if u64::try_from(ends.iter().sum::<i64>())? != rows {
        bail!("{topic} has {} records for {rows} rows", ends.iter().sum::<i64>());
    }
    connector.connect.stop(connector.name).await?;
    let began = clock.now();
    while slot_is_active(client, connector.place.slot).await? {
        if clock.now() - began > BARRIER {
            bail!("slot \"{}\" stays in use after the connector was stopped", connector.place.slot);
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(ends)
}

/// Whether the connector streams and no transaction is open: the snapshot's would keep every dead
/// version of a row from being pruned.
async fn snapshot_ended(client: &Client, slot: &str) -> anyhow::Result<bool> {
    if !slot_is_active(client, slot).await? {
        return Ok(false);
    }
    let row = client
        .query_one(
            "SELECT count(*) FROM pg_stat_activity
              WHERE datname = current_database() AND pid <> pg_backend_pid()
                AND backend_type = 'client backend'
                AND (xact_start IS NOT NULL OR backend_xmin IS NOT NULL)",
            &[],
        )
        .await?;
    Ok(row.get::<_, i64>(0) == 0)
}

async fn slot_is_active(client: &Client, slot: &str) -> anyhow::Result<bool> {
    let row = client
        .query_opt("SELECT active FROM pg_replication_slots WHERE slot_name = $1", &[&slot])
        .await
        .context("could not read the slot")?;
    Ok(row.is_some_and(|row| row.get(0)))
}

async fn await_barrier(client: &Client, slot: &str, clock: &Clock) -> anyhow::Result<()> {
    let barrier: PgLsn = client
        .query_one("SELECT pg_logical_emit_message(false, 'drain', 'barrier')", &[])
        .await
        .context("could not write the barrier")?
        .get(0);
    let began = clock.now();
    loop {
        let passed = client
            .query_one(
                "SELECT coalesce(bool_or(confirmed_flush_lsn >= $2), false)
                   FROM pg_replication_slots WHERE slot_name = $1",
                &[&slot, &barrier],
            )
            .await
            .context("could not read the slot")?;
        if passed.get(0) {
            return Ok(());
        }
        if clock.now() - began > BARRIER {
            bail!("slot \"{slot}\" has not confirmed the barrier at {barrier} after {BARRIER:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The end offset of each partition, in their order.
fn ends(reader: &BaseConsumer, topic: &str) -> anyhow::Result<Vec<i64>> {
    let metadata = reader.fetch_metadata(Some(topic), ANSWER).context("no broker answers")?;
    let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    (0..i32::try_from(partitions)?)
        .map(|partition| {
            let (_, end) = reader
                .fetch_watermarks(topic, partition, ANSWER)
                .with_context(|| format!("could not read the end of {topic}/{partition}"))?;
            Ok(end)
        })
        .collect()
}
