//! Writes that meet other people's locks, and values that a column does not hold.

use crate::support::migration::Migration;
use crate::support::users::CANARY;
use crate::support::wait::{seconds, until};

#[test]
fn a_row_that_the_application_keeps_locked_holds_up_no_other_row_of_its_batch() {
    // GIVEN a row that somebody works on for long; not before the connector has its slot, which waits
    // for every transaction
    let mut migration = Migration::on_the_stack(1);
    migration.users.load(300);
    migration.connect();
    until("the snapshot in the topic", seconds(30), || match migration.topic.records() {
        300 => Ok(()),
        records => Err(format!("{records} records")),
    });
    let holder = migration.application();
    holder.run("BEGIN; SELECT FROM users WHERE email = '7@example' FOR UPDATE");

    // WHEN the worker fills the table
    let worker = migration.worker();

    // THEN all others are filled while it waits for that one
    worker.until("all rows but one", seconds(30), || match migration.users.wrong() {
        1 => Ok(()),
        wrong => Err(format!("{wrong} rows are not filled")),
    });
    assert!(worker.counter("retries") > 0);
    holder.run("COMMIT");
    worker.until_caught_up(&migration.database);
    migration.users.assert_converged();
    worker.stop();
}

#[test]
fn an_application_that_locks_in_the_opposite_order_is_never_the_victim_of_a_deadlock() {
    // GIVEN a worker that writes in the order of keys
    let mut migration = Migration::on_the_stack(1);
    migration.users.load(100);
    migration.connect();
    let worker = migration.worker();
    worker.until_caught_up(&migration.database);

    // WHEN an application changes every row, from the last key to the first, transaction upon
    // transaction: while one is under way, the worker writes what the one before has changed
    let application = migration.application();
    for round in 0..4 {
        let all = application.try_run(&format!(
            "DO $$ DECLARE u uuid; BEGIN
                 FOR u IN SELECT id FROM users ORDER BY id DESC LOOP
                     UPDATE users SET name = '{CANARY} Round {round}' WHERE id = u;
                     PERFORM pg_sleep(0.012);
                 END LOOP;
             END $$"
        ));
        assert!(all.is_ok(), "the application's transaction {round} failed: {all:?}");
    }

    // THEN it is the worker that gives way and comes again
    worker.until_caught_up(&migration.database);
    migration.users.assert_converged();
    migration.users.assert_no_stale_history();
    assert!(worker.counter("retries") > 0, "they never met: the test shows nothing");
    worker.stop();
}

#[test]
fn a_value_that_the_column_does_not_hold_is_set_aside_alone() {
    // GIVEN a target that is too short for one of the names
    let mut migration = Migration::on_the_stack(1);
    let sql = migration.application();
    sql.run("ALTER TABLE users ALTER first_name TYPE varchar(12)");
    migration.users.load(100);
    sql.run(&format!(
        "INSERT INTO users (name, email) VALUES ('{CANARY}Incomprehensible', 'long')"
    ));
    migration.connect();

    // WHEN the worker fills the table
    let worker = migration.worker();
    worker.until("all rows but one", seconds(30), || match migration.users.wrong() {
        1 => Ok(()),
        wrong => Err(format!("{wrong} rows are not filled")),
    });

    // THEN that row alone is on record, without its values, and the gate stays shut
    worker.until_no_go();
    let letters = sql.rows("SELECT reason, key_hash, d::text FROM crossfade.dead_letter d", &[]);
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].get::<_, String>(0), "22001");
    assert!(letters[0].get::<_, Option<String>>(1).is_some());
    assert!(!letters[0].get::<_, String>(2).contains(CANARY), "a value is in the dead letter");
    worker.stop();
}

#[test]
fn with_one_row_a_batch_each_row_has_a_commit_of_its_own() {
    let mut migration = Migration::on_the_stack(1);
    migration.users.load(5);
    migration.connect();
    let mut config = migration.config();
    config.worker.push_str("\n[tail]\nmax_rows = 1");
    let worker = config.start();
    worker.until_caught_up(&migration.database);

    let sql = &migration.users.sql;
    sql.run(&format!(
        "INSERT INTO users (name, email) SELECT '{CANARY} ' || i, 'strict' FROM generate_series(1, 20) i"
    ));
    worker.until_caught_up(&migration.database);
    migration.users.assert_converged();
    let commits = "SELECT count(DISTINCT xmin::text) FROM users WHERE email = 'strict'";
    assert_eq!(sql.one::<i64>(commits), 20);
    worker.stop();
}
