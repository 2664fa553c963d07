//! The demo's table, the worker's role with the least rights, and a comparison of its own.

use tokio_postgres::{Client, Error};

/// The connector's replication slot and publication, as `config/users_name_split.toml` has them by
/// default.
pub const SLOT: &str = "crossfade_users_name_split";
pub const PUBLICATION: &str = SLOT;

/// The role that [`grant`] makes.
pub const WORKER: &str = "crossfade_worker";

/// Makes the table and its publication, with the new columns empty.
pub async fn create(client: &Client) -> Result<(), Error> {
    client
        .batch_execute(
            "CREATE TABLE public.users (
                 id         uuid PRIMARY KEY,
                 name       text,
                 email      text NOT NULL,
                 created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
                 first_name text,
                 last_name  text
             );
             CREATE PUBLICATION crossfade_users_name_split FOR TABLE public.users;",
        )
        .await
}

/// Adds `rows` users; every sixteenth has a name that is easy to split wrongly.
///
/// Keys are random, as UUIDs are: neighbours in the table are none in the index.
pub async fn load(client: &Client, rows: u64) -> Result<u64, Error> {
    let last = i64::try_from(rows).unwrap_or(i64::MAX);
    client
        .execute(
            "INSERT INTO public.users (id, name, email)
             SELECT md5('crossfade ' || n)::uuid,
                    CASE n % 80
                        WHEN 0  THEN NULL
                        WHEN 16 THEN ''
                        WHEN 32 THEN first
                        WHEN 48 THEN '  ' || first || E'\\t ' || last || ' '
                        WHEN 64 THEN first || U&'\\00A0' || last || U&'\\3000\\65E5\\672C'
                        ELSE first || ' ' || last
                    END,
                    'user' || n || '@example.org'
               FROM (SELECT n, ('{Ada,Grace,Edsger,Barbara,Zo\u{eb},Alan}'::text[])[1 + n % 6] AS first,
                            ('{Lovelace,Hopper,Dijkstra,Liskov,\u{c5}str\u{f6}m}'::text[])[1 + n / 7 % 5] || n AS last
                       FROM generate_series(1::bigint, $1::bigint) AS n) AS people",
            &[&last],
        )
        .await
}

/// Makes [`WORKER`], unless it is there, and gives it what a worker needs in this database: to read
/// the key and the columns of the migration, to write the two new ones, and a schema for its state.
pub async fn grant(client: &Client) -> Result<(), Error> {
    client
        .batch_execute(
            "DO $$
             BEGIN
                 IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'crossfade_worker') THEN
                     CREATE ROLE crossfade_worker LOGIN;
                 END IF;
                 EXECUTE format('GRANT CREATE ON DATABASE %I TO crossfade_worker', current_database());
             END $$;
             GRANT SELECT (id, name, first_name, last_name), UPDATE (first_name, last_name)
                ON public.users TO crossfade_worker;",
        )
        .await
}

/// A comparison of all rows with what their names say, in one snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    pub rows: i64,
    pub mismatches: i64,
}

/// What the new columns should hold, in PostgreSQL's own regular expressions.
///
/// The bracket lists Unicode's `White_Space`: `\s` would depend on the database's locale. A dot also
/// matches line ends in these expressions.
pub const COMPARE: &str = r"
    SELECT count(*), count(*) FILTER (
               WHERE first_name IS DISTINCT FROM substring(name FROM blanks || '*(' || others || '+)')
                  OR last_name IS DISTINCT FROM
                     substring(name FROM others || blanks || '+(' || others || '(?:.*' || others || ')?)'))
      FROM public.users,
           (VALUES ('[\u0009-\u000D\u0020\u0085\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000]',
                    '[^\u0009-\u000D\u0020\u0085\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000]'))
           AS class (blanks, others)";

/// Compares every row with [`COMPARE`], which shares nothing with the code that filled them.
pub async fn mismatches(client: &Client) -> Result<Comparison, Error> {
    let row = client.query_one(COMPARE, &[]).await?;
    Ok(Comparison { rows: row.get(0), mismatches: row.get(1) })
}
