//! An application at work: inserts, renames, deletes, key changes, swaps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use super::postgres::Sql;
use super::users::NAME;

/// A row by chance, in the index.
const PICK: &str =
    "(SELECT id FROM users WHERE id >= (SELECT gen_random_uuid()) ORDER BY id LIMIT 1)";

/// Writes until stopped; a lost database is waited for.
#[derive(Debug)]
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    /// One transaction after another, with `pause` between two.
    pub(crate) fn start(url: String, pause: Duration) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (stop.clone(), done.clone());
        let thread = std::thread::spawn(move || {
            let mut session = None;
            let mut i = 0_u64;
            while !stopped.load(Ordering::Relaxed) {
                let Some(sql) = session.take().or_else(|| Sql::try_open(&url, "application").ok())
                else {
                    sleep(Duration::from_millis(50));
                    continue;
                };
                i += 1;
                if sql.try_run(&transaction(i)).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                    session = Some(sql);
                }
                sleep(pause);
            }
        });
        Self { stop, done, thread: Some(thread) }
    }

    /// Transactions so far.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Ends it; how many transactions it made.
    pub(crate) fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("joined once");
        thread.join().expect("traffic does not panic");
        self.done()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn transaction(i: u64) -> String {
    let name = format!("(SELECT {NAME} FROM (SELECT {}::bigint AS i) x)", i / 3);
    match i % 8 {
        0 => format!("INSERT INTO users (name) VALUES ({name})"),
        1..=3 => format!("UPDATE users SET name = {name}, updated_at = now() WHERE id = {PICK}"),
        4 => format!("UPDATE users SET id = gen_random_uuid() WHERE id = {PICK}"),
        5 => format!("UPDATE users SET email = 'e{i}' WHERE id = {PICK}"),
        6 => format!(
            "DO $$ DECLARE one uuid := {PICK}; BEGIN
                 DELETE FROM users WHERE id = one;
                 IF {i} % 16 = 6 AND one IS NOT NULL THEN
                     INSERT INTO users (id, name) VALUES (one, {name});
                 END IF;
             END $$"
        ),
        _ => format!(
            "DO $$ DECLARE one uuid := {PICK}; other uuid := {PICK}; BEGIN
                 UPDATE users u SET name = o.name FROM users o
                  WHERE (u.id, o.id) IN ((one, other), (other, one));
             END $$"
        ),
    }
}
