//! Killed at every point of a record's way.

#[test]
fn a_worker_killed_at_any_point_goes_on_where_it_was_and_leaves_nothing_stale() {
    #[cfg(not(feature = "failpoints"))]
    panic!("this test needs: cargo test --features failpoints");
    #[cfg(feature = "failpoints")]
    killed_everywhere();
}

#[cfg(feature = "failpoints")]
fn killed_everywhere() {
    use std::time::Duration;

    use crossfade::failpoint::POINTS;

    use crate::support::migration::Migration;
    use crate::support::traffic::Traffic;
    use crate::support::wait::seconds;

    // GIVEN an application at work
    let mut migration = Migration::on_the_stack(2);
    migration.users.load(2_000);
    migration.connect();
    let traffic = Traffic::start(migration.database.url(), Duration::from_millis(3));

    // WHEN a worker is killed at each point: the first time it comes there, and later
    for passes in [0, 1, 7] {
        for point in POINTS {
            let points = format!("{point}={passes}*off->pause");
            let worker = migration.config().static_member().failpoints(points).spawn();
            worker.until_logged("failpoint reached", passes + 1, seconds(30));
            worker.kill();
        }
    }
    let worker = migration.config().static_member().start();
    let done = traffic.stop();

    // THEN the next one finishes what they began
    worker.until_caught_up(&migration.database);
    assert!(done > 500, "only {done} transactions of traffic");
    migration.users.assert_converged();
    migration.users.assert_no_stale_history();
    assert_eq!(migration.users.most_writes_a_change(), 1);
    worker.stop();
}
