//! A source in memory, for tests and benches: logs that do what they are told, and a group of one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Polled, Source, SourceError};
use crate::pipeline::change::RawChange;
use crate::pipeline::position::{PartitionId, Position};
use crate::state::progress::Log;

/// A record: key and value bytes, each absent or not.
pub type Record = (Option<Vec<u8>>, Option<Vec<u8>>);

/// The source's end of the script; clones share it, so that a test keeps one.
#[derive(Debug, Clone, Default)]
pub struct ScriptSource(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    logs: BTreeMap<PartitionId, Vec<Record>>,
    notices: VecDeque<Polled>,
    next: BTreeMap<PartitionId, i64>,
    paused: BTreeSet<PartitionId>,
    polls: u64,
}

impl ScriptSource {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends to a partition's log; the first record has offset 0.
    pub fn append(&self, partition: &PartitionId, records: impl IntoIterator<Item = Record>) {
        self.state().logs.entry(partition.clone()).or_default().extend(records);
    }

    /// Replaces a log, as a topic that was deleted and created again.
    pub fn replace(&self, partition: &PartitionId, records: Vec<Record>) {
        self.state().logs.insert(partition.clone(), records);
    }

    pub fn assign(&self, partition: &PartitionId) {
        self.state().notices.push_back(Polled::Assigned(vec![partition.clone()]));
    }

    /// The bounds of a log.
    pub fn log(&self, partition: &PartitionId) -> Log {
        self.state().log(partition)
    }

    pub fn revoke(&self, partition: &PartitionId) {
        let mut state = self.state();
        state.next.remove(partition);
        state.notices.push_back(Polled::Revoked(vec![partition.clone()]));
    }

    pub fn is_paused(&self, partition: &PartitionId) -> bool {
        self.state().paused.contains(partition)
    }

    /// How often it was polled.
    pub fn polls(&self) -> u64 {
        self.state().polls
    }
}

impl State {
    fn log(&self, partition: &PartitionId) -> Log {
        let records = self.logs.get(partition).map_or(0, Vec::len);
        Log { low: 0, high: i64::try_from(records).expect("a script is short") }
    }
}

impl Source for ScriptSource {
    fn poll(
        &mut self,
        _: Duration,
        receive: &mut dyn FnMut(RawChange<'_>),
    ) -> Result<Polled, SourceError> {
        let mut state = self.state();
        state.polls += 1;
        if let Some(notice) = state.notices.pop_front() {
            return Ok(notice);
        }
        let State { logs, next, paused, .. } = &mut *state;
        for (partition, next) in next.iter_mut().filter(|(id, _)| !paused.contains(*id)) {
            let at = usize::try_from(*next).ok();
            let record = at.and_then(|at| logs.get(partition)?.get(at));
            if let Some((key, value)) = record {
                let position = Position(*next);
                receive(RawChange {
                    partition,
                    position,
                    key: key.as_deref(),
                    value: value.as_deref(),
                });
                *next += 1;
                return Ok(Polled::Record);
            }
        }
        Ok(Polled::Nothing)
    }

    fn start(&mut self, partition: &PartitionId, next: i64) {
        let mut state = self.state();
        state.paused.remove(partition);
        state.next.insert(partition.clone(), next);
    }

    fn pause(&mut self, partition: &PartitionId) {
        self.state().paused.insert(partition.clone());
    }

    fn resume(&mut self, partition: &PartitionId) {
        self.state().paused.remove(partition);
    }

    fn end(&self, partition: &PartitionId) -> Option<i64> {
        Some(self.state().log(partition).high)
    }

    fn look_again(&mut self, partition: &PartitionId) {
        self.assign(partition);
    }

    fn trouble(&self) -> Option<String> {
        None
    }

    fn mirror(&mut self, _: &[(PartitionId, Position)]) {}
}
