//! The reading thread: source → envelope → transform → window, and windows to writers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, TrySendError};
use tokio::sync::{Notify, mpsc, watch};

use super::{ClaimRequest, Command, Plan, RunError, Work};
use crate::clock::Clock;
use crate::config::settings;
use crate::failpoint;
use crate::metric;
use crate::pipeline::batch::{DeadLetter, Window, choose_mode};
use crate::pipeline::change::{Decoded, RawChange};
use crate::pipeline::checkpoint::{Lane, Mark};
use crate::pipeline::envelope::DebeziumDecoder;
use crate::pipeline::position::{Epoch, PartitionId, Position};
use crate::pipeline::progress::{Mode, PartitionProgress, Progress};
use crate::pipeline::source::{Polled, Source};
use crate::pipeline::transform::Mapping;
use crate::state::gap::Gap;
use crate::state::progress::{Claim, Log};

/// Records taken in one go before windows and commands are looked at again.
const ROUND: usize = 512;
/// A window that only moves the position waits this long for company: each is a commit.
const IDLE_PROGRESS: Duration = Duration::from_millis(50);
/// How long a full window may hold up the poll loop before its partition is paused. A pause throws
/// the prefetched records away, so short waits are cheaper.
const PATIENCE: Duration = Duration::from_secs(1);
/// A window that cannot be handed over may grow to this many times its size.
const OVERFULL: usize = 2;
/// Records between two looks for overfull windows.
const STRIDE: usize = 64;
/// A partition that was fenced and is still ours after this is claimed again: by then the group has
/// told whoever lost it.
const FENCED_FOR: Duration = Duration::from_secs(15);

/// The way to one writer.
pub(super) struct WriterLane {
    pub(super) windows: Sender<Work>,
    pub(super) wake: Arc<Notify>,
}

pub(super) struct Ingest<S> {
    source: S,
    stage: Stage,
    lanes: Vec<WriterLane>,
    /// The partition that each writer was given last.
    served: Vec<Option<PartitionId>>,
    inbox: Receiver<Command>,
    claims: mpsc::Sender<ClaimRequest>,
    progress: Arc<watch::Sender<Progress>>,
    clock: Clock,
    batch: settings::Batch,
    /// Since when full windows hold up the loop.
    held_up: Option<Instant>,
    /// When ends were last published.
    published: Option<Instant>,
    /// The source's trouble as it stands in the progress.
    told: Option<String>,
    /// How long a writer may take to receive a last window.
    patience: Duration,
}

/// What a record passes through; apart from the source, which lends the record.
struct Stage {
    decoder: DebeziumDecoder,
    mapping: Arc<Mapping>,
    partitions: BTreeMap<PartitionId, Partition>,
    clock: Clock,
    records: u64,
}

struct Partition {
    phase: Phase,
    epoch: Epoch,
    live: Arc<AtomicBool>,
    mode: Mode,
    window: Window,
    opened: Option<Instant>,
    paused: bool,
    /// Records before this offset come from another server: their transaction ids mean nothing here.
    foreign_before: i64,
    /// Something other than what was expected was read.
    found: Option<Gap>,
}

enum Phase {
    /// Records are none of ours until the claim is answered.
    Claiming,
    /// The record at the stored position is read again and must be the one that was there.
    Recognising(Position, Mark),
    Running,
    /// Another worker has it, or it must be claimed anew: records are dropped.
    Stopped(Instant),
}

impl<S: Source> Ingest<S> {
    pub(super) fn new(
        plan: &Plan,
        decoder: DebeziumDecoder,
        source: S,
        lanes: Vec<WriterLane>,
        inbox: Receiver<Command>,
        claims: mpsc::Sender<ClaimRequest>,
        progress: &Arc<watch::Sender<Progress>>,
    ) -> Self {
        Self {
            source,
            stage: Stage {
                decoder,
                mapping: plan.mapping.clone(),
                partitions: BTreeMap::new(),
                clock: plan.clock.clone(),
                records: 0,
            },
            served: vec![None; lanes.len()],
            lanes,
            inbox,
            claims,
            progress: progress.clone(),
            clock: plan.clock.clone(),
            batch: plan.settings.batch.clone(),
            held_up: None,
            published: None,
            told: None,
            patience: plan.settings.worker.shutdown_timeout,
        }
    }

    /// Reads until told to stop, then hands over what is in the windows.
    pub(super) fn run(mut self) -> Result<(), RunError> {
        loop {
            while let Ok(command) = self.inbox.try_recv() {
                if !self.obey(command) {
                    self.drain();
                    return Ok(());
                }
            }
            let exhausted = self.read()?;
            self.claim_again();
            self.hand_over(exhausted);
            self.relieve();
            self.publish();
        }
    }

    /// Takes records until the source has none at hand, a window is full or a round is over; whether
    /// the source had no more.
    fn read(&mut self) -> Result<bool, RunError> {
        let waiting = self.stage.partitions.values().any(|one| !one.window.is_empty());
        let mut timeout = Duration::from_millis(if waiting { 1 } else { 50 });
        for taken in 0..ROUND {
            if taken.is_multiple_of(STRIDE) && self.overfull().next().is_some() {
                return Ok(false);
            }
            let Self { source, stage, .. } = self;
            match source.poll(timeout, &mut |raw| stage.receive(raw))? {
                Polled::Record => {}
                Polled::Nothing => return Ok(true),
                Polled::Assigned(partitions) => {
                    for partition in partitions {
                        self.assigned(partition, None);
                    }
                }
                Polled::Revoked(partitions) => {
                    for partition in partitions {
                        tracing::info!(%partition, "partition revoked");
                        if let Some(gone) = self.stage.partitions.remove(&partition) {
                            gone.live.store(false, Ordering::Release);
                        }
                        self.progress.send_modify(|progress| {
                            progress.partitions.remove(&partition);
                        });
                    }
                }
            }
            timeout = Duration::ZERO;
        }
        Ok(false)
    }

    /// Asks for a partition; whatever is still on its way from an earlier claim is void.
    fn assigned(&mut self, partition: PartitionId, found: Option<Gap>) {
        let live = Arc::new(AtomicBool::new(true));
        let fresh = Partition {
            phase: Phase::Claiming,
            epoch: Epoch(0),
            live: live.clone(),
            mode: Mode::Tail,
            window: Window::open(partition.clone(), Lane::ONLY, Position(-1)),
            opened: None,
            paused: false,
            foreign_before: 0,
            found: None,
        };
        if let Some(former) = self.stage.partitions.insert(partition.clone(), fresh) {
            former.live.store(false, Ordering::Release);
        }
        let request = ClaimRequest { partition, live, found };
        // The control task only ends when the worker does.
        let _ = self.claims.blocking_send(request);
    }

    fn claim_again(&mut self) {
        let wrong: Vec<_> = self
            .stage
            .partitions
            .iter_mut()
            .filter_map(|(id, one)| Some((id.clone(), one.found.take()?)))
            .collect();
        for (partition, gap) in wrong {
            tracing::error!(%partition, gap = gap.detail(), "the source is not what it was");
            self.source.pause(&partition);
            self.assigned(partition, Some(gap));
        }
    }

    /// `false` for the command to stop.
    fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Stop => return false,
            Command::Mirror(durable) => self.source.mirror(&durable),
            Command::LookAgain(partition) => {
                let claiming = |one: &Partition| matches!(one.phase, Phase::Claiming);
                if !self.stage.partitions.get(&partition).is_some_and(claiming) {
                    self.source.look_again(&partition);
                }
            }
            Command::Claimed { partition, live, log, claim } => {
                self.claimed(partition, &live, log, claim);
            }
            Command::SeekBack { partition, position, live } => {
                if let Some(one) = self.stage.owned(&partition, &live) {
                    tracing::warn!(%partition, %position, "a reported commit was lost, reading again");
                    one.restart(&partition, position, Phase::Running);
                    self.source.start(&partition, position.next_offset());
                }
            }
            Command::Fenced { partition, live } => {
                if let Some(one) = self.stage.owned(&partition, &live) {
                    tracing::warn!(%partition, "another worker has taken the partition over");
                    let position = one.window.to();
                    one.restart(&partition, position, Phase::Stopped(self.clock.now()));
                    self.source.pause(&partition);
                    self.progress.send_modify(|progress| {
                        progress.partitions.remove(&partition);
                    });
                }
            }
        }
        true
    }

    fn claimed(&mut self, partition: PartitionId, live: &Arc<AtomicBool>, log: Log, claim: Claim) {
        // Otherwise revoked or claimed again since.
        let Some(one) = self.stage.owned(&partition, live) else { return };
        let Claim { epoch, position, mark, gap: _, foreign_before, first } = claim;
        tracing::info!(
            %partition, %epoch, next = position.next_offset(), low = log.low, high = log.high,
            first, "partition claimed"
        );
        one.epoch = epoch;
        one.foreign_before = foreign_before;
        // The last record is read again where it is still there, to see that the log is the same.
        let (phase, next) = match mark {
            Some(mark) if position.0 >= log.low => (Phase::Recognising(position, mark), position.0),
            Some(_) | None => (Phase::Running, position.next_offset()),
        };
        one.restart(&partition, position, phase);
        self.source.start(&partition, next);
        let entry = PartitionProgress {
            position,
            end: Some(log.high),
            mode: one.mode,
            lag_seconds: None,
            committed: None,
        };
        self.progress.send_modify(|progress| {
            progress.partitions.insert(partition, entry);
        });
    }

    /// Gives each writer that has room the next of its partitions that has something for it.
    fn hand_over(&mut self, exhausted: bool) {
        let now = self.clock.now();
        for number in 0..self.lanes.len() {
            while !self.lanes[number].windows.is_full() {
                let Some(partition) = self.next_for(number, exhausted, now) else { break };
                if !self.send(number, &partition) {
                    return;
                }
            }
        }
    }

    fn next_for(&self, writer: usize, exhausted: bool, now: Instant) -> Option<PartitionId> {
        let ready = |(id, one): &(&PartitionId, &Partition)| {
            self.writer_of(id) == writer && one.ready(exhausted, now, &self.batch)
        };
        let after = self.served[writer].as_ref();
        let partitions = &self.stage.partitions;
        // Round robin: the first behind the one served last, else the first of all.
        partitions
            .iter()
            .filter(|(id, _)| after.is_none_or(|after| *id > after))
            .find(ready)
            .or_else(|| partitions.iter().find(ready))
            .map(|(id, _)| id.clone())
    }

    fn writer_of(&self, partition: &PartitionId) -> usize {
        usize::try_from(partition.number).unwrap_or(0) % self.lanes.len()
    }

    /// Closes a partition's window, to be written the way that fits how far behind it is.
    fn close(&mut self, partition: &PartitionId) -> Work {
        let end = self.source.end(partition);
        let one = self.stage.partitions.get_mut(partition).expect("chosen from the map");
        let behind = end.map(|end| (end - one.window.to().next_offset()).max(0).cast_unsigned());
        let queued = one.window.records() as u64;
        one.mode = choose_mode(one.mode, queued, behind, &self.batch);
        let mode = if one.window.has_snapshot_reads() { Mode::Bulk } else { one.mode };
        let next = Window::open(partition.clone(), Lane::ONLY, one.window.to());
        let window = std::mem::replace(&mut one.window, next);
        one.opened = None;
        failpoint::reached("batch::closed");
        Work { window, mode, epoch: one.epoch, live: one.live.clone() }
    }

    fn send(&mut self, writer: usize, partition: &PartitionId) -> bool {
        let work = self.close(partition);
        match self.lanes[writer].windows.try_send(work) {
            Ok(()) => self.lanes[writer].wake.notify_one(),
            Err(TrySendError::Full(_)) => unreachable!("the only sender saw room"),
            // The writer ended by an error, which stops the whole worker.
            Err(TrySendError::Disconnected(_)) => return false,
        }
        let one = self.stage.partitions.get_mut(partition).expect("just closed");
        if std::mem::take(&mut one.paused) {
            self.source.resume(partition);
        }
        self.served[writer] = Some(partition.clone());
        true
    }

    /// The partitions that can take no more before a writer takes their window.
    fn overfull(&self) -> impl Iterator<Item = &PartitionId> {
        let rows = self.batch.window * OVERFULL;
        let bytes = self.batch.max_bytes * self.batch.slices * OVERFULL;
        self.stage
            .partitions
            .iter()
            .filter(move |(_, one)| {
                !one.paused && (one.window.records() >= rows || one.window.bytes() >= bytes)
            })
            .map(|(id, _)| id)
    }

    /// Waits a moment for writers while windows are overfull; pauses their partitions when that takes
    /// long, so that polling goes on whatever the database does.
    fn relieve(&mut self) {
        let full: Vec<_> = self.overfull().cloned().collect();
        if full.is_empty() {
            self.held_up = None;
            return;
        }
        let now = self.clock.now();
        let since = *self.held_up.get_or_insert(now);
        if now.saturating_duration_since(since) < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
            return;
        }
        for partition in full {
            tracing::debug!(%partition, "paused: the database takes no more for now");
            self.source.pause(&partition);
            self.stage.partitions.get_mut(&partition).expect("listed").paused = true;
        }
        self.held_up = None;
    }

    /// Tells counts and ends, a few times a second.
    fn publish(&mut self) {
        let now = self.clock.now();
        let due = self
            .published
            .is_none_or(|last| now.saturating_duration_since(last) >= Duration::from_millis(200));
        if !due {
            return;
        }
        self.published = Some(now);
        let records = std::mem::take(&mut self.stage.records);
        metric::records(records);
        for (partition, one) in &mut self.stage.partitions {
            if let Phase::Stopped(since) = &mut one.phase
                && now.saturating_duration_since(*since) >= FENCED_FOR
            {
                *since = now;
                self.source.look_again(partition);
            }
        }
        let trouble = self.source.trouble();
        metric::partitions_paused(self.stage.partitions.values().filter(|one| one.paused).count());
        let Self { source, stage, progress, told, .. } = self;
        progress.send_modify(|progress| {
            progress.counters.records += records;
            if told.is_some() && trouble.is_none() {
                metric::reconnect(metric::Peer::Source);
            }
            if progress.throttled.is_none() || progress.throttled == *told {
                progress.throttled = trouble.clone();
                *told = trouble;
            }
            for (id, one) in &mut progress.partitions {
                one.end = source.end(id).or(one.end);
                if let Some(partition) = stage.partitions.get(id) {
                    one.mode = partition.mode;
                }
            }
        });
    }

    /// Hands over what is gathered and lets the writers end.
    fn drain(mut self) {
        let partitions: Vec<_> = self.stage.partitions.keys().cloned().collect();
        for partition in partitions {
            let writer = self.writer_of(&partition);
            if self.stage.partitions[&partition].window.is_empty() {
                continue;
            }
            let work = self.close(&partition);
            let lane = &self.lanes[writer];
            lane.wake.notify_one();
            // A writer that is gone gives up at once, a slow one when the time to drain is over.
            if lane.windows.send_timeout(work, self.patience).is_ok() {
                lane.wake.notify_one();
            }
        }
        self.publish();
        for WriterLane { windows, wake } in std::mem::take(&mut self.lanes) {
            drop(windows);
            wake.notify_one();
        }
    }
}

impl Stage {
    fn receive(&mut self, raw: RawChange<'_>) {
        let Some(one) = self.partitions.get_mut(raw.partition) else { return };
        match one.phase {
            Phase::Claiming | Phase::Stopped(_) => return,
            Phase::Recognising(position, expected) => {
                one.found = recognise(position, expected, &raw);
                one.phase = match one.found {
                    Some(_) => Phase::Stopped(self.clock.now()),
                    None => Phase::Running,
                };
                return;
            }
            Phase::Running => {}
        }
        if raw.position <= one.window.to() {
            return; // delivered again after a seek
        }
        failpoint::reached("source::polled");
        self.records += 1;
        one.opened.get_or_insert_with(|| self.clock.now());
        let mut mark = Mark { lsn: None, digest: digest(&raw) };
        match self.decoder.decode(&raw) {
            Ok(Decoded::Progress) => one.window.progress(raw.position, mark),
            Ok(Decoded::Change(mut event)) => {
                if raw.position.0 < one.foreign_before {
                    event.origin.xid = None;
                }
                mark.lsn = event.origin.lsn;
                let origin = event.origin;
                let effect = self.mapping.effect(event);
                one.window.change(raw.position, mark, origin, effect);
            }
            Err(error) => {
                tracing::warn!(
                    partition = %raw.partition, position = %raw.position, %error,
                    "record parked as a dead letter"
                );
                let letter = DeadLetter {
                    position: raw.position,
                    key_hash: None,
                    reason: error.reason().to_owned(),
                    detail: error.to_string(),
                };
                one.window.dead(mark, letter);
            }
        }
    }

    /// The partition, if its windows still are those of `live`.
    fn owned(&mut self, partition: &PartitionId, live: &Arc<AtomicBool>) -> Option<&mut Partition> {
        self.partitions.get_mut(partition).filter(|one| Arc::ptr_eq(&one.live, live))
    }
}

impl Partition {
    /// Forgets what was gathered and begins behind `position`.
    fn restart(&mut self, id: &PartitionId, position: Position, phase: Phase) {
        self.live.store(false, Ordering::Release);
        self.live = Arc::new(AtomicBool::new(true));
        self.window = Window::open(id.clone(), Lane::ONLY, position);
        self.opened = None;
        self.paused = false;
        self.phase = phase;
    }

    /// Whether an idle writer should take the window now.
    ///
    /// Whatever is queued goes at once; what only moves the position waits a little, and in bulk a
    /// window fills up as long as the source has more at hand.
    fn ready(&self, exhausted: bool, now: Instant, batch: &settings::Batch) -> bool {
        if self.window.is_empty() {
            return false;
        }
        let full = self.window.records() >= batch.window
            || self.window.bytes() >= batch.max_bytes * batch.slices;
        let aged = self
            .opened
            .is_some_and(|opened| now.saturating_duration_since(opened) >= IDLE_PROGRESS);
        full || aged || (exhausted && self.window.has_work())
    }
}

/// What is wrong with the first record, where the one at `position` should stand.
fn recognise(position: Position, expected: Mark, raw: &RawChange<'_>) -> Option<Gap> {
    if raw.position != position {
        return Some(Gap::NoRecord { position: position.0, found: raw.position.0 });
    }
    (digest(raw) != expected.digest).then_some(Gap::OtherRecord { position: position.0 })
}

/// Names a record by its length and its last bytes, where a Debezium event has its times.
fn digest(raw: &RawChange<'_>) -> u64 {
    const TAIL: usize = 128;
    let bytes = raw.value.or(raw.key).unwrap_or_default();
    let tail = &bytes[bytes.len().saturating_sub(TAIL)..];
    let mut hash = (bytes.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for chunk in tail.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^= hash >> 32;
    }
    hash
}

#[cfg(test)]
#[path = "ingest_tests.rs"]
mod tests;
