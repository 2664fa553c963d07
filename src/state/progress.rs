//! How far each partition is accounted for, and who may move it.

use tokio_postgres::Client;

use super::gap::{self, Gap};
use super::{StateError, sql};
use crate::pg::lsn::Lsn;
use crate::pipeline::checkpoint::{Lane, Mark};
use crate::pipeline::position::{Epoch, PartitionId, Position};

/// A stored row of `crossfade.progress`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub source: String,
    pub epoch: Epoch,
    pub position: Position,
    pub mark: Mark,
    /// Records before this offset came from another server: their transaction ids mean nothing here.
    pub foreign_before: i64,
}

/// The right to move a partition, taken over from whoever had it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub epoch: Epoch,
    pub position: Position,
    /// The record at `position`; `None` before the first one.
    pub mark: Option<Mark>,
    /// What the take-over found amiss; already recorded.
    pub gap: Option<Gap>,
    /// As [`Stored::foreign_before`].
    pub foreign_before: i64,
    /// Nobody had been here before.
    pub first: bool,
}

/// What is known of a partition's log at the moment of the take-over. Offsets as Kafka counts them:
/// `low` is the first record, `high` the one after the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    pub low: i64,
    pub high: i64,
}

/// Where to begin, and what it means: pure, so that every case is tested without a broker.
///
/// A log that cannot be the one that was read, or has lost what was next, is read again from its
/// start: in `derive` a repeated event changes nothing. A first start on a log that has lost its
/// beginning has lost it too.
pub fn begin(stored: Option<&Stored>, source: &str, log: Log) -> (Position, Option<Gap>) {
    let start = Position::before(log.low);
    let Some(stored) = stored else {
        return (start, (log.low > 0).then_some(Gap::Expired { next: 0, low: log.low }));
    };
    if stored.source != source {
        let gap = Gap::OtherSource { stored: stored.source.clone(), now: source.to_owned() };
        return (start, Some(gap));
    }
    let next = stored.position.next_offset();
    if next < log.low {
        (start, Some(Gap::Expired { next, low: log.low }))
    } else if next > log.high {
        (start, Some(Gap::Cut { next, high: log.high }))
    } else {
        (stored.position, None)
    }
}

/// Up to which offset records are another server's, once a partition is begun like this. Pure.
fn foreign_before(stored: Option<&Stored>, log: Log, gap: Option<&Gap>) -> i64 {
    match gap {
        Some(Gap::OtherSource { .. }) => log.high,
        // The offsets count on.
        None | Some(Gap::Expired { .. } | Gap::Rewound { .. } | Gap::Slot { .. }) => {
            stored.map_or(0, |stored| stored.foreign_before)
        }
        // Another log: its offsets begin anew, and this server fills it.
        Some(Gap::Cut { .. } | Gap::OtherRecord { .. } | Gap::NoRecord { .. }) => 0,
    }
}

/// Whose take-over it is, and of what.
#[derive(Debug, Clone, Copy)]
pub struct TakeOver<'a> {
    pub migration: &'a str,
    pub partition: &'a PartitionId,
    pub lane: Lane,
    pub source: &'a str,
    pub owner: &'a str,
    /// What reading the log has shown; the partition then begins at its start.
    pub found: Option<&'a Gap>,
    /// The position seen before the bounds were read; see [`Taken::Beyond`].
    pub seen: Option<Position>,
}

/// What came of a take-over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    Claimed(Claim),
    /// Nothing was taken: the position is beyond the end of the log as it was read. Its owner may have
    /// moved on since then. Only bounds that are read after this position was seen can tell that the
    /// log has become shorter.
    Beyond(Position),
}

/// Takes a partition over: raises its epoch, which waits for a batch that the former owner is
/// committing and refuses all that it sends later.
///
/// A changed lane count starts from the minimum of the old lanes, which replaces them.
pub async fn claim(client: &mut Client, take: TakeOver<'_>, log: Log) -> Result<Taken, StateError> {
    let TakeOver { migration, partition, lane, source, owner, found, seen } = take;
    let work = client.transaction().await.map_err(sql("begin a take-over"))?;
    // An epoch that a crash takes back would be given twice.
    work.batch_execute("SET LOCAL synchronous_commit = local")
        .await
        .map_err(sql("begin a take-over"))?;
    let topic = &*partition.topic;
    // Another worker may be claiming the same partition for the first time: one goes first.
    work.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(format('crossfade.claim %s %s/%s', $1::text, $2::text, $3::integer), 0))",
        &[&migration, &topic, &partition.number],
    )
    .await
    .map_err(sql("lock a partition"))?;
    let rows = work
        .query(
            "SELECT source, epoch, position, mark_lsn, mark_digest, foreign_before, lanes, lane
               FROM crossfade.progress
              WHERE migration = $1 AND topic = $2 AND partition = $3
              ORDER BY position FOR UPDATE",
            &[&migration, &topic, &partition.number],
        )
        .await
        .map_err(sql("read progress"))?;
    let (index, count) = (i32::from(lane.index), i32::from(lane.count));
    let own =
        rows.iter().find(|row| row.get::<_, i32>(6) == count && row.get::<_, i32>(7) == index);
    let relaned = own.is_none() && !rows.is_empty();
    let stored = own.or(rows.first()).map(stored);
    let epoch = rows.iter().map(|row| row.get::<_, i64>(1)).max().unwrap_or(0) + 1;
    let (position, gap) = match found {
        Some(found) => (Position::before(log.low), Some(found.clone())),
        None => begin(stored.as_ref(), source, log),
    };
    if let (Some(Gap::Cut { .. }), None, Some(stored)) = (&gap, found, &stored)
        && seen.is_none_or(|seen| seen.next_offset() <= log.high)
    {
        return Ok(Taken::Beyond(stored.position));
    }
    let foreign_before = foreign_before(stored.as_ref(), log, gap.as_ref());
    let moved = stored.as_ref().is_none_or(|stored| stored.position != position);
    let mark = match &stored {
        Some(stored) if !moved => stored.mark,
        _ => Mark::default(),
    };
    if relaned {
        work.execute(
            "DELETE FROM crossfade.progress
              WHERE migration = $1 AND topic = $2 AND partition = $3 AND lanes <> $4",
            &[&migration, &topic, &partition.number, &count],
        )
        .await
        .map_err(sql("replace lanes"))?;
    }
    work.execute(
        "INSERT INTO crossfade.progress AS p
             (migration, topic, partition, lanes, lane, source, epoch, position, mark_lsn, mark_digest,
              foreign_before, owner)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
         ON CONFLICT (migration, topic, partition, lanes, lane) DO UPDATE
            SET source = excluded.source, epoch = excluded.epoch, position = excluded.position,
                mark_lsn = excluded.mark_lsn, mark_digest = excluded.mark_digest,
                foreign_before = excluded.foreign_before, owner = excluded.owner,
                updated_at = clock_timestamp()",
        &[
            &migration,
            &topic,
            &partition.number,
            &count,
            &index,
            &source,
            &epoch,
            &position.0,
            &mark.lsn,
            &mark.digest.cast_signed(),
            &foreign_before,
            &owner,
        ],
    )
    .await
    .map_err(sql("take a partition over"))?;
    if let Some(gap) = &gap {
        gap::record(&work, migration, topic, Some(partition.number), gap).await?;
    }
    work.commit().await.map_err(sql("commit a take-over"))?;
    let mark = (!moved && mark != Mark::default()).then_some(mark);
    let first = stored.is_none();
    let epoch = Epoch(epoch);
    Ok(Taken::Claimed(Claim { epoch, position, mark, gap, foreign_before, first }))
}

/// Reads one row and waits for a transaction that is about to change it: after a lost connection its
/// content *is* the outcome of the last commit.
pub async fn settle(
    client: &Client,
    migration: &str,
    partition: &PartitionId,
    lane: Lane,
) -> Result<Option<Stored>, StateError> {
    let row = client
        .query_opt(
            "SELECT source, epoch, position, mark_lsn, mark_digest, foreign_before
               FROM crossfade.progress
              WHERE migration = $1 AND topic = $2 AND partition = $3 AND lanes = $4 AND lane = $5
                FOR UPDATE",
            &[
                &migration,
                &&*partition.topic,
                &partition.number,
                &i32::from(lane.count),
                &i32::from(lane.index),
            ],
        )
        .await
        .map_err(sql("re-read progress"))?;
    Ok(row.as_ref().map(stored))
}

/// The positions of all partitions of a migration that a crash of the database can no longer take
/// back; where several lanes share one, the least.
///
/// Positions that are visible were committed, their commit records end at or before the insert
/// position read after them, and that position is flushed before this returns.
pub async fn durable(client: &Client, migration: &str) -> Result<Vec<Seen>, StateError> {
    let seen = seen(client, migration).await?;
    flush(client).await?;
    Ok(seen)
}

/// A partition as the table shows it now; a crash may still take that back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub partition: PartitionId,
    /// The least of its lanes.
    pub position: Position,
    /// On which database and cluster; the first in order where lanes differ.
    pub source: String,
    /// A person has moved it and nobody has claimed it since.
    pub rewound: bool,
}

/// All partitions of a migration.
pub async fn seen(client: &Client, migration: &str) -> Result<Vec<Seen>, StateError> {
    let rows = client
        .query(
            "SELECT topic, partition, min(position), bool_or(owner = 'rewind'), min(source)
               FROM crossfade.progress
              WHERE migration = $1 GROUP BY topic, partition ORDER BY topic, partition",
            &[&migration],
        )
        .await
        .map_err(sql("read progress"))?;
    Ok(rows
        .iter()
        .map(|row| Seen {
            partition: PartitionId::new(row.get::<_, String>(0), row.get(1)),
            position: Position(row.get(2)),
            rewound: row.get(3),
            source: row.get(4),
        })
        .collect())
}

/// Makes everything that is in the WAL now survive a crash.
async fn flush(client: &Client) -> Result<(), StateError> {
    let inserted: Lsn = client
        .query_one("SELECT pg_current_wal_insert_lsn()", &[])
        .await
        .map_err(sql("read the WAL position"))?
        .get(0);
    let flushed: Lsn = client
        .query_one("SELECT pg_current_wal_flush_lsn()", &[])
        .await
        .map_err(sql("read the WAL position"))?
        .get(0);
    if flushed >= inserted {
        return Ok(());
    }
    // A commit that has an id and WAL of its own waits for the flush of all before it. One statement,
    // so that no error leaves a transaction open.
    client
        .execute(
            "SELECT set_config('synchronous_commit', 'local', true), pg_current_xact_id(),
                    pg_logical_emit_message(false, 'crossfade.flush', '')",
            &[],
        )
        .await
        .map_err(sql("flush the WAL"))?;
    Ok(())
}

/// Moves a partition by hand. Whoever owns it is fenced and takes it over again from there.
///
/// Moving forward leaves records unread: that is a gap, and is recorded as one.
pub async fn rewind(
    client: &mut Client,
    migration: &str,
    partition: &PartitionId,
    to: Position,
) -> Result<u64, StateError> {
    let work = client.transaction().await.map_err(sql("begin a rewind"))?;
    let topic = &*partition.topic;
    let rows = work
        .query(
            "SELECT position FROM crossfade.progress
              WHERE migration = $1 AND topic = $2 AND partition = $3 ORDER BY position FOR UPDATE",
            &[&migration, &topic, &partition.number],
        )
        .await
        .map_err(sql("read progress"))?;
    if let Some(from) = rows.first().map(|row| row.get::<_, i64>(0)).filter(|from| *from < to.0) {
        let gap = Gap::Rewound { from, to: to.0 };
        gap::record(&work, migration, topic, Some(partition.number), &gap).await?;
    }
    let moved = work
        .execute(
            "UPDATE crossfade.progress
                SET position = $4, epoch = epoch + 1, mark_lsn = NULL, mark_digest = 0,
                    owner = 'rewind', updated_at = clock_timestamp()
              WHERE migration = $1 AND topic = $2 AND partition = $3",
            &[&migration, &topic, &partition.number, &to.0],
        )
        .await
        .map_err(sql("rewind a partition"))?;
    work.commit().await.map_err(sql("commit a rewind"))?;
    Ok(moved)
}

fn stored(row: &tokio_postgres::Row) -> Stored {
    Stored {
        source: row.get(0),
        epoch: Epoch(row.get(1)),
        position: Position(row.get(2)),
        mark: Mark { lsn: row.get(3), digest: row.get::<_, i64>(4).cast_unsigned() },
        foreign_before: row.get(5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(position: i64) -> Stored {
        Stored {
            source: "here".into(),
            epoch: Epoch(1),
            position: Position(position),
            mark: Mark::default(),
            foreign_before: 5,
        }
    }

    #[test]
    fn the_first_start_reads_from_the_earliest_record() {
        assert_eq!(begin(None, "here", Log { low: 0, high: 9 }), (Position(-1), None));
    }

    #[test]
    fn a_first_start_on_a_log_without_its_beginning_is_a_gap() {
        let (position, gap) = begin(None, "here", Log { low: 7, high: 9 });
        assert_eq!((position, gap), (Position(6), Some(Gap::Expired { next: 0, low: 7 })));
    }

    #[test]
    fn records_of_another_server_stay_foreign_until_the_log_begins_anew() {
        let log = Log { low: 0, high: 9 };
        let other = Gap::OtherSource { stored: "there".into(), now: "here".into() };
        assert_eq!(foreign_before(None, log, None), 0);
        assert_eq!(foreign_before(Some(&at(3)), log, Some(&other)), 9);
        assert_eq!(foreign_before(Some(&at(3)), log, None), 5);
        assert_eq!(foreign_before(Some(&at(3)), log, Some(&Gap::Expired { next: 1, low: 2 })), 5);
        assert_eq!(foreign_before(Some(&at(3)), log, Some(&Gap::OtherRecord { position: 3 })), 0);
    }

    #[test]
    fn a_start_in_the_middle_or_at_the_end_goes_on() {
        assert_eq!(begin(Some(&at(7)), "here", Log { low: 0, high: 9 }), (Position(7), None));
        assert_eq!(begin(Some(&at(8)), "here", Log { low: 9, high: 9 }), (Position(8), None));
    }

    #[test]
    fn what_retention_took_is_a_gap() {
        let (position, gap) = begin(Some(&at(3)), "here", Log { low: 5, high: 9 });
        assert_eq!((position, gap), (Position(4), Some(Gap::Expired { next: 4, low: 5 })));
    }

    #[test]
    fn a_log_shorter_than_the_position_is_a_gap() {
        let (position, gap) = begin(Some(&at(20)), "here", Log { low: 0, high: 9 });
        assert_eq!((position, gap), (Position(-1), Some(Gap::Cut { next: 21, high: 9 })));
    }

    #[test]
    fn another_source_is_a_gap_even_where_the_numbers_fit() {
        let (position, gap) = begin(Some(&at(3)), "there", Log { low: 0, high: 9 });
        assert_eq!(position, Position(-1));
        assert_eq!(gap.expect("a gap").reason(), "other_source");
    }
}
