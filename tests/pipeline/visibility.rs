//! A commit is streamed before it is visible.

use std::thread;

use crate::support::cluster::Cluster;
use crate::support::migration::Migration;
use crate::support::wait::{seconds, throughout};
use crate::support::worker::{Worker, as_of};

/// Nine thousand characters that do not compress, so that they are stored out of line.
const LONG: &str =
    "(SELECT 'Zyxwv ' || string_agg(md5(random()::text || i), '') FROM generate_series(1, 282) i)";

#[test]
fn a_change_that_is_streamed_before_it_is_visible_is_waited_for_and_not_lost() {
    // GIVEN a worker that has caught up. Its own commits must not wait for the silent standby as well,
    // so it does not wait for their flush.
    let cluster = Cluster::start();
    let mut migration = Migration::on_own(&cluster.server, 1);
    let sql = &migration.users.sql;
    sql.run("ALTER TABLE users ALTER name SET STORAGE EXTERNAL");
    migration.users.load(50);
    sql.run(&format!("INSERT INTO users (name, email) VALUES ({LONG}, 'long')"));
    migration.connect();
    let worker = migration.config().database("synchronous_commit = false").start();
    worker.until_caught_up(&migration.database);
    migration.users.assert_converged();

    // An insert, an update, and one whose long name is not in the event: that row is read again.
    for change in [
        "INSERT INTO users (name, email) VALUES ('Zyxwv Hidden', 'late')",
        "UPDATE users SET name = 'Zyxwv Seen' WHERE email = 'late'",
        "UPDATE users SET email = 'late and long', first_name = 'wrong' WHERE email = 'long'",
    ] {
        stays_invisible_then_arrives(&cluster, &migration, &worker, change);
    }
    let reread = worker.counter("reread");
    assert!(reread > 0, "no row was read again");
    worker.stop();
}

fn stays_invisible_then_arrives(
    cluster: &Cluster,
    migration: &Migration,
    worker: &Worker,
    change: &'static str,
) {
    let observer = migration.database.session("tests");
    let position = || observer.one::<i64>("SELECT sum(position)::bigint FROM crossfade.progress");
    let application = migration.application();
    // Once more, so that the echoes of what was written up to now have come and gone.
    worker.until_caught_up(&migration.database);

    // WHEN a commit waits for a synchronous standby that never answers
    cluster.set("SET synchronous_standby_names = 'nobody'");
    let before = (migration.topic.records(), position());
    let before_it = migration.database.lsn();
    let commit = thread::spawn(move || application.run(change));
    worker.until("the change in the topic", seconds(20), || match migration.topic.records() {
        now if now > before.0 => Ok(()),
        now => Err(format!("{now} records")),
    });

    // THEN the worker says what it waits for, and stands still
    worker.until("the worker to be throttled", seconds(10), || {
        let status = worker.status();
        match status["throttled"].as_str() {
            Some(why) if why.contains("not visible yet") => Ok(()),
            _ => Err(status.to_string()),
        }
    });
    throughout("the position", seconds(1), || match position() {
        now if now == before.1 => Ok(()),
        now => Err(format!("{change}: from {} to {now}", before.1)),
    });
    let (_, gate) = worker.gate().expect("the gate answers");
    assert!(as_of(&gate).is_none_or(|as_of| as_of <= before_it), "{gate}");

    // AND when it becomes visible its row is written
    cluster.set("RESET synchronous_standby_names");
    commit.join().expect("the commit ends");
    worker.until_caught_up(&migration.database);
    migration.users.assert_converged();
    migration.users.assert_no_stale_history();
    assert!(worker.status()["throttled"].is_null());
}
