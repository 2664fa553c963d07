//! A source that is no longer the one that was read.

use crate::support::migration::Migration;
use crate::support::wait::{seconds, until};

#[test]
fn a_topic_that_was_made_anew_is_a_gap_that_shuts_the_gate() {
    // GIVEN a worker that has caught up, and was stopped
    let mut migration = Migration::on_the_stack(2);
    migration.users.load(200);
    migration.connect();
    let worker = migration.worker();
    worker.until_caught_up(&migration.database);
    worker.stop();
    let ends = migration.topic.ends();

    // WHEN the topic is deleted and made again: one partition is empty, the other is longer than before
    migration.connector.as_ref().expect("registered above").pause();
    migration.topic.delete();
    migration.topic.create_again();
    for n in 0..ends[1] + 5 {
        let key = format!("{{\"id\":\"00000000-0000-4000-8000-{n:012}\"}}");
        migration.topic.send(1, Some(key.as_bytes()), None);
    }
    let worker = migration.worker();

    // THEN both are on record
    let sql = &migration.users.sql;
    worker.until("two gaps", seconds(20), || {
        let rows = sql.rows(
            "SELECT partition, reason FROM crossfade.source_gap WHERE healed_at IS NULL ORDER BY 1",
            &[],
        );
        let gaps: Vec<(i32, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        match gaps == [(0, "cut".into()), (1, "other_record".into())] {
            true => Ok(()),
            false => Err(format!("{gaps:?}")),
        }
    });

    // AND the gate says no
    worker.until_no_go();
    worker.until("the gaps in the status", seconds(5), || {
        let gaps = worker.status()["source_gaps"].clone();
        if gaps.as_array().is_some_and(|gaps| gaps.len() == 2) {
            Ok(())
        } else {
            Err(gaps.to_string())
        }
    });
    worker.stop();
}

#[test]
fn a_replication_slot_that_is_gone_is_a_gap_that_shuts_the_gate() {
    // GIVEN a worker that has caught up
    let mut migration = Migration::on_the_stack(1);
    migration.users.load(50);
    migration.connect();
    let worker = migration.worker();
    worker.until_caught_up(&migration.database);

    // WHEN the connector goes, and its slot with it
    migration.connector = None;

    // THEN that is a gap, also when another slot takes its place
    worker.until_no_go();
    let sql = &migration.users.sql;
    assert_eq!(sql.one::<String>("SELECT reason FROM crossfade.source_gap"), "slot");
    sql.run(&format!(
        "SELECT pg_create_logical_replication_slot('{}', 'pgoutput')",
        migration.name
    ));
    worker.until_no_go();
    worker.stop();
}

#[test]
fn records_that_expire_under_a_running_worker_are_a_gap_and_what_follows_is_read() {
    // GIVEN a worker that has caught up, and then stands still for a moment
    let mut migration = Migration::on_the_stack(1);
    migration.users.load(50);
    migration.connect();
    let worker = migration.worker();
    worker.until_caught_up(&migration.database);
    // Once more, for the echoes.
    worker.until_caught_up(&migration.database);
    worker.signal("STOP");
    // What it had asked Kafka for is answered, with nothing.
    std::thread::sleep(std::time::Duration::from_millis(500));

    // WHEN changes expire that it has not read
    let before = migration.topic.records();
    let sql = &migration.users.sql;
    sql.run("UPDATE users SET name = 'Zyxwv Expired' WHERE email = '1@example'");
    until("the change in the topic", seconds(10), || match migration.topic.records() {
        now if now > before => Ok(()),
        now => Err(format!("{now} records")),
    });
    migration.topic.expire(0);
    worker.signal("CONT");

    // THEN that is a gap
    worker.until_no_go();
    assert_eq!(sql.one::<String>("SELECT reason FROM crossfade.source_gap"), "expired");

    // AND the partition goes on
    sql.run("UPDATE users SET name = 'Zyxwv Later' WHERE email = '2@example'");
    worker.until("the later change", seconds(20), || {
        let query = "SELECT last_name FROM users WHERE email = '2@example'";
        match sql.one::<Option<String>>(query) {
            Some(name) if name == "Later" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(migration.users.wrong(), 1, "the change that expired is not made up");
    worker.stop();
}
