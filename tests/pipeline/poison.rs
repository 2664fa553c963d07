//! Records that nobody understands.

use crate::support::migration::Migration;
use crate::support::users::CANARY;
use crate::support::wait::seconds;

#[test]
fn bytes_that_are_no_event_are_set_aside_and_keep_the_gate_shut_until_somebody_looked() {
    // GIVEN a topic that begins with them
    let mut migration = Migration::on_the_stack(2);
    let poison = format!("{{\"payload\": \"{CANARY} and no end");
    migration.topic.send(0, Some(b"no key either"), Some(poison.as_bytes()));
    migration.users.load(300);
    migration.connect();

    // WHEN a worker reads it
    let worker = migration.worker();

    // THEN the partition goes on
    worker.until("the rows to be filled", seconds(30), || match migration.users.wrong() {
        0 => Ok(()),
        wrong => Err(format!("{wrong} rows are not filled")),
    });

    // AND it is on record with place and reason, without what it held
    let sql = &migration.users.sql;
    let letters =
        sql.rows("SELECT partition, position, reason, d::text FROM crossfade.dead_letter d", &[]);
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].get::<_, i32>(0), letters[0].get::<_, i64>(1)), (0, 0));
    assert!(!letters[0].get::<_, String>(2).is_empty());
    assert!(!letters[0].get::<_, String>(3).contains(CANARY), "a value is in the dead letter");
    assert!(worker.log().contains("parked as a dead letter"));
    assert!(!worker.log().contains("no key either"), "a key is in the log");

    // AND the gate says no until it is resolved
    worker.until_no_go();
    sql.run("UPDATE crossfade.dead_letter SET resolved_at = now(), resolution = 'a test'");
    worker.until_caught_up(&migration.database);
    migration.users.assert_converged();
    worker.stop();
}
