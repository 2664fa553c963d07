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
use crate::pipeline::position::{DatabaseMicros, PartitionId};
use crate::state::progress::{Log, Seen};

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

/// What a barrier must reach, from the bounds read after the slot confirmed it, and the positions read
/// *before* them.
///
/// # Errors
///
/// In words, while the positions are not of this log: made on another server or cluster, beyond its end,
/// or not made at all although it has had records. Only a claim can tell what that means.
pub fn ends(
    bounds: &[(PartitionId, Log)],
    positions: &[Seen],
    source: &str,
) -> Result<Vec<(PartitionId, i64)>, String> {
    let mut ends = Vec::new();
    for (partition, log) in bounds {
        let seen = positions.iter().find(|seen| seen.partition == *partition);
        match seen {
            // Nothing was ever there.
            None if log.high == 0 => continue,
            None => return Err(format!("nobody has claimed {partition} yet")),
            Some(seen) if seen.source != source => {
                return Err(format!("{partition} was last read from another server or cluster"));
            }
            Some(seen) if seen.position.next_offset() > log.high => {
                return Err(format!("{partition} is shorter than what was read of it"));
            }
            Some(_) => ends.push((partition.clone(), log.high)),
        }
    }
    Ok(ends)
}

/// Which partitions have not reached the ends of a barrier, and by how many records; empty when it has
/// arrived.
pub fn behind(ends: &[(PartitionId, i64)], positions: &[Seen]) -> Vec<(PartitionId, i64)> {
    ends.iter()
        .filter_map(|(partition, end)| {
            let seen = positions.iter().find(|seen| seen.partition == *partition);
            let next = seen.map_or(0, |seen| seen.position.next_offset());
            (next < *end).then(|| (partition.clone(), end - next))
        })
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
    use crate::pipeline::position::Position;

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

    fn id(number: i32) -> PartitionId {
        PartitionId::new("t", number)
    }

    fn seen(number: i32, position: i64, source: &str) -> Seen {
        let (source, position) = (source.to_owned(), Position(position));
        Seen { partition: id(number), position, source, rewound: false }
    }

    #[test]
    fn partitions_that_are_read_to_their_end_hold_nobody_up() {
        let log = |low, high| Log { low, high };
        // Empty from the start; all expired; idle; behind.
        let bounds =
            [(id(0), log(0, 0)), (id(1), log(5, 5)), (id(2), log(0, 4)), (id(3), log(2, 9))];
        let positions = [seen(1, 4, "here"), seen(2, 3, "here"), seen(3, 6, "here")];
        let ends = ends(&bounds, &positions, "here").unwrap();
        assert_eq!(behind(&ends, &positions), [(id(3), 2)]);
        let later = [seen(1, 4, "here"), seen(2, 3, "here"), seen(3, 11, "here")];
        assert_eq!(behind(&ends, &later), []);
    }

    #[test]
    fn expired_records_that_nobody_read_are_not_reached() {
        let bounds = [(id(0), Log { low: 9, high: 9 })];
        let positions = [seen(0, 3, "here")];
        let ends = ends(&bounds, &positions, "here").unwrap();
        assert_eq!(behind(&ends, &positions), [(id(0), 5)]);
    }

    #[test]
    fn positions_of_another_log_prove_nothing() {
        let bounds = [(id(0), Log { low: 0, high: 9 })];
        for positions in [vec![], vec![seen(0, 8, "there")], vec![seen(0, 9, "here")]] {
            assert!(ends(&bounds, &positions, "here").is_err(), "{positions:?}");
        }
        assert!(ends(&bounds, &[seen(0, 8, "here")], "here").is_ok());
    }
}
