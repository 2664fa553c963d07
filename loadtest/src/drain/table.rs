//! The table that every contestant fills, and what PostgreSQL says of it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use crossfade::clock::Clock;
use tokio_postgres::{Client, Config, NoTls};

/// The independent answer is written with regular expressions, which neither contestant uses.
const COMPARE: &str = r"
SELECT count(*) FROM users u FULL JOIN users_original o USING (id)
 WHERE (u.name, u.email, u.updated_at) IS DISTINCT FROM (o.name, o.email, o.updated_at)
    OR u.first_name IS DISTINCT FROM (regexp_match(o.name, '^\s*(\S+)'))[1]
    OR u.last_name IS DISTINCT FROM (regexp_match(o.name, '^\s*\S+\s+(\S.*?)\s*$'))[1]";

/// No statement of ours takes as long, not even a million rows on a slow disk.
const STATEMENT: Duration = Duration::from_mins(10);
/// Statistics reach the views when a session ends, and after a moment.
const STATISTICS: Duration = Duration::from_secs(15);

/// A database with `users`, `users_original` and a publication.
///
/// Each contestant starts from the same rows, ids and heap order: the topic's events must keep
/// matching, so the table is refilled from its copy, never generated anew.
pub(crate) struct Users {
    pub(crate) client: Client,
    rows: u64,
    clock: Clock,
}

/// Where the log, the statistics and the table's files stood.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    wal: u64,
    updates: i64,
    hot: i64,
    heap: i64,
    indexes: i64,
}

/// What filling the table has cost the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) wal_bytes_per_row: f64,
    pub(crate) hot_percent: f64,
    /// Size after over size before.
    pub(crate) heap_growth: f64,
    pub(crate) index_growth: f64,
}

/// Connects; the session's task ends with the client.
pub(crate) async fn connect(
    url: &str,
    database: &str,
    application: &str,
) -> anyhow::Result<Client> {
    let mut config: Config = url.parse().context("could not read the server's URL")?;
    config
        .dbname(database)
        .application_name(application)
        .connect_timeout(Duration::from_secs(10))
        .options(format!("-c statement_timeout={}", STATEMENT.as_millis()));
    let (client, connection) =
        config.connect(NoTls).await.with_context(|| format!("could not connect to {database}"))?;
    tokio::spawn(async move {
        // The client's next call says why.
        let _ = connection.await;
    });
    Ok(client)
}

impl Users {
    /// Makes the table and its copy, and publishes it.
    ///
    /// Autovacuum is off for both: at this size it starts in some runs and not in others.
    pub(crate) async fn create(
        client: Client,
        rows: u64,
        publication: &str,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        client
            .batch_execute(
                // The order of the heap is part of the state: no scan may begin in the middle.
                "SET synchronize_seqscans = off;
                 SET max_parallel_workers_per_gather = 0;
                 SET maintenance_work_mem = '256MB';
                 CREATE TABLE users (
                     id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
                     name text,
                     email text UNIQUE,
                     updated_at timestamptz,
                     first_name text,
                     last_name text
                 ) WITH (autovacuum_enabled = off);
                 CREATE TABLE users_original (LIKE users) WITH (autovacuum_enabled = off);",
            )
            .await
            .context("could not create the table")?;
        client
            .execute(
                "INSERT INTO users_original (id, name, email, updated_at)
                 SELECT gen_random_uuid(),
                        f.names[1 + i % array_length(f.names, 1)]
                            || CASE WHEN i % 16 = 0 THEN '' ELSE ' ' ||
                               l.names[1 + (i / 7) % array_length(l.names, 1)] END,
                        'user' || i || '@example.org',
                        timestamptz '2026-01-01' + i * interval '1 second'
                   FROM generate_series(0, $1::bigint - 1) i,
                        (SELECT ARRAY['Ada', 'Grace', 'Alan', 'Edsger', 'Barbara', 'Donald',
                                      'Margaret', 'Kateryna', 'Łukasz', 'Zoë', 'José'] names) f,
                        (SELECT ARRAY['Lovelace', 'Hopper', 'Turing', 'Dijkstra', 'Liskov',
                                      'Knuth', 'Hamilton', 'Yushchenko', 'Wójcik', 'Brontë',
                                      'Ortega', 'O''Brien', 'Smith'] names) l",
                &[&i64::try_from(rows)?],
            )
            .await
            .context("could not generate rows")?;
        client.batch_execute("VACUUM (FREEZE, ANALYZE) users_original").await?;
        let users = Self { client, rows, clock };
        users.restore().await?;
        users
            .client
            .batch_execute(&format!("CREATE PUBLICATION {publication} FOR TABLE users"))
            .await
            .context("could not create the publication")?;
        Ok(users)
    }

    /// Puts the table back to its first state: frozen, analysed, every page clean since a checkpoint.
    pub(crate) async fn restore(&self) -> anyhow::Result<()> {
        for statement in [
            "TRUNCATE users",
            "INSERT INTO users SELECT * FROM users_original",
            "VACUUM (FREEZE, ANALYZE) users",
            "CHECKPOINT",
        ] {
            self.client
                .batch_execute(statement)
                .await
                .with_context(|| format!("could not restore the table ({statement})"))?;
        }
        let rows = self.count("SELECT count(*) FROM users").await?;
        if rows != self.rows {
            bail!("the restored table has {rows} rows instead of {}", self.rows);
        }
        Ok(())
    }

    /// Rows that are not as they should be; also those that are missing, added, or changed elsewhere.
    pub(crate) async fn mismatches(&self) -> anyhow::Result<u64> {
        self.count(COMPARE).await
    }

    pub(crate) async fn mark(&self) -> anyhow::Result<Mark> {
        let row = self
            .client
            .query_one(
                "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint, n_tup_upd, n_tup_hot_upd,
                        pg_relation_size(relid), pg_indexes_size(relid)
                   FROM pg_stat_user_tables WHERE relname = 'users'",
                &[],
            )
            .await
            .context("could not read the table's statistics")?;
        Ok(Mark {
            wal: u64::try_from(row.get::<_, i64>(0))?,
            updates: row.get(1),
            hot: row.get(2),
            heap: row.get(3),
            indexes: row.get(4),
        })
    }

    /// Where the log stands.
    pub(crate) async fn wal(&self) -> anyhow::Result<u64> {
        let row = self
            .client
            .query_one("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint", &[])
            .await
            .context("could not read the log's position")?;
        Ok(u64::try_from(row.get::<_, i64>(0))?)
    }

    /// What it took since `before`; `wal` is where the log stood at the end of the contest.
    ///
    /// The sessions that wrote must have ended, or their counts may not be told yet.
    pub(crate) async fn cost(&self, before: Mark, wal: u64) -> anyhow::Result<Cost> {
        let began = self.clock.now();
        let after = loop {
            let after = self.mark().await?;
            if u64::try_from(after.updates - before.updates)? >= self.rows {
                break after;
            }
            if self.clock.now() - began > STATISTICS {
                bail!(
                    "statistics count {} updates of {} rows after {STATISTICS:?}",
                    after.updates - before.updates,
                    self.rows
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let ratio = |after: i64, before: i64| after as f64 / before as f64;
        Ok(Cost {
            wal_bytes_per_row: wal.saturating_sub(before.wal) as f64 / self.rows as f64,
            hot_percent: 100.0 * ratio(after.hot - before.hot, after.updates - before.updates),
            heap_growth: ratio(after.heap, before.heap),
            index_growth: ratio(after.indexes, before.indexes),
        })
    }

    async fn count(&self, query: &str) -> anyhow::Result<u64> {
        let row = self.client.query_one(query, &[]).await.context("could not count rows")?;
        Ok(u64::try_from(row.get::<_, i64>(0))?)
    }
}
