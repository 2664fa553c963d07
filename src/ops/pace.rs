//! How fast the worker goes and how far it has come, from one sample to the next. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::metric;
use crate::pipeline::progress::Progress;

/// The rates are means over this time: long enough to smooth batches, short enough to notice a
/// throttle.
const WINDOW: Duration = Duration::from_secs(60);

/// No estimate before this much of the work and of time is seen: earlier ones are wrong by orders
/// of magnitude and are believed all the same.
const ETA_FROM_PERCENT: f64 = 1.0;
const ETA_FROM: Duration = Duration::from_secs(10);

/// At the fastest redraw, samples of a whole window.
const MAX_SAMPLES: usize = 128;

/// Fed with samples; asked for rates.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    samples: VecDeque<Sample>,
    /// The first sample whose remaining work was known.
    start: Option<Sample>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    written: u64,
    records: u64,
    remaining: Option<u64>,
}

impl Pace {
    pub fn observe(&mut self, progress: &Progress, now: Instant) {
        let sample = Sample {
            at: now,
            written: progress.counters.written,
            records: progress.counters.records,
            remaining: metric::remaining(progress),
        };
        if self.start.is_none() && sample.remaining.is_some() {
            self.start = Some(sample);
        }
        self.samples.push_back(sample);
        while self.samples.len() > MAX_SAMPLES
            || self.samples.get(1).is_some_and(|next| now.duration_since(next.at) >= WINDOW)
        {
            self.samples.pop_front();
        }
    }

    /// Rows that statements changed, per second; `None` before two samples.
    pub fn rows_per_second(&self) -> Option<f64> {
        let (first, last, seconds) = self.ends()?;
        Some(last.written.saturating_sub(first.written) as f64 / seconds)
    }

    /// Share of what this worker has read and has yet to read since its first sample. Reaches 100
    /// only when nothing remains, and may fall while writes come in faster than they are applied.
    pub fn percent(&self) -> Option<f64> {
        let last = self.samples.back()?;
        let remaining = last.remaining?;
        if remaining == 0 {
            return Some(100.0);
        }
        let done = last.records.saturating_sub(self.start?.records) as f64;
        let percent = 100.0 * done / (done + remaining as f64);
        // Rounded down: 99.96 % is not done.
        Some((percent * 10.0).floor().min(999.0) / 10.0)
    }

    /// Time until nothing remains, if the remaining work goes on shrinking as in the last window;
    /// `None` while it does not shrink or too little is seen.
    pub fn eta(&self) -> Option<Duration> {
        let (first, last, seconds) = self.ends()?;
        let remaining = last.remaining.filter(|remaining| *remaining > 0)?;
        let running = last.at.duration_since(self.start?.at);
        if running < ETA_FROM || self.percent()? < ETA_FROM_PERCENT {
            return None;
        }
        let shrunk = first.remaining?.checked_sub(remaining).filter(|shrunk| *shrunk > 0)?;
        let left = remaining as f64 * seconds / shrunk as f64;
        // Whole seconds; more than a year is no estimate.
        (left < 3.2e7).then(|| Duration::from_secs(left.ceil() as u64))
    }

    fn ends(&self) -> Option<(&Sample, &Sample, f64)> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let seconds = last.at.duration_since(first.at).as_secs_f64();
        (seconds > 0.0).then_some((first, last, seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::ops::status::tests::sample;
    use crate::pipeline::progress::Mode;

    /// Plays `t=… read=… left=…` lines and compares each with `…  → percent eta`.
    #[track_caller]
    fn check(timeline: &str) {
        let clock = Clock::manual();
        let mut progress = sample(&clock);
        progress.partitions.retain(|_, partition| partition.mode == Mode::Bulk);
        let mut pace = Pace::default();
        let mut passed = 0;
        for line in timeline.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (given, expected) = line.split_once("->").expect("an expectation");
            let fields: Vec<&str> =
                given.split_whitespace().map(|it| it.split_once('=').unwrap().1).collect();
            let at: u64 = fields[0].parse().unwrap();
            clock.advance(Duration::from_secs(at - passed));
            passed = at;
            progress.counters.records = fields[1].parse().unwrap();
            for partition in progress.partitions.values_mut() {
                let left: Option<i64> = fields[2].parse().ok();
                partition.end = left.map(|left| partition.position.next_offset() + left);
            }
            pace.observe(&progress, clock.now());
            let percent = pace.percent().map_or("?".into(), |it| format!("{it:.1}"));
            let eta = pace.eta().map_or("-".into(), |it| it.as_secs().to_string());
            assert_eq!(format!("{percent} {eta}"), expected.trim(), "{line}");
        }
    }

    #[test]
    fn estimates_only_after_ten_seconds_and_one_percent() {
        check(
            "
            t=0   read=0     left=1000000  -> 0.0 -
            t=5   read=50000 left=950000   -> 5.0 -
            t=10  read=90000 left=900000   -> 9.0 90
            ",
        );
        check(
            "
            t=0   read=0     left=1000000  -> 0.0 -
            t=30  read=9000  left=991000   -> 0.9 -
            t=31  read=10000 left=990000   -> 1.0 3069
            ",
        );
    }

    #[test]
    fn reaches_a_hundred_only_when_nothing_remains() {
        check(
            "
            t=0   read=0        left=1000000  -> 0.0 -
            t=20  read=9999999  left=1        -> 99.9 1
            t=30  read=10000000 left=0        -> 100.0 -
            ",
        );
    }

    #[test]
    fn gives_no_estimate_while_the_work_grows_or_is_unknown() {
        check(
            "
            t=0   read=0     left=1000  -> 0.0 -
            t=20  read=1000  left=1200  -> 45.4 -
            t=30  read=2000  left=?     -> ? -
            ",
        );
    }

    #[test]
    fn forgets_what_is_older_than_the_window() {
        let clock = Clock::manual();
        let mut progress = sample(&clock);
        let mut pace = Pace::default();
        progress.counters.written = 0;
        pace.observe(&progress, clock.now());
        assert_eq!(pace.rows_per_second(), None, "one sample has no rate");
        for second in 1..=300 {
            clock.advance(Duration::from_secs(1));
            progress.counters.written += if second <= 200 { 1000 } else { 10 };
            pace.observe(&progress, clock.now());
        }
        assert_eq!(pace.rows_per_second(), Some(10.0));
    }
}
