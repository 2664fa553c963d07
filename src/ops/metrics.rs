//! The Prometheus recorder for the table in [`crate::metric`].
//!
//! Text is rendered on request from our own HTTP server; the exporter's listener and its runtime are
//! compiled out. Its upkeep therefore falls to us ([`Exporter::upkeep`]): histograms buffer every
//! observation until somebody drains them, also while nobody scrapes.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use metrics_util::MetricKindMask;

use crate::metric::{self, Kind, Unit};
use crate::pipeline::progress::Progress;

/// Drains the histograms often enough that a busy worker holds some thousands of observations.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// A gauge that was not set again for this long is dropped at the next scrape: longer than a pause
/// between two samples, shorter than an alert's `for`.
const GAUGE_IDLE: Duration = Duration::from_secs(30);

/// The recorder could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    #[error("could not build the metrics recorder")]
    Build(#[source] BuildError),
    #[error("another metrics recorder is already installed")]
    Installed,
}

/// The numbers of this process, to be rendered.
#[derive(Clone)]
pub struct Exporter {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}

impl Exporter {
    /// A recorder with every metric described and every bucket set; it hears nothing until
    /// [`Exporter::install`].
    pub fn new() -> Result<Self, MetricsError> {
        Self::with_gauge_idle(GAUGE_IDLE)
    }

    fn with_gauge_idle(idle: Duration) -> Result<Self, MetricsError> {
        let mut builder = PrometheusBuilder::new().idle_timeout(MetricKindMask::GAUGE, Some(idle));
        for metric in metric::ALL {
            if let Kind::Histogram(buckets) = metric.kind {
                builder = builder
                    .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
                    .map_err(MetricsError::Build)?;
            }
        }
        let recorder = Arc::new(builder.build_recorder());
        metrics::with_local_recorder(&recorder, describe);
        let handle = recorder.handle();
        Ok(Self { recorder, handle })
    }

    /// Makes this the recorder of the process.
    ///
    /// # Errors
    ///
    /// [`MetricsError::Installed`] the second time.
    pub fn install(&self) -> Result<(), MetricsError> {
        metrics::set_global_recorder(Arc::clone(&self.recorder))
            .map_err(|_| MetricsError::Installed)?;
        metrics::with_local_recorder(&self.recorder, preset);
        Ok(())
    }

    /// The text format of Prometheus, with the gauges of `progress` as of `now`.
    pub fn render(&self, progress: &Progress, now: Instant) -> String {
        metrics::with_local_recorder(&self.recorder, || metric::publish(progress, now));
        self.handle.render()
    }

    /// Drains the histograms until `shutdown`; spawn it once a process.
    pub async fn upkeep(self, shutdown: impl Future<Output = ()>) {
        let mut tick = tokio::time::interval(UPKEEP_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                _ = tick.tick() => self.handle.run_upkeep(),
            }
        }
    }
}

/// Registers type, unit and help of every metric with the current recorder.
pub fn describe() {
    for metric in metric::ALL {
        let unit = match metric.unit {
            Unit::Seconds => metrics::Unit::Seconds,
            Unit::Bytes => metrics::Unit::Bytes,
            Unit::Count | Unit::Flag => metrics::Unit::Count,
        };
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, unit, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, unit, metric.help),
            Kind::Histogram(_) => metrics::describe_histogram!(metric.name, unit, metric.help),
        }
    }
}

/// Starts the counters at zero: `rate()` misses the first increment of a series that was not there.
fn preset() {
    metric::records(0);
    for outcome in metric::Outcome::ALL {
        metric::rows(outcome, 0);
    }
    for reason in metric::Retry::ALL {
        metric::retries(reason, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::clock::Clock;
    use crate::metric::{Outcome, Peer, Retry};
    use crate::ops::status::tests::sample;
    use crate::pipeline::progress::Mode;

    const PAGE: &str = include_str!("../../docs/metrics.md");

    fn emit_everything() {
        metric::records(3);
        for outcome in Outcome::ALL {
            metric::rows(outcome, 1);
        }
        metric::batch_written(Mode::Bulk, 5000, Duration::from_millis(40));
        metric::batch_written(Mode::Tail, 1, Duration::from_millis(1));
        metric::apply_lag(0.2);
        metric::retry(Retry::Deadlock);
        metric::reconnect(Peer::Database);
        metric::partitions_paused(2);
    }

    fn rendered() -> String {
        let clock = Clock::manual();
        let exporter = Exporter::new().expect("the table is valid");
        metrics::with_local_recorder(&exporter.recorder, emit_everything);
        exporter.render(&sample(&clock), clock.now())
    }

    /// Name to type and label names, of every series in the text.
    fn exposed(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
        let mut found = BTreeMap::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a type");
                found.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
            } else if !line.starts_with('#') && !line.is_empty() {
                let (series, labels) = match line.split_once('{') {
                    Some((series, rest)) => (series, rest.split_once('}').expect("closed").0),
                    None => (line.split_once(' ').expect("a value").0, ""),
                };
                let base = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|suffix| series.strip_suffix(suffix))
                    .filter(|base| found.contains_key(*base))
                    .unwrap_or(series);
                let (_, names) = found.get_mut(base).expect("a type line comes first");
                for label in labels.split(',').filter(|label| !label.is_empty()) {
                    let (name, _) = label.split_once('=').expect("a label has a value");
                    if name != "le" {
                        names.insert(name.to_owned());
                    }
                }
            }
        }
        found
    }

    #[test]
    fn exposes_exactly_the_table_with_its_types_labels_and_help() {
        let text = rendered();

        let expected: BTreeMap<_, _> = metric::ALL
            .iter()
            .map(|metric| {
                let labels = metric.labels.iter().map(|label| (*label).to_owned()).collect();
                (metric.name.to_owned(), (metric.kind.word().to_owned(), labels))
            })
            .collect();
        assert_eq!(exposed(&text), expected);
        for metric in metric::ALL {
            let help = format!("# HELP {} {}\n", metric.name, metric.help);
            assert!(text.contains(&help), "no help for {}", metric.name);
        }
    }

    #[test]
    fn follows_the_naming_convention() {
        for metric in metric::ALL {
            let name = metric.name;
            assert!(name.starts_with("crossfade_"), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            assert_eq!(name.ends_with("_seconds"), metric.unit == Unit::Seconds, "{name}");
            assert_eq!(name.ends_with("_bytes"), metric.unit == Unit::Bytes, "{name}");
        }
    }

    #[test]
    fn is_documented_by_exactly_one_table() {
        let expected: Vec<String> = metric::ALL
            .iter()
            .map(|metric| {
                let labels: Vec<_> =
                    metric.labels.iter().map(|label| format!("`{label}`")).collect();
                format!(
                    "| `{}` | {} | {} | {} | {}. |",
                    metric.name,
                    metric.kind.word(),
                    metric.unit.word(),
                    labels.join(", "),
                    metric.help,
                )
            })
            .collect();
        let rows: Vec<&str> =
            PAGE.lines().filter(|line| line.starts_with("| `crossfade_")).collect();

        for (row, expected) in rows.iter().zip(&expected) {
            assert!(row.starts_with(expected.as_str()), "\n{row}\nmust start with\n{expected}");
            let advice = &row[expected.len()..];
            assert!(advice.trim_matches(['|', ' ']).len() > 20, "no advice in\n{row}");
        }
        assert_eq!(rows.len(), expected.len(), "one row a metric in docs/metrics.md");
    }

    #[test]
    fn every_label_value_is_documented() {
        check("outcome", &Outcome::ALL.map(Outcome::word));
        check("mode", &[Mode::Bulk, Mode::Tail].map(metric::mode_word));
        check("reason", &Retry::ALL.map(Retry::word));
        check("peer", &Peer::ALL.map(Peer::word));
        check("state", &metric::STATES.map(metric::state_word));

        #[track_caller]
        fn check(label: &str, words: &[&str]) {
            let start = format!("| `{label}` | ");
            let row = PAGE.lines().find_map(|line| line.strip_prefix(&start)).expect(label);
            let listed: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
            assert_eq!(listed, words, "values of {label}");
        }
    }

    #[test]
    fn drops_a_gauge_that_is_no_longer_set() {
        // GIVEN a worker that owned two partitions
        let clock = Clock::manual();
        let exporter = Exporter::with_gauge_idle(Duration::ZERO).expect("the table is valid");
        let mut progress = sample(&clock);
        assert!(exporter.render(&progress, clock.now()).contains(r#"partition="users/1""#));

        // WHEN one goes to another worker
        progress.partitions.pop_last();

        // THEN it is absent: neither zero nor its last lag
        let text = exporter.render(&progress, clock.now());
        assert!(!text.contains(r#"partition="users/1""#), "{text}");
        assert!(text.contains(r#"partition="users/0""#), "{text}");
    }

    #[test]
    fn what_is_unknown_is_absent() {
        let clock = Clock::manual();
        let exporter = Exporter::new().expect("the table is valid");
        let mut progress = sample(&clock);
        for partition in progress.partitions.values_mut() {
            partition.end = None;
            partition.lag_seconds = None;
        }
        progress.slot = None;
        progress.sampled = None;

        let text = exporter.render(&progress, clock.now());

        for name in [
            metric::LAG_SECONDS.name,
            metric::LAG_RECORDS.name,
            metric::ROWS_REMAINING.name,
            metric::LAG_BYTES.name,
            metric::DEAD_LETTERS_OPEN.name,
        ] {
            assert!(!text.contains(&format!("\n{name}")), "{name} in\n{text}");
        }
    }
}
