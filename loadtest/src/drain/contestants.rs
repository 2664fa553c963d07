//! Three ways to fill the new columns, each timed to the same end: every row committed and flushed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use crossfade::clock::Clock;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use tokio_postgres::Client;

use super::process::{self, Machine};
use super::settings::WorkerFile;
use super::table::{self, Cost, Users};
use crate::worker::{Worker, last_lines};

/// Between two looks at the stored positions: the resolution of the worker's time.
const LOOK: Duration = Duration::from_millis(20);
/// Slower than this and something is wrong: even the per-row consumer does a thousand a second.
const SLOWEST_ROWS_PER_SECOND: u64 = 500;

/// Where the contest takes place; the same for all.
pub(crate) struct Arena {
    pub(crate) users: Users,
    pub(crate) server: String,
    pub(crate) database: String,
    pub(crate) brokers: String,
    pub(crate) topic: String,
    /// The end offset of each partition, read after the barrier came through.
    pub(crate) ends: Vec<i64>,
    pub(crate) rows: u64,
    pub(crate) clock: Clock,
}

/// One contest over the whole table.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) rows_per_second: f64,
    pub(crate) cost: Cost,
    /// Processor time of the server's sessions that wrote.
    pub(crate) server_us_per_row: f64,
    /// Of all processors of the machine.
    pub(crate) idle_percent: f64,
    pub(crate) mismatches: u64,
}

/// What only a process of its own has.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) peak_bytes: u64,
    pub(crate) us_per_row: f64,
    /// Until the first position was stored: start, connect, join, claim, first window.
    pub(crate) first_commit: Duration,
    /// Microseconds a row, the busiest first.
    pub(crate) threads: Vec<(String, f64)>,
}

impl Arena {
    fn limit(&self, rows: u64) -> Duration {
        Duration::from_secs(60 + rows / SLOWEST_ROWS_PER_SECOND)
    }

    fn per_row(&self, spent: Duration) -> f64 {
        spent.as_secs_f64() * 1e6 / self.rows as f64
    }
}

/// One statement over the whole table, on one connection: what the database can do when nothing has to
/// be sent to it. The split is the cheapest expression that is right for these names.
pub(crate) async fn whole_table_update(arena: &Arena) -> anyhow::Result<Outcome> {
    arena.users.restore().await?;
    let session = table::connect(&arena.server, &arena.database, "drain update").await?;
    let backend = backend(&session).await?;
    let before = arena.users.mark().await?;
    let (spent, machine) = (process::cpu(backend)?, Machine::now()?);

    let began = arena.clock.now();
    let update = session.execute(
        "UPDATE users SET first_name = split_part(name, ' ', 1),
                          last_name = nullif(split_part(name, ' ', 2), '')",
        &[],
    );
    let rows = tokio::time::timeout(arena.limit(arena.rows), update)
        .await
        .context("the whole-table UPDATE did not end in time")?
        .context("the whole-table UPDATE failed")?;
    let took = arena.clock.now() - began;

    let (idle, spent) = (Machine::now()?, process::cpu(backend)?.saturating_sub(spent));
    let wal = arena.users.wal().await?;
    if rows != arena.rows {
        bail!("the whole-table UPDATE changed {rows} rows of {}", arena.rows);
    }
    drop(session);
    Ok(Outcome {
        rows_per_second: rows as f64 / took.as_secs_f64(),
        cost: arena.users.cost(before, wal).await?,
        server_us_per_row: arena.per_row(spent),
        idle_percent: idle.idle_percent_since(machine),
        mismatches: arena.users.mismatches().await?,
    })
}

/// The worker, from the start of its process until its stored positions have reached the ends and all
/// that they rest on is flushed.
pub(crate) async fn worker(
    arena: &Arena,
    binary: &Path,
    file: &WorkerFile,
) -> anyhow::Result<(Outcome, Process)> {
    let watcher = table::connect(&arena.server, &arena.database, "drain watcher").await?;
    watcher.batch_execute("DROP SCHEMA IF EXISTS crossfade CASCADE").await?;
    arena.users.restore().await?;
    let before = arena.users.mark().await?;
    let machine = Machine::now()?;

    let began = arena.clock.now();
    let mut worker = Worker::start(binary, &file.path, &file.log, file.http).await?;
    let mut first_commit = None;
    loop {
        let waited = arena.clock.now() - began;
        worker.running().with_context(|| last_lines(&file.log))?;
        if waited > arena.limit(arena.rows) {
            bail!("the worker had not caught up after {waited:?}; {}", last_lines(&file.log));
        }
        let stored = stored_positions(&watcher).await?;
        if first_commit.is_none() && stored.values().any(|position| *position >= 0) {
            first_commit = Some(waited);
        }
        let reached = (0..)
            .zip(&arena.ends)
            .all(|(partition, end)| stored.get(&partition).copied().unwrap_or(-1) >= end - 1);
        if reached {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    // A synchronous commit flushes everything before it, whatever the worker's own setting was.
    watcher
        .batch_execute(
            "SET synchronous_commit = on;
             SELECT pg_logical_emit_message(true, 'drain', 'flush')",
        )
        .await
        .context("could not flush the log")?;
    let took = arena.clock.now() - began;

    let idle = Machine::now()?;
    let wal = arena.users.wal().await?;
    let pid = worker.pid().context("the worker has ended")?;
    let process = Process {
        peak_bytes: process::peak_memory(pid)?,
        us_per_row: arena.per_row(process::cpu(pid)?),
        first_commit: first_commit.unwrap_or(took),
        threads: process::threads(pid)?
            .into_iter()
            .map(|(name, spent)| (name, arena.per_row(spent)))
            .collect(),
    };
    let spent = sessions_of_the_worker(&watcher).await?;
    let status = worker.terminate().await?;
    if !status.success() {
        bail!("the worker stopped with {status}; {}", last_lines(&file.log));
    }
    let outcome = Outcome {
        rows_per_second: arena.rows as f64 / took.as_secs_f64(),
        cost: arena.users.cost(before, wal).await?,
        server_us_per_row: arena.per_row(spent),
        idle_percent: idle.idle_percent_since(machine),
        mismatches: arena.users.mismatches().await?,
    };
    Ok((outcome, process))
}

/// The plain consumer: one awaited UPDATE a message, each its own transaction, on one connection.
///
/// Takes `records` of the topic and returns rows a second, from the first record at hand: joining a
/// group and the first fetch would weigh on so short a stretch.
pub(crate) async fn row_by_row(arena: &Arena, records: u64) -> anyhow::Result<f64> {
    arena.users.restore().await?;
    let session = table::connect(&arena.server, &arena.database, "drain row by row").await?;
    let update = session
        .prepare("UPDATE users SET first_name = $1, last_name = $2 WHERE id = $3::text::uuid")
        .await?;
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &arena.brokers)
        .set("group.id", "drain-row-by-row")
        .set("enable.auto.commit", "false")
        .create()
        .context("could not make a consumer")?;
    let mut all = TopicPartitionList::new();
    for (number, _) in (0..).zip(&arena.ends) {
        all.add_partition_offset(&arena.topic, number, Offset::Beginning)?;
    }
    consumer.assign(&all).context("could not assign the topic")?;

    let (created, mut began, mut rows) = (arena.clock.now(), None, 0);
    while rows < records {
        if arena.clock.now() - created > arena.limit(records) {
            bail!("the row-by-row consumer had written {rows} of {records} rows in time");
        }
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.context("could not read the topic")?;
        began.get_or_insert_with(|| arena.clock.now());
        let Some(bytes) = message.payload() else { continue };
        let event: Value = serde_json::from_slice(bytes).context("a record is not JSON")?;
        let event = event.get("payload").unwrap_or(&event);
        let after = &event["after"];
        let (Some(id), Some(name)) = (after["id"].as_str(), after["name"].as_str()) else {
            bail!("a record holds no user");
        };
        let (first, last) = match name.split_once(' ') {
            Some((first, last)) => (first, Some(last)),
            None => (name, None),
        };
        rows += session.execute(&update, &[&first, &last, &id]).await?;
    }
    let took = arena.clock.now() - began.context("no record to write was asked for")?;
    Ok(rows as f64 / took.as_secs_f64())
}

async fn stored_positions(watcher: &Client) -> anyhow::Result<BTreeMap<i32, i64>> {
    let there =
        watcher.query_one("SELECT to_regclass('crossfade.progress') IS NOT NULL", &[]).await?;
    if !there.get::<_, bool>(0) {
        return Ok(BTreeMap::new());
    }
    let rows = watcher
        .query("SELECT partition, min(position) FROM crossfade.progress GROUP BY partition", &[])
        .await
        .context("could not read the stored positions")?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

async fn backend(session: &Client) -> anyhow::Result<u32> {
    let row = session.query_one("SELECT pg_backend_pid()", &[]).await?;
    Ok(u32::try_from(row.get::<_, i32>(0))?)
}

/// Processor time of the server's processes that serve the worker.
async fn sessions_of_the_worker(watcher: &Client) -> anyhow::Result<Duration> {
    let rows = watcher
        .query("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'crossfade %'", &[])
        .await
        .context("could not list the worker's sessions")?;
    let mut spent = Duration::ZERO;
    for row in rows {
        spent += process::cpu(u32::try_from(row.get::<_, i32>(0))?)?;
    }
    Ok(spent)
}
