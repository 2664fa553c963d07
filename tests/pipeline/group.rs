//! Several workers share the partitions.

use std::time::Duration;

use crate::support::migration::Migration;
use crate::support::traffic::Traffic;
use crate::support::wait::seconds;
use crate::support::worker::Worker;

#[test]
fn a_second_worker_takes_partitions_and_gives_them_back_while_the_application_writes() {
    // GIVEN one worker under load
    let mut migration = Migration::on_the_stack(4);
    migration.users.load(2_000);
    migration.connect();
    let first = migration.worker();
    let traffic = Traffic::start(migration.database.url(), Duration::from_millis(3));
    until_owns(&first, 4);

    for _ in 0..2 {
        // WHEN another one joins
        let second = migration.worker();
        until_owns(&first, 2);
        until_owns(&second, 2);
        let before = second.counter("written");
        second.until("the second worker to write", seconds(20), || {
            match second.counter("written") {
                now if now > before => Ok(()),
                now => Err(format!("{now} rows written")),
            }
        });

        // AND leaves
        second.stop();
        until_owns(&first, 4);
    }
    traffic.stop();

    // THEN nothing was lost on the way
    first.until_caught_up(&migration.database);
    migration.users.assert_converged();
    migration.users.assert_no_stale_history();
    assert_eq!(migration.users.most_writes_a_change(), 1);
    first.stop();
}

#[track_caller]
fn until_owns(worker: &Worker, partitions: usize) {
    worker.until(&format!("{partitions} partitions"), seconds(30), || {
        let status = worker.status();
        match status["partitions"].as_object() {
            Some(owned) if owned.len() == partitions => Ok(()),
            _ => Err(status["partitions"].to_string()),
        }
    });
}

#[test]
fn a_worker_that_was_frozen_while_another_took_over_writes_nothing_when_it_wakes() {
    // GIVEN two workers under load
    let mut migration = Migration::on_the_stack(2);
    migration.users.load(1_000);
    migration.connect();
    let first = migration.worker();
    let second = migration.worker();
    until_owns(&first, 1);
    until_owns(&second, 1);
    let traffic = Traffic::start(migration.database.url(), Duration::from_millis(3));

    // WHEN one is frozen for longer than its session lasts, and wakes with what it had at hand
    second.signal("STOP");
    until_owns(&first, 2);
    let before = traffic.done();
    first.until("the application to go on", seconds(20), || match traffic.done() {
        now if now > before + 300 => Ok(()),
        now => Err(format!("{} transactions since", now - before)),
    });
    second.signal("CONT");
    until_owns(&first, 1);
    until_owns(&second, 1);
    traffic.stop();

    // THEN nothing it wrote was stale, and nothing was lost
    first.until_caught_up(&migration.database);
    migration.users.assert_converged();
    migration.users.assert_no_stale_history();
    first.stop();
    second.stop();
}
