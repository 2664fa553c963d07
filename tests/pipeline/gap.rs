//! A source that is no longer the one that was read.

use crate::support::migration::Migration;
use crate::support::wait::seconds;

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
    migration.connector = None;
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
    worker.until("a no-go", seconds(20), || match worker.gate()? {
        (422, body) if body["verdict"] == "no_go" => Ok(()),
        (code, body) => Err(format!("{code} {body}")),
    });
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
