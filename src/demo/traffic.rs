//! An application that knows nothing of a migration: it inserts, renames, deletes, changes keys.
//!
//! Each writer has users of its own, so a statement that fails or finds no row was disturbed by the
//! migration and not by another writer. Writers keep to their timetable: what a slow answer delays
//! is sent behind it, not left out.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};
use tokio_postgres::{Client, Config, Error, NoTls};
use uuid::Uuid;

use crate::clock::Clock;

/// Users that a writer knows at its start; more are made as it goes.
const KNOWN: usize = 2_000;
/// Users that a long transaction renames.
const RENAMED: u32 = 20;

/// How much is written.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Connections.
    pub writers: u32,
    /// Statements of all writers together; each is a transaction.
    pub per_second: u32,
    /// The same seed writes the same.
    pub seed: u64,
}

/// Writers at work. Dropped, they stop at once.
#[derive(Debug)]
pub struct Traffic {
    database: Config,
    stop: watch::Sender<bool>,
    writers: JoinSet<Report>,
    seed: u64,
    /// Users that no writer knows.
    reserved: Vec<Uuid>,
}

/// What was written, and what the application got to see of the migration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub inserts: u64,
    pub renames: u64,
    pub emails: u64,
    pub key_changes: u64,
    pub deletes: u64,
    pub long_transactions: u64,
    /// The longest that one statement outside of the long transactions took.
    pub slowest: Duration,
    /// By SQLSTATE, or `connection`.
    pub errors: BTreeMap<String, u64>,
}

impl Report {
    /// Statements that did what they should.
    pub fn writes(&self) -> u64 {
        self.inserts + self.renames + self.emails + self.key_changes + self.deletes
    }

    /// Statements that failed.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    fn add(&mut self, other: Self) {
        let Self {
            inserts,
            renames,
            emails,
            key_changes,
            deletes,
            long_transactions,
            slowest,
            errors,
        } = other;
        self.slowest = self.slowest.max(slowest);
        self.inserts += inserts;
        self.renames += renames;
        self.emails += emails;
        self.key_changes += key_changes;
        self.deletes += deletes;
        self.long_transactions += long_transactions;
        for (code, count) in errors {
            *self.errors.entry(code).or_default() += count;
        }
    }

    fn fail(&mut self, error: &Error) {
        let code = error.code().map_or("connection", |state| state.code());
        *self.errors.entry(code.to_owned()).or_default() += 1;
    }
}

impl Traffic {
    /// Begins to write to `public.users` of `database`.
    ///
    /// # Errors
    ///
    /// When the first connections fail; later ones are opened again, and counted.
    pub async fn start(database: &Config, load: Load) -> Result<Self, Error> {
        let mut shares = vec![Vec::new(); load.writers as usize + 1];
        let known = i64::try_from(shares.len() * KNOWN).unwrap_or(i64::MAX);
        let client = connect(database).await?;
        let ids =
            client.query("SELECT id FROM public.users ORDER BY id LIMIT $1", &[&known]).await?;
        for (share, row) in (0..shares.len()).cycle().zip(&ids) {
            shares[share].push(row.get(0));
        }
        let mut traffic = Self {
            database: database.clone(),
            stop: watch::Sender::new(false),
            writers: JoinSet::new(),
            seed: load.seed,
            reserved: shares.pop().unwrap_or_default(),
        };
        let every = Duration::from_secs(1) * load.writers / load.per_second.max(1);
        for users in shares {
            traffic.seed += 1;
            let writer = Writer {
                client: connect(database).await?,
                database: database.clone(),
                users,
                former: Vec::new(),
                random: Random(traffic.seed),
                report: Report::default(),
            };
            traffic
                .writers
                .spawn(writer.run(every.max(Duration::from_micros(1)), traffic.stop.subscribe()));
        }
        Ok(traffic)
    }

    /// Adds a writer that keeps transactions open for `held` while it renames users one after another,
    /// in no order; a second lies between two of them.
    pub async fn hold_transactions(&mut self, held: Duration) -> Result<(), Error> {
        self.seed += 1;
        let writer = Writer {
            client: connect(&self.database).await?,
            database: self.database.clone(),
            users: std::mem::take(&mut self.reserved),
            former: Vec::new(),
            random: Random(self.seed),
            report: Report::default(),
        };
        self.writers.spawn(writer.hold(held, self.stop.subscribe()));
        Ok(())
    }

    /// Lets every statement end, and says what was done.
    pub async fn stop(mut self) -> Report {
        self.stop.send_replace(true);
        let mut total = Report::default();
        while let Some(writer) = self.writers.join_next().await {
            total.add(writer.expect("a writer neither panics nor is aborted"));
        }
        total
    }
}

async fn connect(database: &Config) -> Result<Client, Error> {
    let (client, connection) = database.connect(NoTls).await?;
    // An error of the connection is the error of the statement that waits for it.
    tokio::spawn(async { drop(connection.await) });
    Ok(client)
}

#[derive(Debug)]
struct Writer {
    client: Client,
    database: Config,
    users: Vec<Uuid>,
    /// Keys that were given up; some are used again.
    former: Vec<Uuid>,
    random: Random,
    report: Report,
}

impl Writer {
    async fn run(mut self, every: Duration, mut stop: watch::Receiver<bool>) -> Report {
        let clock = Clock::system();
        let mut ticks = interval(every);
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return self.report,
                _ = ticks.tick() => {}
            }
            let began = clock.now();
            if let Err(error) = self.write().await {
                self.report.fail(&error);
                self.reconnect().await;
            }
            let took = clock.now().saturating_duration_since(began);
            self.report.slowest = self.report.slowest.max(took);
        }
    }

    /// One statement. After an error nothing is known of its user, so it is not used again.
    async fn write(&mut self) -> Result<(), Error> {
        let Some(user) = self.random.take(&mut self.users) else { return self.insert().await };
        match self.random.below(20) {
            0..6 => {
                self.users.push(user);
                self.insert().await?;
            }
            6..13 => {
                let name = self.random.name();
                let text = "UPDATE public.users SET name = $2 WHERE id = $1";
                self.client.execute(text, &[&user, &name]).await?;
                self.report.renames += 1;
                self.users.push(user);
            }
            13..16 => {
                let email = format!("{}@example.org", self.random.below(1 << 40));
                let text = "UPDATE public.users SET email = $2 WHERE id = $1";
                self.client.execute(text, &[&user, &email]).await?;
                self.report.emails += 1;
                self.users.push(user);
            }
            16..18 => {
                let new = self.key();
                let text = "UPDATE public.users SET id = $2 WHERE id = $1";
                self.client.execute(text, &[&user, &new]).await?;
                self.report.key_changes += 1;
                self.users.push(new);
                self.former.push(user);
            }
            _ => {
                self.client.execute("DELETE FROM public.users WHERE id = $1", &[&user]).await?;
                self.report.deletes += 1;
                self.former.push(user);
            }
        }
        Ok(())
    }

    async fn insert(&mut self) -> Result<(), Error> {
        let (user, name) = (self.key(), self.random.name());
        let text = "INSERT INTO public.users (id, name, email) VALUES ($1, $2, 'new@example.org')";
        self.client.execute(text, &[&user, &name]).await?;
        self.report.inserts += 1;
        self.users.push(user);
        Ok(())
    }

    /// A key that is free: every fourth was another user's before.
    fn key(&mut self) -> Uuid {
        match self.random.below(4) {
            0 => self.random.take(&mut self.former),
            _ => None,
        }
        .unwrap_or_else(|| Uuid::from_u64_pair(self.random.next(), self.random.next()))
    }

    async fn hold(mut self, held: Duration, mut stop: watch::Receiver<bool>) -> Report {
        while !*stop.borrow() {
            if let Err(error) = self.long_transaction(held, &mut stop).await {
                self.report.fail(&error);
                self.reconnect().await;
            }
            pause(Duration::from_secs(1), &mut stop).await;
        }
        self.report
    }

    /// A wish to stop commits it early.
    async fn long_transaction(
        &mut self,
        held: Duration,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let work = self.client.transaction().await?;
        let mut renames = 0;
        for _ in 0..RENAMED {
            if *stop.borrow() || self.users.is_empty() {
                break;
            }
            let user = self.users[self.random.index(self.users.len())];
            let name = self.random.name();
            let text = "UPDATE public.users SET name = $2 WHERE id = $1";
            renames += work.execute(text, &[&user, &name]).await?;
            pause(held / RENAMED, stop).await;
        }
        work.commit().await?;
        self.report.renames += renames;
        self.report.long_transactions += 1;
        Ok(())
    }

    /// Opens a lost connection again, as a pool would.
    async fn reconnect(&mut self) {
        while self.client.is_closed() {
            match connect(&self.database).await {
                Ok(client) => self.client = client,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

async fn pause(time: Duration, stop: &mut watch::Receiver<bool>) {
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        () = sleep(time) => {}
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same seed writes the same, on every machine.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a usize")
    }

    fn take(&mut self, from: &mut Vec<Uuid>) -> Option<Uuid> {
        (!from.is_empty()).then(|| from.swap_remove(self.index(from.len())))
    }

    fn word(&mut self) -> &'static str {
        const WORDS: [&str; 10] = [
            "Ada",
            "Grace",
            "Edsger",
            "O'Neil",
            "Zo\u{eb}",
            "\u{c5}str\u{f6}m",
            "e\u{301}mile",
            "\u{65e5}\u{672c}",
            "\u{1f600}",
            "zero\u{200b}width",
        ];
        WORDS[self.index(WORDS.len())]
    }

    /// Every kind of text that is easy to split wrongly, and NULL.
    fn name(&mut self) -> Option<String> {
        let (a, b, number) = (self.word(), self.word(), self.below(1 << 20));
        Some(match self.below(12) {
            0 => return None,
            1 => String::new(),
            2 => "  \t".into(),
            3 => a.into(),
            4 => format!("{a}  {b}"),
            5 => format!("  {a} {b}"),
            6 => format!("{a}\t{b}\n{number} "),
            7 => format!("{a}\u{a0}{b}\u{3000}{number}"),
            8 => format!("{a} \"{b}\\\" {{{number},NULL}}"),
            _ => format!("{a} {b} {number}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_names() {
        let names = |seed| {
            let mut random = Random(seed);
            (0..50).map(|_| random.name()).collect::<Vec<_>>()
        };
        assert_eq!(names(7), names(7));
        assert_ne!(names(7), names(8));
    }

    #[test]
    fn every_kind_of_name_comes_up() {
        let mut random = Random(1);
        let names: Vec<_> = (0..500).map(|_| random.name()).collect();
        let any = |wanted: &dyn Fn(&str) -> bool| names.iter().flatten().any(|name| wanted(name));
        assert!(names.contains(&None), "NULL");
        assert!(any(&str::is_empty), "empty");
        assert!(any(&|name| !name.is_empty() && name.trim().is_empty()), "blanks only");
        assert!(any(&|name| !name.contains(char::is_whitespace)), "one word");
        assert!(any(&|name| name.contains("  ")), "double blanks");
        assert!(any(&|name| name.starts_with(' ')), "leading blanks");
        assert!(any(&|name| !name.is_ascii()), "beyond ASCII");
    }
}
