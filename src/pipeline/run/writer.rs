//! One writer: a connection, and the windows of its partitions one after another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, TryRecvError};
use tokio::sync::{Notify, watch};

use super::parts::again_in_halves;
use super::retry::{FIRST_WAIT, LONGEST_VISIBILITY_WAIT, LONGEST_WAIT, Waits, reason};
use super::{Command, Plan, RunError, Work};
use crate::clock::Clock;
use crate::metric::{self, Outcome};
use crate::pg::server::{self, ServerIdentity};
use crate::pg::sqlstate::Disposition;
use crate::pipeline::batch::{Batch, Row, RowCap};
use crate::pipeline::change::{ChangeEvent, Op, Origin};
use crate::pipeline::checkpoint::WriteReceipt;
use crate::pipeline::mutation::{Effect, Mutation};
use crate::pipeline::progress::{Counters, Mode, Progress};
use crate::pipeline::sink::{CurrentRow, Fence, Session, SinkError};
use crate::state::progress;
use crate::table::{Key, Value};

/// Longest sleep of an idle writer.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Rows that are read by key in one statement; they are the long ones.
const REREAD_ROWS: usize = 32;
/// Time for an answer beyond what the server gives each statement: a peer that is gone without a word
/// must not be waited for.
const GRACE: Duration = Duration::from_secs(15);

pub(super) struct Writer {
    plan: Plan,
    number: usize,
    windows: Receiver<Work>,
    wake: Arc<Notify>,
    commands: Sender<Command>,
    progress: Arc<watch::Sender<Progress>>,
    clock: Clock,
    session: Option<Session>,
    bulk: RowCap,
    /// Part of the present window has been written. Without synchronous commit a crash of the server
    /// takes it back, and nothing in the progress row tells.
    begun: bool,
}

/// What became of a batch.
enum Fate {
    Written,
    /// The partition is no longer ours or is read again: what follows is void.
    Void,
}

impl Writer {
    pub(super) fn new(
        number: usize,
        plan: &Plan,
        windows: Receiver<Work>,
        wake: Arc<Notify>,
        commands: &Sender<Command>,
        progress: &Arc<watch::Sender<Progress>>,
    ) -> Self {
        Self {
            plan: plan.clone(),
            number,
            windows,
            wake,
            commands: commands.clone(),
            progress: progress.clone(),
            clock: plan.clock.clone(),
            session: None,
            bulk: RowCap::new(plan.settings.batch.max_rows),
            begun: false,
        }
    }

    /// Writes until the reading thread has dropped its end.
    pub(super) async fn run(mut self) -> Result<(), RunError> {
        self.connect().await?;
        loop {
            match self.windows.try_recv() {
                Ok(work) => self.window(work).await?,
                // Looks again by itself: the end of the channel wakes nobody.
                Err(TryRecvError::Empty) => {
                    let _ = tokio::time::timeout(LOOK_AGAIN, self.wake.notified()).await;
                }
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }

    async fn window(&mut self, work: Work) -> Result<(), RunError> {
        let Work { window, mode, epoch, live } = work;
        let settings = self.plan.settings.clone();
        let rows = match mode {
            Mode::Bulk => self.bulk.rows(),
            Mode::Tail => settings.tail.max_rows,
        };
        let fence = Fence {
            migration: settings.name.as_str().into(),
            ownership: self.plan.ownership.clone(),
            epoch,
        };
        self.begun = false;
        for batch in window.close(mode, settings.batch.slices, rows, settings.batch.max_bytes) {
            match self.batch(batch, &fence, &live).await? {
                Fate::Written => {}
                Fate::Void => return Ok(()),
            }
        }
        Ok(())
    }

    /// Writes a batch, in parts and again where it must be, until it is durable or void.
    async fn batch(
        &mut self,
        batch: Batch,
        fence: &Fence,
        live: &Arc<AtomicBool>,
    ) -> Result<Fate, RunError> {
        let mut parts = vec![batch];
        let mut waits = Waits::default();
        let mut reprepared = false;
        while let Some(part) = parts.pop() {
            if !live.load(Ordering::Acquire) {
                self.unthrottle(&mut waits);
                return Ok(Fate::Void);
            }
            let (part, error) = match self.attempt(part, fence).await {
                Ok(()) => {
                    self.begun = true;
                    self.unthrottle(&mut waits);
                    continue;
                }
                Err(failed) => failed,
            };
            metric::retry(reason(&error));
            self.progress.send_modify(|progress| progress.counters.retries += 1);
            match error.disposition() {
                Disposition::Retry => {
                    if matches!(error, SinkError::NotVisible) {
                        self.look_at_horizon().await;
                    }
                    let wait = self.wait_for(&error, &mut waits, &part)?;
                    parts.push(part);
                    tokio::time::sleep(wait).await;
                }
                Disposition::SplitAndRetry => {
                    tracing::info!(code = error.label(), rows = part.rows.len(), "batch split");
                    if part.mode == Mode::Bulk && error.label() == "57014" {
                        self.bulk.shrink();
                    }
                    let wait = if part.rows.len() > 1 {
                        FIRST_WAIT
                    } else {
                        self.throttle(format!("the database refuses for now: {error}"));
                        waits.next(LONGEST_WAIT, self.number)
                    };
                    again_in_halves(&mut parts, part);
                    tokio::time::sleep(wait).await;
                }
                Disposition::Bisect => match part.halve() {
                    Ok((first, second)) => parts.extend([second, first]),
                    // Whatever it was, it was no row of ours.
                    Err(empty) if empty.rows.is_empty() => return Err(halted(&empty, error)),
                    Err(single) => {
                        let position = single.rows.first().map(|row| row.position);
                        tracing::warn!(
                            partition = %single.delta.partition, ?position, %error,
                            "row parked as a dead letter"
                        );
                        parts.push(single.park(error.label().to_owned(), error.to_string()));
                    }
                },
                // New plans did not help: the server means something else.
                Disposition::Reprepare if std::mem::replace(&mut reprepared, true) => {
                    return Err(halted(&part, error));
                }
                Disposition::Reprepare | Disposition::Reconnect => {
                    tracing::warn!(%error, "opening another database session");
                    self.throttle(format!("opening another database session: {error}"));
                    let mut part = part;
                    loop {
                        self.session = None;
                        if waits.count > 0 {
                            tokio::time::sleep(waits.next(LONGEST_WAIT, self.number)).await;
                        }
                        waits.count += 1;
                        self.connect().await?;
                        metric::reconnect(metric::Peer::Database);
                        match self.settle(part, fence, live).await? {
                            Settled::Again(again) => parts.push(again),
                            Settled::Written => {}
                            Settled::Void => return Ok(Fate::Void),
                            Settled::Unknown(back) => {
                                part = back;
                                continue;
                            }
                        }
                        break;
                    }
                }
                Disposition::Halt => return Err(halted(&part, error)),
            }
        }
        Ok(Fate::Written)
    }

    /// One attempt: rows that must be re-read are read and become fills, then all is written.
    async fn attempt(&mut self, batch: Batch, fence: &Fence) -> Result<(), (Batch, SinkError)> {
        let mut batch = batch;
        if let Err(error) = self.fill_from_current_rows(&mut batch).await {
            return Err((batch, error));
        }
        let limit = self.limit();
        let session = self.session.as_mut().expect("connected before any batch");
        let began = self.clock.now();
        let receipt = match within(limit, session.write(&batch, fence)).await {
            Ok(receipt) => receipt,
            Err(error) => return Err((batch, error)),
        };
        let took = self.clock.now().saturating_duration_since(began);
        if batch.mode == Mode::Bulk {
            self.bulk.observe(batch.rows.len(), took, self.plan.settings.batch.target_time);
        }
        metric::batch_written(batch.mode, batch.rows.len(), took);
        self.account(&batch, &receipt);
        if receipt.written < batch.rows.len() as u64 {
            self.judge_misses(batch, receipt.written, fence).await;
        }
        Ok(())
    }

    /// Turns re-reads into fills from the rows as they stand; those with nothing to write go.
    ///
    /// A few at a time, since long rows are the ones that events leave out: what becomes too much for
    /// a statement is split before the rest is read.
    async fn fill_from_current_rows(&mut self, batch: &mut Batch) -> Result<(), SinkError> {
        let limit = self.limit();
        let most = self.plan.settings.batch.max_bytes;
        loop {
            let places: Vec<usize> = (0..batch.rows.len())
                .filter(|&place| matches!(batch.rows[place].mutation, Mutation::Reread { .. }))
                .take(REREAD_ROWS)
                .collect();
            if places.is_empty() {
                return Ok(());
            }
            let bytes: usize = batch.rows.iter().map(|row| row.mutation.bytes()).sum();
            if bytes > most && batch.rows.len() > 1 {
                return Err(SinkError::TooLarge { rows: batch.rows.len(), bytes });
            }
            let asked: Vec<&Row> = places.iter().map(|&place| &batch.rows[place]).collect();
            let keys: Vec<&Key> = asked.iter().map(|row| row.mutation.key()).collect();
            let events: Vec<_> = asked.iter().filter_map(|row| row.xid).collect();
            let session = self.session.as_mut().expect("connected before any batch");
            let rows = within(limit, session.current(&keys, events.into_iter())).await?;
            let found = rows.len() as u64;
            let mut fills: Vec<Option<Mutation>> = Vec::new();
            fills.resize_with(places.len(), || None);
            let mut equal = 0;
            for CurrentRow { place, values } in rows {
                match self.effect(keys[place].clone(), values) {
                    Effect::Mutate(fill) => fills[place] = Some(fill),
                    Effect::Echo { .. } | Effect::Gone { .. } => equal += 1,
                }
            }
            // From the back, so that the places of those before stay right.
            for (&place, fill) in places.iter().zip(fills).rev() {
                match fill {
                    Some(fill) => batch.rows[place].mutation = fill,
                    None => drop(batch.rows.remove(place)),
                }
            }
            let deleted = (places.len() as u64).saturating_sub(found);
            metric::rows(Outcome::Reread, found);
            metric::rows(Outcome::Deleted, deleted);
            metric::rows(Outcome::Equal, equal);
            self.progress.send_modify(|progress| {
                progress.counters.reread += found;
                progress.counters.deleted += deleted;
                progress.counters.equal += equal;
            });
        }
    }

    /// What a row as it stands asks for.
    fn effect(&self, key: Key, values: Vec<Value>) -> Effect {
        let origin = Origin::default();
        self.plan.mapping.effect(ChangeEvent { op: Op::Read, key, values, origin })
    }

    /// Finds out what the rows were that a statement did not change, after their transactions were
    /// visible: equal already, newer or gone. A newer row has an event of its own on the way; should
    /// its values not follow from what it holds, it is filled here all the same.
    ///
    /// The batch is durable already, so this never fails it: what cannot be read is left uncounted.
    async fn judge_misses(&mut self, batch: Batch, written: u64, fence: &Fence) {
        let keys: Vec<&Key> = batch.rows.iter().map(|row| row.mutation.key()).collect();
        let limit = self.limit();
        let session = self.session.as_mut().expect("connected before any batch");
        let rows = match within(limit, session.current(&keys, std::iter::empty())).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::debug!(%error, "could not read the rows that were not changed");
                return;
            }
        };
        let deleted = (keys.len() as u64).saturating_sub(rows.len() as u64);
        let (mut same, mut newer, mut amiss) = (0, 0, Vec::new());
        for CurrentRow { place, values } in rows {
            let row = &batch.rows[place];
            let Mutation::Fill { key, seen, .. } = &row.mutation else { continue };
            if values.starts_with(seen) {
                same += 1;
                continue;
            }
            newer += 1;
            if let Effect::Mutate(mutation) = self.effect(key.clone(), values) {
                amiss.push(Row { mutation, ..row.clone() });
            }
        }
        // A row that was written and has changed again since counts as written.
        let equal = u64::saturating_sub(same, written);
        let newer = newer - (written - u64::min(written, same)).min(newer);
        metric::rows(Outcome::Equal, equal);
        metric::rows(Outcome::Newer, newer);
        metric::rows(Outcome::Deleted, deleted);
        self.progress.send_modify(|progress| {
            progress.counters.equal += equal;
            progress.counters.newer += newer;
            progress.counters.deleted += deleted;
        });
        if amiss.is_empty() {
            return;
        }
        let mut delta = batch.delta;
        delta.from = delta.to;
        let repair =
            Batch { rows: amiss, dead: Vec::new(), delta, counts: Default::default(), ..batch };
        let session = self.session.as_mut().expect("connected before any batch");
        match within(limit, session.write(&repair, fence)).await {
            Ok(receipt) => self.account(&repair, &receipt),
            Err(error) => tracing::debug!(%error, "newer rows are left to their own events"),
        }
    }

    /// Tells the world about a durable batch.
    fn account(&self, batch: &Batch, receipt: &WriteReceipt) {
        let counts = batch.counts;
        let dead = batch.dead.len() as u64;
        metric::rows(Outcome::Written, receipt.written);
        metric::rows(Outcome::Echo, counts.echoes);
        metric::rows(Outcome::Dead, dead);
        if let Some(oldest) = counts.oldest {
            metric::apply_lag(receipt.at.seconds_since(oldest));
        }
        let now = self.clock.now();
        self.progress.send_modify(|progress| {
            let Counters { written, echoes, dead: parked, batches, .. } = &mut progress.counters;
            *written += receipt.written;
            *echoes += counts.echoes;
            *parked += dead;
            *batches += 1;
            progress.moved = Some(now);
            if let Some(partition) = progress.partitions.get_mut(&receipt.partition) {
                partition.position = partition.position.max(receipt.position);
                partition.committed = partition.committed.max(counts.committed);
            }
        });
    }

    /// Opens a session, however long the database is away; another server is an error.
    async fn connect(&mut self) -> Result<(), RunError> {
        let mut waits = Waits::default();
        loop {
            let error = match self.open().await {
                Ok((session, now)) if now == self.plan.server => {
                    self.session = Some(session);
                    self.progress.send_modify(|progress| progress.throttled = None);
                    return Ok(());
                }
                Ok((_, now)) => {
                    return Err(RunError::OtherServer { began: self.plan.server.clone(), now });
                }
                Err(error) => error,
            };
            match error.disposition() {
                Disposition::Halt | Disposition::Bisect => return Err(RunError::Session(error)),
                Disposition::Retry
                | Disposition::SplitAndRetry
                | Disposition::Reconnect
                | Disposition::Reprepare => {}
            }
            tracing::warn!(%error, cause = cause(&error), "no database session yet");
            self.throttle(format!("no database session: {error}"));
            tokio::time::sleep(waits.next(LONGEST_WAIT, self.number)).await;
        }
    }

    async fn open(&self) -> Result<(Session, ServerIdentity), SinkError> {
        let table = || self.plan.projection.table.to_string();
        within(self.limit(), async {
            let session = Session::open(&self.plan.connector, self.plan.projection.clone()).await?;
            let now = server::identity(session.client()).await.map_err(|error| {
                let (what, at) = ("tell the server behind", String::new());
                SinkError::Sql { what, table: table(), code: error.0, at }
            })?;
            Ok((session, now))
        })
        .await
    }

    /// Learns what has ended since, so that an id that looks like the future does not stay one.
    async fn look_at_horizon(&mut self) {
        let limit = self.limit();
        if let Some(session) = &mut self.session
            && let Err(error) = within(limit, session.look_at_horizon()).await
        {
            tracing::debug!(%error, "could not read the oldest running transaction");
        }
    }

    /// The longest that a round trip of a few statements may take.
    fn limit(&self) -> Duration {
        self.plan.settings.database.statement_timeout * 2 + GRACE
    }

    /// After a lost connection: the progress row is the outcome of the last commit.
    async fn settle(
        &mut self,
        batch: Batch,
        fence: &Fence,
        live: &Arc<AtomicBool>,
    ) -> Result<Settled, RunError> {
        let delta = &batch.delta;
        let session = self.session.as_ref().expect("just connected");
        let (client, migration) = (session.client(), &fence.migration);
        let settled = progress::settle(client, migration, &delta.partition, delta.lane);
        let stored = match tokio::time::timeout(self.limit(), settled).await {
            Ok(Ok(stored)) => stored,
            Ok(Err(error)) => {
                tracing::warn!(%error, "could not re-read progress");
                return Ok(Settled::Unknown(batch));
            }
            Err(_) => {
                tracing::warn!("the database did not answer when progress was re-read");
                return Ok(Settled::Unknown(batch));
            }
        };
        let ours = stored.as_ref().filter(|stored| stored.epoch == fence.epoch);
        let Some(stored) = ours else {
            self.tell(Command::Fenced { partition: delta.partition.clone(), live: live.clone() });
            return Ok(Settled::Void);
        };
        let lasting = self.plan.settings.database.synchronous_commit || !self.begun;
        if stored.position == delta.from && lasting {
            return Ok(Settled::Again(batch));
        }
        if stored.position == delta.to && delta.to != delta.from {
            tracing::info!(partition = %delta.partition, position = %delta.to, "the lost reply was a commit");
            let (partition, position) = (delta.partition.clone(), delta.to);
            let at = crate::pipeline::DatabaseMicros(0);
            // What it wrote is unknown; the position is not.
            let counts = crate::pipeline::batch::Counts { oldest: None, ..batch.counts };
            self.account(
                &Batch { counts, ..batch },
                &WriteReceipt { partition, position, written: 0, at },
            );
            return Ok(Settled::Written);
        }
        if stored.position <= delta.from {
            self.tell(Command::SeekBack {
                partition: delta.partition.clone(),
                position: stored.position,
                live: live.clone(),
            });
            let (partition, position) = (&delta.partition, stored.position);
            self.progress.send_modify(|progress| {
                if let Some(one) = progress.partitions.get_mut(partition) {
                    one.position = position;
                }
            });
            return Ok(Settled::Void);
        }
        Err(RunError::Ahead {
            partition: delta.partition.clone(),
            found: stored.position.to_string(),
            from: delta.from,
            to: delta.to,
        })
    }

    fn tell(&self, command: Command) {
        // Bounded by the number of partitions: one a lost session. When the thread has gone, so has
        // the question.
        if self.commands.try_send(command).is_err() {
            tracing::warn!("the reading thread does not listen");
        }
    }

    /// How long to wait before the same part again, or that it has been long enough.
    fn wait_for(
        &self,
        error: &SinkError,
        waits: &mut Waits,
        part: &Batch,
    ) -> Result<Duration, RunError> {
        if !matches!(error, SinkError::NotVisible) {
            tracing::warn!(%error, "the batch is tried again");
            self.throttle(format!("the database refuses for now: {error}"));
            return Ok(waits.next(LONGEST_WAIT, self.number));
        }
        let now = self.clock.now();
        let since = *waits.invisible_since.get_or_insert(now);
        let waited = now.saturating_duration_since(since);
        if waited > self.plan.settings.worker.visibility_timeout {
            return Err(RunError::NotVisible { partition: part.delta.partition.clone() });
        }
        if waited > Duration::from_millis(500) {
            self.throttle(format!(
                "a commit of {} is not visible yet, for {:.1} s: is a synchronous standby silent?",
                part.delta.partition,
                waited.as_secs_f64()
            ));
        }
        Ok(waits.next(LONGEST_VISIBILITY_WAIT, self.number))
    }

    fn throttle(&self, reason: String) {
        self.progress.send_modify(|progress| progress.throttled = Some(reason));
    }

    fn unthrottle(&self, waits: &mut Waits) {
        if waits.count > 0 || waits.invisible_since.is_some() {
            self.progress.send_modify(|progress| progress.throttled = None);
        }
        *waits = Waits::default();
    }
}

enum Settled {
    Again(Batch),
    Written,
    Void,
    /// Progress could not be read. Writing on would be a guess: what an asynchronous commit lost
    /// before this part would never be read again.
    Unknown(Batch),
}

/// What a server that answers gives by itself: an answer, or an error.
async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, SinkError>>,
) -> Result<T, SinkError> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(SinkError::Silent { limit }))
}

fn halted(batch: &Batch, source: SinkError) -> RunError {
    RunError::Sink { partition: batch.delta.partition.clone(), from: batch.delta.from, source }
}

fn cause(error: &SinkError) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}
