//! Caught up: everything that was committed before a moment is in our rows, and survives a crash.
//!
//! "Lag is low" proves nothing: a connector that is down, a snapshot that has not begun and events that
//! are not captured all look like no lag. So the gate sends a *barrier* all the way:
//!
//! 1. a non-transactional logical message gives an LSN on the primary: whatever was committed and
//!    acknowledged before has its commit record below;
//! 2. the connector's slot confirms that LSN, which it does only once Kafka has acknowledged all before;
//! 3. now the end offsets of all partitions are read: all that belongs below the barrier is below them;
//! 4. the durable positions reach those ends.
//!
//! The time from 1 to 4, by the database's clock, is a lag that was *proven*. The gate opens when
//! barriers, one after another, stayed under the limit for the whole hold.
//!
//! Rejected: waiting for the message itself in its topic. It is another partition, so it can arrive
//! while rows from before it are still on their way.

use std::collections::VecDeque;
use std::time::Duration;

use crate::pg::lsn::Lsn;
use crate::pipeline::position::{DatabaseMicros, PartitionId, Position};
use crate::state::progress::Log;

/// A longer time without a look starts the hold again: what happened meanwhile is not known.
pub const BLIND: Duration = Duration::from_secs(10);
/// Barriers remembered; when there are more, the hold is older than anybody asks for.
const REMEMBERED: usize = 10_000;

/// What was asked of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub max_lag: Duration,
    pub stable_for: Duration,
}

/// A barrier on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barrier {
    pub lsn: Lsn,
    pub sent: DatabaseMicros,
    /// The end offsets read after the slot had confirmed the LSN.
    pub ends: Option<Vec<(PartitionId, i64)>>,
}

/// A barrier that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    pub lsn: Lsn,
    pub sent: DatabaseMicros,
    pub arrived: DatabaseMicros,
}

/// What one look has shown; times by the database's clock.
#[derive(Debug, Clone, PartialEq)]
pub enum Look {
    /// The barrier in flight has arrived.
    Arrived(Arrival),
    /// It has not, for this reason.
    UnderWay { sent: DatabaseMicros, now: DatabaseMicros, waits_for: String },
    /// Nothing could be seen.
    Blind { reason: String },
    /// No barrier can prove anything until somebody has acted.
    NoGo { reason: String },
}

/// The gate's answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    Open {
        as_of: Lsn,
        held: Duration,
        worst_lag: Duration,
    },
    /// Caught up, not yet for long enough.
    Holding {
        held: Duration,
        remaining: Duration,
        worst_lag: Duration,
    },
    Closed {
        reason: String,
    },
    NoGo {
        reason: String,
    },
}

/// What the gate remembers between looks.
#[derive(Debug, Default)]
pub struct CatchUpGate {
    arrivals: VecDeque<Arrival>,
    last: Option<Look>,
}

impl CatchUpGate {
    /// Takes a look.
    pub fn observe(&mut self, look: Look) {
        match &look {
            Look::Arrived(arrival) => {
                if self.arrivals.len() == REMEMBERED {
                    self.arrivals.pop_front();
                }
                self.arrivals.push_back(*arrival);
            }
            Look::UnderWay { .. } => {}
            // What was proven before is no proof of what lies between.
            Look::Blind { .. } | Look::NoGo { .. } => self.arrivals.clear(),
        }
        self.last = Some(look);
    }

    /// Judges what was seen by somebody's limits.
    pub fn judge(&self, limits: Limits) -> Verdict {
        let (now, waits_for) = match &self.last {
            None => return closed("no barrier was sent yet"),
            Some(Look::NoGo { reason }) => return Verdict::NoGo { reason: reason.clone() },
            Some(Look::Blind { reason }) => return closed(reason),
            Some(Look::Arrived(arrival)) => (arrival.arrived, None),
            Some(Look::UnderWay { sent, now, waits_for }) => {
                let age = between(*sent, *now);
                if age > limits.max_lag {
                    return closed(&format!(
                        "a barrier is {:.1} s under way, limit {:.1} s: waiting for {waits_for}",
                        age.as_secs_f64(),
                        limits.max_lag.as_secs_f64(),
                    ));
                }
                (*now, Some(waits_for))
            }
        };
        let Some(last) = self.arrivals.back() else {
            return closed(waits_for.map_or("no barrier has arrived", String::as_str));
        };
        let (mut since, mut worst) = (last.sent, Duration::ZERO);
        let mut seen = now;
        for arrival in self.arrivals.iter().rev() {
            let lag = between(arrival.sent, arrival.arrived);
            if lag > limits.max_lag || between(arrival.arrived, seen) > BLIND {
                break;
            }
            worst = worst.max(lag);
            (since, seen) = (arrival.sent, arrival.sent);
        }
        if since == last.sent && between(last.sent, last.arrived) > limits.max_lag {
            return closed("the last barrier took longer than the limit");
        }
        if between(last.arrived, now) > BLIND {
            return closed("the last look is too long ago");
        }
        let held = between(since, now);
        match limits.stable_for.checked_sub(held) {
            None | Some(Duration::ZERO) => {
                Verdict::Open { as_of: last.lsn, held, worst_lag: worst }
            }
            Some(remaining) => Verdict::Holding { held, remaining, worst_lag: worst },
        }
    }
}

/// Which partitions have not reached the ends of a barrier; empty when it has arrived.
///
/// A partition that nobody has claimed counts as read up to the start of its log.
pub fn behind(
    ends: &[(PartitionId, i64)],
    positions: &[(PartitionId, Position)],
) -> Vec<(PartitionId, i64)> {
    ends.iter()
        .filter_map(|(partition, end)| {
            let next = positions
                .iter()
                .find(|(id, _)| id == partition)
                .map_or(0, |(_, position)| position.next_offset());
            (next < *end).then(|| (partition.clone(), end - next))
        })
        .collect()
}

/// The ends that a barrier must reach. An empty log has nothing to reach, wherever it starts.
pub fn ends(bounds: &[(PartitionId, Log)]) -> Vec<(PartitionId, i64)> {
    bounds
        .iter()
        .filter(|(_, log)| log.high > log.low)
        .map(|(partition, log)| (partition.clone(), log.high))
        .collect()
}

fn closed(reason: &str) -> Verdict {
    Verdict::Closed { reason: reason.to_owned() }
}

fn between(earlier: DatabaseMicros, later: DatabaseMicros) -> Duration {
    Duration::from_micros(later.0.saturating_sub(earlier.0).max(0).cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a timeline. Each line: `arrived SENT AT`, `underway SENT NOW`, `blind` or `nogo`, then
    /// `=>` and the verdict; seconds of the database's clock.
    #[track_caller]
    fn check(max_lag: u64, stable: u64, timeline: &str) {
        let limits = Limits {
            max_lag: Duration::from_secs(max_lag),
            stable_for: Duration::from_secs(stable),
        };
        let mut gate = CatchUpGate::default();
        for line in timeline.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (look, expected) = line.split_once("=>").expect("a look and a verdict");
            let words: Vec<&str> = look.split_whitespace().collect();
            let at =
                |index: usize| DatabaseMicros(words[index].parse::<i64>().unwrap() * 1_000_000);
            gate.observe(match words[0] {
                "arrived" => Look::Arrived(Arrival { lsn: Lsn(7), sent: at(1), arrived: at(2) }),
                "underway" => {
                    Look::UnderWay { sent: at(1), now: at(2), waits_for: "the slot".into() }
                }
                "blind" => Look::Blind { reason: "no database".into() },
                "nogo" => Look::NoGo { reason: "a gap".into() },
                other => panic!("{other}"),
            });
            let verdict = match gate.judge(limits) {
                Verdict::Open { held, .. } => format!("open {}", held.as_secs()),
                Verdict::Holding { remaining, .. } => format!("holding {}", remaining.as_secs()),
                Verdict::Closed { .. } => "closed".into(),
                Verdict::NoGo { .. } => "no-go".into(),
            };
            assert_eq!(verdict, expected.trim(), "{line}");
        }
    }

    #[test]
    fn opens_after_barriers_arrived_in_time_for_the_whole_hold() {
        check(
            5,
            10,
            "
            underway 0 1    => closed
            arrived  0 2    => holding 8
            arrived  3 4    => holding 6
            underway 5 9    => holding 1
            arrived  5 10   => open 10
            ",
        );
    }

    #[test]
    fn one_late_barrier_starts_the_hold_again() {
        check(
            5,
            10,
            "
            arrived  0 1    => holding 9
            underway 2 8    => closed
            arrived  2 9    => closed
            arrived  9 11   => holding 8
            arrived  12 13  => holding 6
            arrived  18 19  => open 10
            ",
        );
    }

    #[test]
    fn a_blind_moment_a_no_go_and_a_long_silence_start_the_hold_again() {
        check(
            5,
            10,
            "
            arrived  0 1    => holding 9
            blind           => closed
            arrived  9 10   => holding 9
            nogo            => no-go
            arrived  20 21  => holding 9
            arrived  40 41  => holding 9
            ",
        );
    }

    #[test]
    fn nothing_seen_is_closed() {
        let limits = Limits { max_lag: Duration::from_secs(5), stable_for: Duration::ZERO };
        assert!(matches!(CatchUpGate::default().judge(limits), Verdict::Closed { .. }));
    }

    #[test]
    fn without_a_hold_one_barrier_opens() {
        check(5, 0, "arrived 0 1 => open 1");
    }

    #[test]
    fn idle_and_empty_partitions_hold_nobody_up_but_unclaimed_ones_do() {
        let id = |number| PartitionId::new("t", number);
        let log = |low, high| Log { low, high };
        let bounds =
            [(id(0), log(0, 0)), (id(1), log(5, 5)), (id(2), log(0, 4)), (id(3), log(2, 9))];
        let ends = ends(&bounds);
        assert_eq!(behind(&ends, &[(id(2), Position(3))]), [(id(3), 9)]);
        assert_eq!(behind(&ends, &[(id(2), Position(2)), (id(3), Position(8))]), [(id(2), 1)]);
    }
}
