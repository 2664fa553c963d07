//! What becomes of ordinary changes.

use crate::support::migration::Migration;
use crate::support::wait::{seconds, throughout, until};

#[test]
fn every_kind_of_change_reaches_the_new_columns_with_one_write_and_then_the_stream_is_quiet() {
    // GIVEN rows from before the connector, which its snapshot reads
    let mut migration = Migration::on_the_stack(2);
    migration.users.load(400);
    migration.connect();
    let worker = migration.worker();
    worker.until_caught_up(&migration.database);
    migration.users.assert_converged();

    // WHEN rows change in every way while the worker follows
    let sql = &migration.users.sql;
    let id = |n: u8| format!("'00000000-0000-4000-8000-0000000000{n:02}'");
    for n in 1..=6 {
        sql.run(&format!("INSERT INTO users (id, name) VALUES ({}, 'Zyxwv{n} Before')", id(n)));
    }
    sql.run(&format!("UPDATE users SET name = 'Zyxwv  Renamed Twice ' WHERE id = {}", id(1)));
    sql.run(&format!("UPDATE users SET name = NULL WHERE id = {}", id(1)));
    sql.run(&format!("UPDATE users SET name = 'Zyxwv Last' WHERE id = {}", id(1)));
    sql.run(&format!("DELETE FROM users WHERE id = {}", id(2)));
    sql.run(&format!("UPDATE users SET id = {}, name = 'Zyxwv Moved' WHERE id = {}", id(7), id(3)));
    sql.run(&format!(
        "BEGIN; DELETE FROM users WHERE id = {0};
         INSERT INTO users (id, name) VALUES ({0}, 'Zyxwv Again'); COMMIT",
        id(4)
    ));
    sql.run(&format!(
        "BEGIN; UPDATE users SET name = 'Zyxwv6 Before' WHERE id = {};
         UPDATE users SET name = 'Zyxwv5 Before' WHERE id = {}; COMMIT",
        id(5),
        id(6)
    ));
    sql.run("UPDATE users SET email = 'all' WHERE email IS NOT NULL");

    // THEN all rows follow, each change cost one write at most
    worker.until_caught_up(&migration.database);
    migration.users.assert_converged();
    migration.users.assert_no_stale_history();
    assert_eq!(migration.users.most_writes_a_change(), 1);

    // AND the worker's own writes come back as changes once and make no others
    let mut records = migration.topic.records();
    until("the stream to be quiet", seconds(5), || {
        let before = std::mem::replace(&mut records, migration.topic.records());
        std::thread::sleep(seconds(1));
        if before == records { Ok(()) } else { Err(format!("{before}, then {records} records")) }
    });
    throughout("a quiet stream", seconds(1), || match migration.topic.records() {
        now if now == records => Ok(()),
        now => Err(format!("{records}, then {now} records")),
    });
    assert!(worker.counter("echoes") > 0, "{}", worker.status());
    worker.stop();
}

#[test]
fn a_worker_that_starts_before_its_topic_exists_begins_when_it_does() {
    // GIVEN a worker without a connector, so without a topic
    let mut migration = Migration::on_the_stack(2);
    migration.topic.delete();
    migration.users.load(100);
    let worker = migration.worker();
    let (code, gate) = worker.gate().expect("the gate answers");
    assert_eq!((code, &gate["verdict"]), (202, &"closed".into()), "{gate}");

    // WHEN the connector is registered
    migration.connect();

    // THEN the worker finds it by itself
    worker.until_caught_up(&migration.database);
    migration.users.assert_converged();
    worker.stop();
}
