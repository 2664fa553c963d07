//! Everything is read a second time.

use crate::support::migration::Migration;
use crate::support::wait::seconds;
use crate::support::worker::{Config, Worker};

#[test]
fn reading_the_topic_again_changes_no_row() {
    // GIVEN a worker that has caught up with rows that changed, moved and went
    let mut migration = Migration::on_the_stack(2);
    migration.users.load(1_000);
    migration.connect();
    // In one window only the last record of a row counts; here each record has its say.
    let mut config = migration.config();
    config.batch = "window = 40";
    let worker = config.start();
    worker.until_caught_up(&migration.database);
    let sql = &migration.users.sql;
    sql.run("UPDATE users SET name = 'Zyxwv Once' WHERE email < '5'");
    sql.run("UPDATE users SET name = 'Zyxwv Twice' WHERE email < '4'");
    sql.run("DELETE FROM users WHERE email < '2'");
    worker.until_caught_up(&migration.database);
    migration.users.assert_converged();
    let (writes, records) = (migration.users.worker_writes(), migration.topic.records());

    // WHEN it is told to read from the start while it runs
    let before = worker.counter("records");
    rewind(&config);
    until_read(&worker, before + records.cast_unsigned());

    // THEN no row is written
    worker.until_caught_up(&migration.database);
    assert_eq!(migration.users.worker_writes(), writes, "writes of a running worker");
    worker.stop();

    // AND the same when it was stopped meanwhile
    rewind(&config);
    let worker = config.start();
    until_read(&worker, records.cast_unsigned());
    worker.until_caught_up(&migration.database);
    assert_eq!(migration.users.worker_writes(), writes, "writes of a new worker");
    let status = worker.status();
    let counter = |name: &str| status["counters"][name].as_u64().expect("a counter");
    assert_eq!((counter("written"), counter("dead")), (0, 0), "{status}");
    for kind in ["equal", "newer", "deleted", "echoes"] {
        assert!(counter(kind) > 0, "no row was counted as {kind}: {status}");
    }
    migration.users.assert_converged();
    assert!(status["source_gaps"].as_array().is_some_and(Vec::is_empty), "{status}");
    worker.stop();
}

#[track_caller]
fn rewind(config: &Config) {
    let output = config.run(&["rewind", "--to", "earliest"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.matches("next offset 0").count(), 2, "{said}");
}

#[track_caller]
fn until_read(worker: &Worker, records: u64) {
    worker.until(&format!("{records} records to be read"), seconds(30), || {
        match worker.counter("records") {
            read if read >= records => Ok(()),
            read => Err(format!("{read} records read; {}", worker.status())),
        }
    });
}
