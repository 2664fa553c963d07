//! A snapshot's rows carry its own transaction, which runs for as long as it takes.

use crate::support::migration::Migration;
use crate::support::wait::seconds;

#[test]
fn rows_of_a_snapshot_are_filled_while_its_transaction_is_still_open() {
    // GIVEN a snapshot that must wait for a second table after it has read the first
    const ROWS: u32 = 3_000;
    let mut migration = Migration::on_the_stack(2);
    migration.users.load(ROWS);
    let sql = &migration.users.sql;
    sql.run(&format!(
        "CREATE TABLE zz_slow (id integer PRIMARY KEY); INSERT INTO zz_slow VALUES (1);
         ALTER PUBLICATION {} ADD TABLE zz_slow",
        migration.name
    ));
    let holder = migration.application();
    holder.run("SELECT pg_advisory_lock(1)");

    // WHEN it runs
    migration.connect_with(&[
        ("table.include.list", "public.users,public.zz_slow"),
        (
            "column.include.list",
            "public.users.id,public.users.name,public.users.first_name,public.users.last_name,public.zz_slow.id",
        ),
        ("snapshot.select.statement.overrides", "public.zz_slow"),
        (
            "snapshot.select.statement.overrides.public.zz_slow",
            "SELECT id FROM public.zz_slow WHERE pg_advisory_lock_shared(1) IS NOT NULL",
        ),
    ]);
    let worker = migration.worker();

    // THEN the rows are filled; the connector holds one back to see whether it is the last
    worker.until("the rows to be filled", seconds(30), || match migration.users.wrong() {
        0 | 1 => Ok(()),
        wrong => Err(format!("{wrong} rows are not filled")),
    });
    let waits: i64 = migration.users.sql.one(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
            AND wait_event_type = 'Lock' AND query LIKE '%zz_slow%' AND backend_xmin IS NOT NULL",
    );
    assert_eq!(waits, 1, "the snapshot's transaction is open");

    // AND once it has ended everything is caught up
    holder.run("SELECT pg_advisory_unlock(1)");
    worker.until_caught_up(&migration.database);
    migration.users.assert_converged();
    migration.users.assert_no_stale_history();
    worker.stop();
}
