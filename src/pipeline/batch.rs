//! From effects to batches: one mutation a key, slices that keep updates inside their pages, and the
//! choice between bulk and tail. Pure.
//!
//! A *window* gathers a stretch of one partition. Closed, it becomes one or more *batches*, each
//! written in a transaction of its own. In bulk, every batch takes one hash slice of the window's keys,
//! so that a page is revisited after the versions of the last visit can be pruned; rows written in one
//! go could not reuse each other's space. Only the last batch accounts for the window's records.

use crate::config::settings;
use crate::pg::lsn::Lsn;
use crate::pipeline::change::Origin;
use crate::pipeline::checkpoint::{Delta, Lane, Mark};
use crate::pipeline::mutation::{Effect, Mutation};
use crate::pipeline::position::{DatabaseMicros, PartitionId, Position};
use crate::pipeline::progress::Mode;

/// Below this many rows a statement's fixed cost shows; slices are not cut smaller for pruning's sake.
const WORTHWHILE_SLICE: usize = 500;

/// A gathering stretch of one partition.
#[derive(Debug)]
pub struct Window {
    partition: PartitionId,
    lane: Lane,
    from: Position,
    to: Position,
    mark: Mark,
    entries: Vec<Entry>,
    dead: Vec<DeadLetter>,
    bytes: usize,
    records: u64,
    echoes: u64,
    snapshot: bool,
    oldest: Option<DatabaseMicros>,
    committed: Option<DatabaseMicros>,
}

#[derive(Debug)]
struct Entry {
    position: Position,
    xid: Option<Streamed>,
    effect: Effect,
}

/// The transaction that a streamed event belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streamed {
    /// The low 32 bits of its id.
    pub xid: u32,
    pub lsn: Option<Lsn>,
}

/// A record or row that cannot be applied: where it is and why, never what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub position: Position,
    pub key_hash: Option<u64>,
    pub reason: String,
    pub detail: String,
}

/// What one transaction writes and accounts for.
#[derive(Debug, Clone)]
pub struct Batch {
    pub mode: Mode,
    /// In key order, at most one a key.
    pub rows: Vec<Row>,
    pub dead: Vec<DeadLetter>,
    /// `from == to` where this batch accounts for nothing yet.
    pub delta: Delta,
    pub counts: Counts,
}

/// One row's mutation and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub position: Position,
    pub xid: Option<Streamed>,
    pub mutation: Mutation,
}

/// What the delta of a batch accounts for; zero in all but a window's last batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub records: u64,
    pub echoes: u64,
    /// The earliest commit time among the streamed events.
    pub oldest: Option<DatabaseMicros>,
    /// The latest.
    pub committed: Option<DatabaseMicros>,
}

impl Window {
    /// An empty window behind `from`.
    pub fn open(partition: PartitionId, lane: Lane, from: Position) -> Self {
        Self {
            partition,
            lane,
            from,
            to: from,
            mark: Mark::default(),
            entries: Vec::new(),
            dead: Vec::new(),
            bytes: 0,
            records: 0,
            echoes: 0,
            snapshot: false,
            oldest: None,
            committed: None,
        }
    }

    /// Adds what a change asks for. Positions must grow.
    pub fn change(&mut self, position: Position, mark: Mark, origin: Origin, effect: Effect) {
        self.progress(position, mark);
        self.snapshot |= origin.xid.is_none();
        self.committed = self.committed.max(origin.committed);
        self.oldest = self.oldest.into_iter().chain(origin.committed).min();
        match &effect {
            Effect::Mutate(mutation) => self.bytes += mutation.bytes(),
            Effect::Echo { .. } => self.echoes += 1,
            Effect::Gone { .. } => {}
        }
        let xid = origin.xid.map(|xid| Streamed { xid, lsn: origin.lsn });
        self.entries.push(Entry { position, xid, effect });
    }

    /// Moves the position over a record that asks for nothing.
    pub fn progress(&mut self, position: Position, mark: Mark) {
        debug_assert!(position > self.to, "positions grow: {position} after {}", self.to);
        self.to = position;
        self.mark = mark;
        self.records += 1;
    }

    /// Parks a record that no decoder understands.
    pub fn dead(&mut self, mark: Mark, letter: DeadLetter) {
        self.progress(letter.position, mark);
        self.dead.push(letter);
    }

    pub fn partition(&self) -> &PartitionId {
        &self.partition
    }

    /// The last position inside.
    pub fn to(&self) -> Position {
        self.to
    }

    pub fn records(&self) -> usize {
        usize::try_from(self.records).expect("a window fits into memory")
    }

    /// Bytes of text in its mutations.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Whether there is anything to write but the position.
    pub fn has_work(&self) -> bool {
        !self.dead.is_empty()
            || self.entries.iter().any(|entry| matches!(entry.effect, Effect::Mutate(_)))
    }

    /// Whether a snapshot read is among the records.
    pub fn has_snapshot_reads(&self) -> bool {
        self.snapshot
    }

    /// The batches that write this window, to be committed in this order.
    ///
    /// `max_rows` and `max_bytes` bound each; the last record of a key decides what becomes of it.
    pub fn close(self, mode: Mode, slices: usize, max_rows: usize, max_bytes: usize) -> Vec<Batch> {
        let Self { partition, lane, from, to, mark, entries, dead, bytes, records, .. } = self;
        let rows = last_of_each_key(entries);
        let parts = match mode {
            Mode::Bulk => slices.min(rows.len() / WORTHWHILE_SLICE),
            Mode::Tail => 1,
        };
        let parts = parts.max(rows.len().div_ceil(max_rows)).max(bytes.div_ceil(max_bytes)).max(1);
        let mut sliced: Vec<Vec<Row>> = Vec::new();
        sliced.resize_with(parts, || Vec::with_capacity(rows.len() / parts + 16));
        for row in rows {
            let slice = row.mutation.key().stable_hash() % parts as u64;
            sliced[usize::try_from(slice).expect("less than the parts")].push(row);
        }
        // Hashing is only about even: a bound is a bound.
        let mut sliced: Vec<Vec<Row>> = sliced
            .into_iter()
            .flat_map(|slice| split_to(slice, max_rows))
            .filter(|slice| !slice.is_empty())
            .collect();
        let last = sliced.pop().unwrap_or_default();
        let delta = |to: Position| Delta { partition: partition.clone(), lane, from, to, mark };
        let mut batches: Vec<Batch> = sliced
            .into_iter()
            .map(|rows| Batch {
                mode,
                rows,
                dead: Vec::new(),
                delta: delta(from),
                counts: Counts::default(),
            })
            .collect();
        let Self { echoes, oldest, committed, .. } = self;
        let counts = Counts { records, echoes, oldest, committed };
        batches.push(Batch { mode, rows: last, dead, delta: delta(to), counts });
        batches
    }
}

impl Batch {
    /// Two batches that do the same, one after the other; itself where there is nothing to halve.
    #[expect(clippy::result_large_err, reason = "what comes back is the batch, not an error")]
    pub fn halve(mut self) -> Result<(Self, Self), Self> {
        if self.rows.len() < 2 {
            return Err(self);
        }
        let rest = self.rows.split_off(self.rows.len() / 2);
        let mut delta = self.delta.clone();
        delta.to = delta.from;
        let first = Self {
            mode: self.mode,
            rows: std::mem::replace(&mut self.rows, rest),
            dead: Vec::new(),
            delta,
            counts: Counts::default(),
        };
        Ok((first, self))
    }

    /// Its rows, and what it accounts for, where it does, as a batch of its own.
    pub fn apart(mut self) -> (Self, Option<Self>) {
        if self.delta.to == self.delta.from && self.dead.is_empty() {
            return (self, None);
        }
        let mut rows = Self {
            mode: self.mode,
            rows: std::mem::take(&mut self.rows),
            dead: Vec::new(),
            delta: self.delta.clone(),
            counts: Counts::default(),
        };
        rows.delta.to = rows.delta.from;
        (rows, Some(self))
    }

    /// The same batch with its only row parked instead of written.
    pub fn park(mut self, reason: String, detail: String) -> Self {
        for row in self.rows.drain(..) {
            let key_hash = Some(row.mutation.key().stable_hash());
            let (reason, detail) = (reason.clone(), detail.clone());
            self.dead.push(DeadLetter { position: row.position, key_hash, reason, detail });
        }
        self
    }
}

fn last_of_each_key(mut entries: Vec<Entry>) -> Vec<Row> {
    // Stable: entries of one key stay in the order of their positions.
    entries.sort_by(|a, b| a.effect.key().cmp(b.effect.key()));
    let mut rows: Vec<Row> = Vec::with_capacity(entries.len());
    let mut entries = entries.into_iter().peekable();
    while let Some(Entry { position, xid, effect }) = entries.next() {
        let superseded =
            entries.peek().is_some_and(|next: &Entry| next.effect.key() == effect.key());
        match effect {
            Effect::Mutate(mutation) if !superseded => rows.push(Row { position, xid, mutation }),
            Effect::Mutate(_) | Effect::Echo { .. } | Effect::Gone { .. } => {}
        }
    }
    rows
}

fn split_to(mut rows: Vec<Row>, max: usize) -> Vec<Vec<Row>> {
    let mut parts = Vec::with_capacity(1);
    while rows.len() > max {
        let rest = rows.split_off(max);
        parts.push(std::mem::replace(&mut rows, rest));
    }
    parts.push(rows);
    parts
}

/// Chooses how a partition is written, with hysteresis: between the two thresholds it stays as it is.
///
/// `queued` records wait in the worker; `behind` is the distance to the sampled end, where known.
pub fn choose_mode(
    now: Mode,
    queued: u64,
    behind: Option<u64>,
    settings: &settings::Batch,
) -> Mode {
    let waiting = behind.unwrap_or(0).max(queued);
    match now {
        Mode::Tail if waiting >= settings.bulk_above => Mode::Bulk,
        Mode::Bulk if waiting <= settings.tail_below => Mode::Tail,
        Mode::Tail | Mode::Bulk => now,
    }
}

/// Steers the rows of a statement to a service time: up by steps, down by a share.
///
/// Only the statement's own time counts; time in a queue says nothing of its size.
#[derive(Debug, Clone, Copy)]
pub struct RowCap {
    rows: usize,
    max: usize,
}

impl RowCap {
    /// Rows are never steered below this: smaller statements cost more than they spare.
    const MIN: usize = 100;
    const STEP: usize = 64;

    pub fn new(max: usize) -> Self {
        Self { rows: max, max }
    }

    pub fn rows(self) -> usize {
        self.rows
    }

    /// Takes note of a statement that did not end in time at all.
    pub fn shrink(&mut self) {
        self.rows = (self.rows / 2).max(Self::MIN.min(self.max));
    }

    /// Takes the time of a statement that wrote `rows`.
    pub fn observe(&mut self, rows: usize, took: std::time::Duration, target: std::time::Duration) {
        if took > target && rows >= self.rows / 2 {
            self.rows = (self.rows * 7 / 10).max(Self::MIN.min(self.max));
        } else if took < target / 2 {
            self.rows = (self.rows + Self::STEP).min(self.max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Key, Value};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    const STREAMED: Origin = Origin { xid: Some(7), lsn: Some(Lsn(9)), committed: None };

    fn keys(batch: &Batch) -> Vec<&Key> {
        batch.rows.iter().map(|row| row.mutation.key()).collect()
    }

    fn window() -> Window {
        Window::open(PartitionId::new("t", 0), Lane::ONLY, Position(-1))
    }

    fn fill(key: &str, value: &str) -> Effect {
        let (key, seen) = (Key::one(key), vec![Value::text(value)]);
        Effect::Mutate(Mutation::Fill { key, seen: seen.clone(), values: seen })
    }

    fn add(window: &mut Window, effect: Effect) {
        let position = Position(window.to().0 + 1);
        window.change(position, Mark::default(), STREAMED, effect);
    }

    #[test]
    fn the_last_record_of_a_key_decides() {
        let mut window = window();
        add(&mut window, fill("a", "old"));
        add(&mut window, fill("b", "b"));
        add(&mut window, fill("a", "new"));
        add(&mut window, fill("c", "c"));
        add(&mut window, Effect::Gone { key: Key::one("c") });
        add(&mut window, fill("d", "d"));
        add(&mut window, Effect::Echo { key: Key::one("d") });

        let batches = window.close(Mode::Tail, 8, 100, 1 << 20);

        let [batch] = &batches[..] else { panic!("one batch") };
        let written: Vec<_> =
            batch.rows.iter().map(|row| (row.position.0, &row.mutation)).collect();
        let expected = [(2, fill("a", "new")), (1, fill("b", "b"))];
        let expected = expected.map(|(position, effect)| match effect {
            Effect::Mutate(mutation) => (position, mutation),
            Effect::Echo { .. } | Effect::Gone { .. } => unreachable!("fills"),
        });
        assert_eq!(written, expected.each_ref().map(|(position, fill)| (*position, fill)));
        assert_eq!((batch.delta.from, batch.delta.to), (Position(-1), Position(6)));
        assert_eq!((batch.counts.records, batch.counts.echoes), (7, 1));
    }

    #[test]
    fn a_window_without_work_is_one_batch_that_moves_the_position() {
        let mut window = window();
        window.progress(Position(4), Mark::default());
        assert!(!window.has_work() && !window.is_empty());
        let batches = window.close(Mode::Bulk, 8, 100, 1 << 20);
        assert_eq!(batches.len(), 1);
        assert!(batches[0].rows.is_empty());
        assert_eq!(batches[0].delta.to, Position(4));
    }

    #[test]
    fn bulk_is_sliced_by_key_and_only_the_last_slice_accounts() {
        let mut window = window();
        for id in 0..8_000 {
            add(&mut window, fill(&id.to_string(), "x"));
        }
        let batches = window.close(Mode::Bulk, 8, 2_000, 1 << 30);
        assert_eq!(batches.len(), 8);
        let (last, before) = batches.split_last().expect("eight");
        assert!(before.iter().all(|batch| batch.delta.from == batch.delta.to));
        assert_eq!(last.delta.to, Position(7_999));
    }

    #[test]
    fn tail_with_one_row_a_batch_is_one_row_a_commit() {
        let mut window = window();
        for id in 0..5 {
            add(&mut window, fill(&id.to_string(), "x"));
        }
        let batches = window.close(Mode::Tail, 8, 1, 1 << 20);
        assert!(batches.iter().all(|batch| batch.rows.len() == 1));
        assert_eq!(batches.len(), 5);
    }

    #[test]
    fn halves_do_the_same_as_the_whole_and_account_once() {
        let mut window = window();
        for id in 0..5 {
            add(&mut window, fill(&id.to_string(), "x"));
        }
        let batch = window.close(Mode::Tail, 1, 100, 1 << 20).remove(0);
        let whole = batch.clone();
        let (first, second) = batch.halve().expect("five rows");
        assert_eq!([keys(&first), keys(&second)].concat(), keys(&whole));
        assert_eq!(first.delta.from, first.delta.to);
        assert_eq!((second.delta.to, second.counts), (whole.delta.to, whole.counts));
    }

    #[test]
    fn the_mode_changes_only_beyond_the_thresholds() {
        let settings = settings::Batch {
            max_rows: 1,
            max_bytes: 1,
            window: 1,
            slices: 1,
            target_time: Duration::ZERO,
            bulk_above: 5_000,
            tail_below: 500,
        };
        let choose = |now, queued, behind| choose_mode(now, queued, behind, &settings);
        assert_eq!(choose(Mode::Tail, 4_999, None), Mode::Tail);
        assert_eq!(choose(Mode::Tail, 3, Some(5_000)), Mode::Bulk);
        assert_eq!(choose(Mode::Bulk, 501, Some(0)), Mode::Bulk);
        assert_eq!(choose(Mode::Bulk, 500, Some(500)), Mode::Tail);
    }

    #[test]
    fn a_slow_statement_shrinks_the_cap_and_a_fast_one_grows_it_back() {
        let target = Duration::from_millis(100);
        let mut cap = RowCap::new(2_000);
        cap.observe(2_000, Duration::from_millis(300), target);
        assert_eq!(cap.rows(), 1_400);
        cap.observe(3, Duration::from_millis(300), target);
        assert_eq!(cap.rows(), 1_400, "three slow rows say nothing of fourteen hundred");
        for _ in 0..100 {
            cap.observe(1_400, Duration::from_millis(300), target);
        }
        assert_eq!(cap.rows(), RowCap::MIN);
        for _ in 0..100 {
            cap.observe(100, Duration::from_millis(9), target);
        }
        assert_eq!(cap.rows(), 2_000);
    }

    proptest! {
        #[test]
        fn batches_hold_each_keys_last_write_once_in_key_order_within_bounds(
            writes in proptest::collection::vec((0_u8..40, any::<u8>(), 0_u8..4), 1..300),
            max_rows in 1_usize..40,
            slices in 1_usize..9,
            bulk in any::<bool>(),
        ) {
            let mut window = window();
            let mut model = BTreeMap::new();
            for (key, value, kind) in writes {
                let name = Key::one(key.to_string());
                let effect = match kind {
                    0 => Effect::Gone { key: name.clone() },
                    1 => Effect::Echo { key: name.clone() },
                    _ => fill(&key.to_string(), &value.to_string()),
                };
                match &effect {
                    Effect::Mutate(mutation) => model.insert(name, mutation.clone()),
                    Effect::Echo { .. } | Effect::Gone { .. } => model.remove(&name),
                };
                add(&mut window, effect);
            }
            let (to, mode) = (window.to(), if bulk { Mode::Bulk } else { Mode::Tail });
            let batches = window.close(mode, slices, max_rows, 1 << 20);

            let accounting: Vec<_> = batches.iter().filter(|b| b.delta.to != b.delta.from).collect();
            prop_assert_eq!(accounting.len(), 1);
            prop_assert_eq!(batches.last().expect("one at least").delta.to, to);
            for batch in &batches {
                prop_assert!(batch.rows.len() <= max_rows);
                prop_assert!(keys(batch).is_sorted());
            }
            let written: BTreeMap<_, _> = batches
                .into_iter()
                .flat_map(|batch| batch.rows)
                .map(|row| (row.mutation.key().clone(), row.mutation))
                .collect();
            prop_assert_eq!(written, model);
        }
    }
}
