//! PostgreSQL goes away under load.

use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::migration::Migration;
use crate::support::traffic::Traffic;
use crate::support::wait::seconds;

#[test]
fn a_worker_survives_restarts_of_postgres_under_load() {
    // GIVEN a worker under load
    let mut cluster = Cluster::start();
    let mut migration = Migration::on_own(&cluster.server, 2);
    migration.users.load(2_000);
    migration.connect();
    let worker = migration.worker();
    let traffic = Traffic::start(migration.database.url(), Duration::from_millis(3));
    worker.until("rows to be written", seconds(30), || match worker.counter("written") {
        written if written > 500 => Ok(()),
        written => Err(format!("{written} rows written")),
    });

    // WHEN the server is restarted, twice
    for _ in 0..2 {
        let before = traffic.done();
        cluster.stop();
        cluster.start_again();
        worker.until("the application to go on", seconds(20), || match traffic.done() {
            now if now > before + 100 => Ok(()),
            now => Err(format!("{} transactions since", now - before)),
        });
    }
    traffic.stop();

    // THEN the same process catches up
    worker.until_caught_up(&migration.database);
    migration.users.sql = migration.application();
    migration.users.assert_converged();
    migration.users.assert_no_stale_history();
    worker.stop();
}

#[test]
fn statements_that_are_cancelled_at_any_moment_part_no_rows_from_their_position() {
    // GIVEN a worker under load, on a server whose sessions a test may cancel
    let cluster = Cluster::start();
    let mut migration = Migration::on_own(&cluster.server, 2);
    migration.users.load(500);
    migration.connect();
    let worker = migration.worker();
    let traffic = Traffic::start(migration.database.url(), Duration::from_millis(2));
    worker.until("rows to be written", seconds(30), || match worker.counter("written") {
        written if written > 300 => Ok(()),
        written => Err(format!("{written} rows written")),
    });

    // WHEN whatever the worker does is cancelled every few milliseconds, BEGIN and COMMIT among it
    migration.database.session("tests").run(
        "DO $$ BEGIN
             FOR i IN 1..1500 LOOP
                 PERFORM pg_cancel_backend(pid) FROM pg_stat_activity
                   WHERE application_name LIKE 'crossfade%' AND pid <> pg_backend_pid();
                 PERFORM pg_stat_clear_snapshot(), pg_sleep(0.003);
             END LOOP;
         END $$",
    );
    traffic.stop();

    // THEN the same process catches up, and nothing is missing
    assert!(worker.counter("retries") > 0, "no statement was hit: the test shows nothing");
    worker.until_caught_up(&migration.database);
    migration.users.assert_converged();
    migration.users.assert_no_stale_history();
    worker.stop();
}

#[test]
fn commits_that_a_crash_took_back_are_made_again_without_anybody_s_help() {
    // GIVEN a worker that does not wait for the flush of its commits, on a server that flushes late.
    // The gate and the samples flush too, so nobody asks and samples are rare.
    let mut cluster = Cluster::start();
    cluster.set("SET wal_writer_delay = '10s'");
    cluster.set("SET wal_writer_flush_after = '1GB'");
    let mut migration = Migration::on_own(&cluster.server, 2);
    migration.users.load(3_000);
    migration.connect();
    let mut config = migration.config().database("synchronous_commit = false");
    config.stable_for = "60s";
    config.worker = "sample_every = \"10s\"".into();
    let worker = config.start();
    until_filled(&worker, &migration);

    // WHEN the server crashes before it has flushed what the worker wrote last, and no change comes
    // that could tell the worker. Now and then the server was faster with its flush.
    let connector = migration.connector.take().expect("registered above");
    let lost = (1..=4).any(|round| {
        let name = format!("'Zyxwv Round{round} ' || left(id::text, 4)");
        migration.users.sql.run(&format!("UPDATE users SET name = {name}"));
        until_filled(&worker, &migration);
        connector.pause();
        cluster.crash();
        cluster.start_again();
        migration.users.sql = migration.database.session("application");
        let lost = migration.users.wrong() > 0;

        // THEN it looks by itself and writes them again
        until_filled(&worker, &migration);
        connector.resume();
        lost
    });
    migration.connector = Some(connector);
    assert!(lost, "no crash took anything back: this proved nothing");
    worker.until_caught_up(&migration.database);
    migration.users.assert_converged();
    migration.users.assert_no_stale_history();
    worker.stop();
}

#[track_caller]
fn until_filled(worker: &crate::support::worker::Worker, migration: &Migration) {
    worker.until("all rows to be right", seconds(40), || match migration.users.wrong() {
        0 => Ok(()),
        wrong => Err(format!("{wrong} rows are wrong")),
    });
}
