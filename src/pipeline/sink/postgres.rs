//! One writer's session: a batch and its checkpoint in one transaction and one round trip.

use std::fmt::Write as _;
use std::future::Future as _;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};

use super::params;
use super::statement;
use super::visibility::Horizon;
use crate::failpoint;
use crate::pg::connect::{Code, ConnectError, Connector};
use crate::pg::lsn::Lsn;
use crate::pg::sqlstate::Disposition;
use crate::pipeline::batch::{Batch, Streamed};
use crate::pipeline::checkpoint::WriteReceipt;
use crate::pipeline::mutation::Mutation;
use crate::pipeline::position::{DatabaseMicros, Epoch};
use crate::state::dead_letter;
use crate::state::ownership::Ownership;
use crate::table::{Key, Projection, Value};

/// Why a batch is not known to be durable. `Display` never repeats a server's message: it can hold
/// row values.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error("could not {what} table {table} ({code}{at})")]
    Sql { what: &'static str, table: String, code: Code, at: String },
    #[error("could not begin or commit a write ({code})")]
    Transaction { code: Code },
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("progress is not where the batch began")]
    Fenced,
    #[error("the ownership of the target columns has changed")]
    Ownership,
    #[error("a transaction of the batch is not visible yet")]
    NotVisible,
    #[error("a key is no value of the table's key column")]
    Key,
    #[error("the database did not answer within {} s", limit.as_secs())]
    Silent { limit: Duration },
    #[error("{rows} rows hold {bytes} bytes, more than one statement may carry")]
    TooLarge { rows: usize, bytes: usize },
}

impl SinkError {
    /// Decided here, beside the variants.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Sql { code, .. } => code.disposition(),
            Self::Connect(_) => Disposition::Reconnect,
            // Re-reading progress tells a lost commit from another owner.
            Self::Fenced | Self::Silent { .. } | Self::Transaction { .. } => Disposition::Reconnect,
            Self::Ownership => Disposition::Halt,
            Self::NotVisible => Disposition::Retry,
            Self::Key | Self::TooLarge { .. } => Disposition::Bisect,
        }
    }

    /// What an operator can do, when there is something to do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Sql { code: Code::State(state), .. } => match state.get(..2) {
                Some("42") => Some(
                    "The table or the rights of this role changed. Nothing was skipped: mend it and \
                     start the worker again.",
                ),
                _ => None,
            },
            Self::Ownership => Some("The columns belong to the services now. Nothing to repair."),
            Self::Connect(error) => Some(error.hint()),
            Self::Sql { .. }
            | Self::Fenced
            | Self::NotVisible
            | Self::Key
            | Self::Transaction { .. }
            | Self::Silent { .. }
            | Self::TooLarge { .. } => None,
        }
    }

    /// A stable word for metrics.
    pub fn label(&self) -> &str {
        match self {
            Self::Sql { code: Code::State(state), .. } => state,
            Self::Sql { .. } | Self::Connect(_) => "connection",
            Self::Fenced => "fenced",
            Self::Ownership => "ownership",
            Self::NotVisible => "not_visible",
            Self::Key => "key",
            Self::Silent { .. } => "silent",
            Self::Transaction { .. } => "transaction",
            Self::TooLarge { .. } => "too_large",
        }
    }
}

/// What every write transaction checks.
#[derive(Debug, Clone)]
pub struct Fence {
    pub migration: Arc<str>,
    pub ownership: Ownership,
    /// The partition's epoch since it was taken over.
    pub epoch: Epoch,
}

/// A row as it stands in the table now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentRow {
    /// The place of its key among those asked for.
    pub place: usize,
    /// In the projection's order.
    pub values: Vec<Value>,
}

/// Bytes of text that one statement carries at most. The protocol's own limit is a gigabyte a
/// message; the client library notices it only after BEGIN is on its way.
const MAX_STATEMENT: usize = 256 << 20;

/// A connection with all statements prepared. After an error whose outcome is unknown it is dropped.
#[derive(Debug)]
pub struct Session {
    client: Client,
    projection: Arc<Projection>,
    update: Statement,
    current: Statement,
    visible: Statement,
    dead: Statement,
    advance: Statement,
    horizon: Horizon,
}

impl Session {
    /// Connects and prepares.
    pub async fn open(
        connector: &Connector,
        projection: Arc<Projection>,
    ) -> Result<Self, SinkError> {
        let client = connector.connect().await?;
        let prepare = |error| failed("prepare statements for", &projection, &error);
        // The order matters: what had written at or before `start` has an id below `own`.
        let start: Lsn = client
            .query_one("SELECT pg_current_wal_flush_lsn()", &[])
            .await
            .map_err(prepare)?
            .get(0);
        let row = client
            .query_one(
                "SELECT pg_current_xact_id()::text::bigint,
                        pg_snapshot_xmin(pg_current_snapshot())::text::bigint",
                &[],
            )
            .await
            .map_err(prepare)?;
        let horizon = Horizon::new(start, full(&row, 0), full(&row, 1));
        let update = client.prepare(&statement::update(&projection)).await.map_err(prepare)?;
        let current = client.prepare(&statement::current(&projection)).await.map_err(prepare)?;
        let visible = client
            .prepare("SELECT crossfade.require_visible($1::bigint[])")
            .await
            .map_err(prepare)?;
        let dead = client.prepare(dead_letter::INSERT).await.map_err(prepare)?;
        let advance = client
            .prepare("SELECT crossfade.advance($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)")
            .await
            .map_err(prepare)?;
        let mut session =
            Self { client, projection, update, current, visible, dead, advance, horizon };
        session.look_at_horizon().await?;
        Ok(session)
    }

    /// Learns which transactions have ended by now.
    pub async fn look_at_horizon(&mut self) -> Result<(), SinkError> {
        let row = self
            .client
            .query_one("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint", &[])
            .await
            .map_err(|error| failed("see the transactions behind", &self.projection, &error))?;
        self.horizon.observe(full(&row, 0));
        Ok(())
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Writes a batch: `BEGIN`, the visibility gate, the rows, dead letters, ownership and progress,
    /// `COMMIT`, all sent before the first answer is awaited.
    ///
    /// Every mutation must be a fill. The batch is durable only when every reply is good: COMMIT
    /// answers without an error after an aborted transaction too.
    pub async fn write(&mut self, batch: &Batch, fence: &Fence) -> Result<WriteReceipt, SinkError> {
        let delta = &batch.delta;
        let bytes = batch.rows.iter().map(|row| row.mutation.bytes()).sum();
        if bytes > MAX_STATEMENT {
            return Err(SinkError::TooLarge { rows: batch.rows.len(), bytes });
        }
        let ask = self.must_ask(batch.rows.iter().filter_map(|row| row.xid));
        let keys: Vec<&Key> = batch.rows.iter().map(|row| row.mutation.key()).collect();
        let mut arrays = params::keys(&self.projection, &keys)?;
        let (sources, targets) = (self.projection.sources.len(), self.projection.targets.len());
        arrays.extend((0..sources).map(|index| column(batch, index, |seen, _| seen)));
        arrays.extend((0..targets).map(|index| column(batch, index, |_, values| values)));
        let arrays: Vec<&(dyn ToSql + Sync)> = arrays.iter().map(params::Array::as_sql).collect();

        let topic = &*delta.partition.topic;
        let letters = Letters::of(batch);
        let mode = fence.ownership.mode.as_str();
        let (lane, lanes) = (i32::from(delta.lane.index), i32::from(delta.lane.count));
        let digest = delta.mark.digest.cast_signed();
        let migration = &*fence.migration;
        let advance: [&(dyn ToSql + Sync); 12] = [
            &migration,
            &mode,
            &fence.ownership.epoch.0,
            &topic,
            &delta.partition.number,
            &lane,
            &lanes,
            &fence.epoch.0,
            &delta.from.0,
            &delta.to.0,
            &delta.mark.lsn,
            &digest,
        ];
        let client = &self.client;
        let replies = async {
            // Polled in this order, so sent in this order.
            tokio::join!(
                biased;
                client.batch_execute("BEGIN; SET LOCAL crossfade.batch = 'open'"),
                async {
                    match &ask[..] {
                        [] => Ok(None),
                        _ => client.query_one(&self.visible, &[&ask]).await.map(Some),
                    }
                },
                async {
                    match &batch.rows[..] {
                        [] => Ok(0),
                        _ => client.execute(&self.update, &arrays).await,
                    }
                },
                async {
                    match &batch.dead[..] {
                        [] => Ok(0),
                        _ => {
                            let number = &delta.partition.number;
                            client
                                .execute(
                                    &self.dead,
                                    &[
                                        &migration,
                                        &topic,
                                        number,
                                        &letters.positions,
                                        &letters.keys,
                                        &letters.reasons,
                                        &letters.details,
                                    ],
                                )
                                .await
                        }
                    }
                },
                client.query_one(&self.advance, &advance),
                client.batch_execute("COMMIT"),
            )
        };
        failpoint::reached("sink::before_send");
        let mut replies = std::pin::pin!(replies);
        let sent = std::future::poll_fn(|cx| Poll::Ready(replies.as_mut().poll(cx))).await;
        failpoint::reached("sink::sent");
        let (begin, visible, update, dead, advance, commit) = match sent {
            Poll::Ready(answers) => answers,
            Poll::Pending => replies.await,
        };
        failpoint::reached("sink::committed");

        let projection = &self.projection;
        let failed = |what| move |error: Error| failed(what, projection, &error);
        // An error of BEGIN or COMMIT leaves the session in a state that nobody knows.
        let broken = |error: Error| SinkError::Transaction { code: Code::of(&error) };
        begin.map_err(broken)?;
        let visible = visible.map_err(failed("see the transactions behind"))?;
        let written = update.map_err(failed("write"))?;
        dead.map_err(failed("park dead letters of"))?;
        let advance = advance.map_err(failed("move the progress of"))?;
        commit.map_err(broken)?;
        if let Some(row) = visible {
            self.horizon.observe(full(&row, 0));
        }
        Ok(WriteReceipt {
            partition: delta.partition.clone(),
            position: delta.to,
            written,
            at: DatabaseMicros(advance.get(0)),
        })
    }

    /// Reads rows by key, after the transactions of `events` are visible.
    ///
    /// Rows that do not exist are missing from the answer.
    pub async fn current(
        &mut self,
        keys: &[&Key],
        events: impl Iterator<Item = Streamed>,
    ) -> Result<Vec<CurrentRow>, SinkError> {
        let ask = self.must_ask(events);
        let failed = |what, error: &Error| failed(what, &self.projection, error);
        if !ask.is_empty() {
            let row = self
                .client
                .query_one(&self.visible, &[&ask])
                .await
                .map_err(|error| failed("see the transactions behind", &error))?;
            self.horizon.observe(full(&row, 0));
        }
        let arrays = params::keys(&self.projection, keys)?;
        let arrays: Vec<&(dyn ToSql + Sync)> = arrays.iter().map(params::Array::as_sql).collect();
        let rows = self
            .client
            .query(&self.current, &arrays)
            .await
            .map_err(|error| failed("read rows of", &error))?;
        let place = |row: &Row| {
            usize::try_from(row.get::<_, i64>(0) - 1).expect("ordinality counts from 1")
        };
        Ok(rows
            .iter()
            .map(|row| CurrentRow {
                place: place(row),
                values: (1..row.len())
                    .map(|index| row.get::<_, Option<&str>>(index).map_or(Value::Null, Value::text))
                    .collect(),
            })
            .collect())
    }

    /// The distinct ids that a new snapshot must show as ended.
    fn must_ask(&self, events: impl Iterator<Item = Streamed>) -> Vec<i64> {
        let mut ask: Vec<i64> = events
            .filter(|event| self.horizon.must_ask(*event))
            .map(|event| i64::from(event.xid))
            .collect();
        ask.sort_unstable();
        ask.dedup();
        ask
    }
}

/// One array of a batch: sources or targets, as `of` chooses.
fn column<'a>(
    batch: &'a Batch,
    index: usize,
    of: impl Fn(&'a [Value], &'a [Value]) -> &'a [Value],
) -> params::Array<'a> {
    params::values(batch.rows.iter().map(|row| match &row.mutation {
        Mutation::Fill { seen, values, .. } => &of(seen, values)[index],
        Mutation::Reread { .. } => panic!("a row to be re-read reached the write statement"),
    }))
}

struct Letters<'a> {
    positions: Vec<i64>,
    keys: Vec<Option<String>>,
    reasons: Vec<&'a str>,
    details: Vec<&'a str>,
}

impl<'a> Letters<'a> {
    fn of(batch: &'a Batch) -> Self {
        let dead = &batch.dead;
        Self {
            positions: dead.iter().map(|letter| letter.position.0).collect(),
            keys: dead.iter().map(|letter| letter.key_hash.map(|h| format!("{h:016x}"))).collect(),
            reasons: dead.iter().map(|letter| letter.reason.as_str()).collect(),
            details: dead.iter().map(|letter| letter.detail.as_str()).collect(),
        }
    }
}

fn failed(what: &'static str, projection: &Projection, error: &Error) -> SinkError {
    match error.code().map(tokio_postgres::error::SqlState::code) {
        Some("CF001") => SinkError::Ownership,
        Some("CF002") => SinkError::Fenced,
        Some("CF003") => SinkError::NotVisible,
        Some("CF004") => SinkError::Transaction { code: Code::of(error) },
        _ => {
            let mut at = String::new();
            if let Some(db) = error.as_db_error() {
                for (kind, name) in [("column", db.column()), ("constraint", db.constraint())] {
                    if let Some(name) = name {
                        let _ = write!(at, ", {kind} \"{name}\"");
                    }
                }
            }
            SinkError::Sql { what, table: projection.table.to_string(), code: Code::of(error), at }
        }
    }
}

fn full(row: &Row, index: usize) -> u64 {
    u64::try_from(row.get::<_, i64>(index)).expect("a full transaction id is not negative")
}
