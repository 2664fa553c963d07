//! The worker's state as others read it: the JSON of `/v1/status`, and whether the worker lives.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::metric;
use crate::pipeline::progress::{Counters, PartitionProgress, Progress, SlotSample, WorkerState};

/// A worker that is behind, not throttled and sees its peers must move a partition in this time.
/// Longer than any statement, back-off or rebalance that the settings allow.
pub const STALL_AFTER: Duration = Duration::from_secs(300);

/// A sample older than this says nothing about the present; several times any sensible
/// `worker.sample_every`.
pub const SAMPLE_STALE: Duration = Duration::from_secs(30);

/// Which worker this is.
#[derive(Debug, Clone)]
pub struct About {
    pub migration: String,
    pub version: &'static str,
}

impl About {
    /// This build at work on `migration`.
    pub fn new(migration: impl Into<String>) -> Self {
        Self { migration: migration.into(), version: env!("CARGO_PKG_VERSION") }
    }
}

/// The body of `/v1/status`. Ages are in seconds by this process's clock; `null` is unknown, never
/// zero.
#[derive(Debug, Serialize)]
pub struct Status<'a> {
    pub migration: &'a str,
    pub version: &'a str,
    pub state: &'static str,
    pub throttled: Option<&'a str>,
    /// The largest of the partitions.
    pub lag_seconds: Option<f64>,
    pub rows_remaining: Option<u64>,
    pub partitions: BTreeMap<String, Partition>,
    pub counters: Counts,
    pub slot: Option<Slot>,
    pub source_gaps: &'a [String],
    pub dead_letters_open: u64,
    pub sample_age_seconds: Option<f64>,
    pub moved_age_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
pub struct Partition {
    pub position: i64,
    pub end: Option<i64>,
    pub mode: &'static str,
    pub lag_seconds: Option<f64>,
    pub lag_records: Option<u64>,
}

#[derive(Debug, Serialize)]
pub struct Counts {
    pub records: u64,
    pub written: u64,
    pub equal: u64,
    pub newer: u64,
    pub deleted: u64,
    pub reread: u64,
    pub dead: u64,
    pub echoes: u64,
    pub retries: u64,
    pub batches: u64,
}

#[derive(Debug, Serialize)]
pub struct Slot {
    pub active: bool,
    pub lag_bytes: u64,
    pub retained_bytes: u64,
    pub confirmed: Option<String>,
}

impl<'a> Status<'a> {
    pub fn of(about: &'a About, progress: &'a Progress, now: Instant) -> Self {
        let age = |at: Instant| now.saturating_duration_since(at).as_secs_f64();
        Self {
            migration: &about.migration,
            version: about.version,
            state: metric::state_word(progress.state),
            throttled: progress.throttled.as_deref(),
            lag_seconds: metric::worst_lag_seconds(progress),
            rows_remaining: metric::remaining(progress),
            partitions: progress
                .partitions
                .iter()
                .map(|(id, partition)| (id.to_string(), Partition::of(partition)))
                .collect(),
            counters: Counts::of(progress.counters),
            slot: progress.slot.map(Slot::of),
            source_gaps: &progress.source_gaps,
            dead_letters_open: progress.dead_letters_open,
            sample_age_seconds: progress.sampled.map(age),
            moved_age_seconds: progress.moved.map(age),
        }
    }
}

impl Partition {
    fn of(partition: &PartitionProgress) -> Self {
        Self {
            position: partition.position.0,
            end: partition.end,
            mode: metric::mode_word(partition.mode),
            lag_seconds: partition.lag_seconds,
            lag_records: partition.lag_records(),
        }
    }
}

impl Counts {
    fn of(counters: Counters) -> Self {
        // Taken apart, so that a new counter must be shown.
        let Counters {
            records,
            written,
            equal,
            newer,
            deleted,
            reread,
            dead,
            echoes,
            retries,
            batches,
        } = counters;
        Self { records, written, equal, newer, deleted, reread, dead, echoes, retries, batches }
    }
}

impl Slot {
    fn of(sample: SlotSample) -> Self {
        let SlotSample { active, lag_bytes, retained_bytes, confirmed } = sample;
        Self { active, lag_bytes, retained_bytes, confirmed: confirmed.map(|lsn| lsn.to_string()) }
    }
}

/// The answer to a probe, with the reason in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    Pass(&'static str),
    Fail(&'static str),
}

/// Whether a restart could help, judged from one probe to the next.
///
/// A database or a broker that is down is not our death: the sample grows old or `throttled` says
/// what is waited for, and either allows the worker to be still. So `throttled` must be set while
/// the source is unreachable.
///
/// Not "`moved` is old": after an idle hour it is old at the moment the next record arrives.
#[derive(Debug, Default)]
pub struct Watchdog {
    /// Since when no probe found a reason for the worker to be still.
    due_since: Option<Instant>,
}

impl Watchdog {
    pub fn observe(&mut self, progress: &Progress, now: Instant) -> Probe {
        if progress.state == WorkerState::Failed {
            return Probe::Fail("failed: see the log");
        }
        if let Some(why) = may_be_still(progress, now) {
            self.due_since = None;
            return Probe::Pass(why);
        }
        let due = *self.due_since.get_or_insert(now);
        let since = progress.moved.map_or(due, |moved| moved.max(due));
        if now.saturating_duration_since(since) > STALL_AFTER {
            Probe::Fail("stalled: records wait, nothing throttles, no partition moves")
        } else {
            Probe::Pass("running")
        }
    }
}

/// Why no partition needs to move now.
fn may_be_still(progress: &Progress, now: Instant) -> Option<&'static str> {
    match progress.state {
        WorkerState::Starting => return Some("starting"),
        WorkerState::Draining => return Some("draining"),
        WorkerState::Stopped => return Some("stopped"),
        WorkerState::Failed | WorkerState::Running => {}
    }
    if progress.throttled.is_some() {
        Some("throttled")
    } else if !is_fresh(progress.sampled, now) {
        Some("cannot see the database")
    } else if metric::remaining(progress).is_none_or(|behind| behind == 0) {
        Some("nothing known to do")
    } else {
        None
    }
}

fn is_fresh(sampled: Option<Instant>, now: Instant) -> bool {
    sampled.is_some_and(|at| now.saturating_duration_since(at) <= SAMPLE_STALE)
}

/// Whether the worker could write now.
pub fn readiness(progress: &Progress, now: Instant) -> Probe {
    match progress.state {
        WorkerState::Starting => return Probe::Fail("starting"),
        WorkerState::Draining => return Probe::Fail("draining"),
        WorkerState::Stopped => return Probe::Fail("stopped"),
        WorkerState::Failed => return Probe::Fail("failed: see the log"),
        WorkerState::Running => {}
    }
    match progress.sampled {
        sampled if is_fresh(sampled, now) => Probe::Pass("ready"),
        Some(_) => Probe::Fail("the last sample of the database is too old"),
        None => Probe::Fail("the database was not sampled yet"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::pg::lsn::Lsn;
    use crate::pipeline::position::{PartitionId, Position};
    use crate::pipeline::progress::Mode;

    /// A worker with one partition in bulk and one that tails.
    pub(crate) fn sample(clock: &Clock) -> Progress {
        let now = clock.now();
        let partition = |position, end, mode, lag| PartitionProgress {
            position: Position(position),
            end: Some(end),
            mode,
            lag_seconds: Some(lag),
            committed: None,
        };
        Progress {
            state: WorkerState::Running,
            partitions: BTreeMap::from([
                (PartitionId::new("users", 0), partition(999, 2000, Mode::Bulk, 42.5)),
                (PartitionId::new("users", 1), partition(499, 500, Mode::Tail, 0.0)),
            ]),
            counters: Counters {
                records: 1500,
                written: 1400,
                equal: 60,
                newer: 20,
                deleted: 10,
                reread: 5,
                dead: 1,
                echoes: 4,
                retries: 2,
                batches: 7,
            },
            throttled: None,
            slot: Some(SlotSample {
                active: true,
                lag_bytes: 4096,
                retained_bytes: 65536,
                confirmed: Some(Lsn(0x3A_9F02_C1B8)),
            }),
            source_gaps: Vec::new(),
            dead_letters_open: 1,
            sampled: Some(now),
            moved: Some(now),
        }
    }

    fn minutes(count: u64) -> Duration {
        Duration::from_secs(60 * count)
    }

    #[test]
    fn stalls_only_when_records_wait_and_nothing_excuses_it() {
        let clock = Clock::manual();
        let mut progress = sample(&clock);
        let mut watchdog = Watchdog::default();
        let mut probe = |progress: &mut Progress| {
            progress.sampled = Some(clock.now());
            watchdog.observe(progress, clock.now())
        };

        assert_eq!(probe(&mut progress), Probe::Pass("running"));
        clock.advance(minutes(6));
        assert!(matches!(probe(&mut progress), Probe::Fail(_)));

        progress.throttled = Some("waits for a replica".into());
        assert_eq!(probe(&mut progress), Probe::Pass("throttled"));

        progress.throttled = None;
        assert_eq!(probe(&mut progress), Probe::Pass("running"), "the time starts again");
        clock.advance(minutes(4));
        progress.moved = Some(clock.now());
        clock.advance(minutes(4));
        assert_eq!(probe(&mut progress), Probe::Pass("running"), "it moved in between");
    }

    #[test]
    fn a_record_after_an_idle_hour_is_no_stall() {
        let clock = Clock::manual();
        let mut progress = sample(&clock);
        let mut watchdog = Watchdog::default();
        let busy = progress.partitions.clone();
        progress.partitions.retain(|_, partition| partition.lag_records() == Some(0));

        clock.advance(minutes(60));
        progress.sampled = Some(clock.now());
        assert_eq!(watchdog.observe(&progress, clock.now()), Probe::Pass("nothing known to do"));
        progress.partitions = busy;
        assert_eq!(watchdog.observe(&progress, clock.now()), Probe::Pass("running"));
    }

    #[test]
    fn lives_but_is_not_ready_while_the_database_is_down() {
        let clock = Clock::manual();
        let progress = sample(&clock);
        clock.advance(minutes(60));

        let probe = Watchdog::default().observe(&progress, clock.now());
        assert_eq!(probe, Probe::Pass("cannot see the database"));
        assert!(matches!(readiness(&progress, clock.now()), Probe::Fail(_)));
    }

    #[test]
    fn is_ready_while_it_runs() {
        let clock = Clock::manual();
        let mut progress = sample(&clock);
        let ready = |progress: &Progress| readiness(progress, clock.now()) == Probe::Pass("ready");
        let states = metric::STATES.map(|state| {
            progress.state = state;
            (state, ready(&progress))
        });

        let passing: Vec<_> = states.iter().filter(|(_, ready)| *ready).map(|it| it.0).collect();
        assert_eq!(passing, [WorkerState::Running]);
    }
}
