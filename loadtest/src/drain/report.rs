//! The figures of all repetitions: a table for people, and a line of JSON for programs.

use std::fmt;

use serde_json::{Value, json};

use super::DrainCommand;
use super::contestants::{Outcome, Process};

/// All contests of one repetition, on the same rows and the same topic.
#[derive(Debug, Clone)]
pub(crate) struct Repetition {
    pub(crate) update: Outcome,
    /// The worker as it is, then its variants, in the order of the command line.
    pub(crate) workers: Vec<(String, Outcome, Process)>,
    pub(crate) row_by_row: Option<f64>,
}

/// Middle and bounds of one figure over the repetitions.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let (least, most) = (*figures.first()?, *figures.last()?);
        let middle = figures.len() / 2;
        let median = match figures.len() % 2 {
            1 => figures[middle],
            _ => f64::midpoint(figures[middle - 1], figures[middle]),
        };
        Some(Self { median, least, most })
    }
}

/// `12,345 (11,000–13,000)`, with as many decimals as asked for.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = f.precision().unwrap_or(0);
        let text = |figure: f64| grouped(figure, decimals);
        let Self { median, least, most } = *self;
        write!(f, "{} ({}–{})", text(median), text(least), text(most))
    }
}

/// A number with commas between thousands.
fn grouped(figure: f64, decimals: usize) -> String {
    let plain = format!("{figure:.decimals$}");
    let (whole, rest) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let mut text = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text + rest
}

/// One contestant's line of the table.
struct Line<'a> {
    who: String,
    outcomes: Vec<&'a Outcome>,
    processes: Vec<&'a Process>,
    ratios: Vec<f64>,
}

/// All lines: the UPDATE first.
fn lines(repetitions: &[Repetition]) -> Vec<Line<'_>> {
    let mut lines = vec![Line {
        who: "whole-table UPDATE".into(),
        outcomes: repetitions.iter().map(|one| &one.update).collect(),
        processes: Vec::new(),
        ratios: Vec::new(),
    }];
    let workers = repetitions.first().map_or(0, |one| one.workers.len());
    for index in 0..workers {
        let of = |one: &'_ Repetition| one.workers[index].1.rows_per_second;
        lines.push(Line {
            who: repetitions[0].workers[index].0.clone(),
            outcomes: repetitions.iter().map(|one| &one.workers[index].1).collect(),
            processes: repetitions.iter().map(|one| &one.workers[index].2).collect(),
            ratios: repetitions.iter().map(|one| of(one) / one.update.rows_per_second).collect(),
        });
    }
    lines
}

/// The table, medians with least and most.
pub(crate) fn table(command: &DrainCommand, repetitions: &[Repetition]) -> String {
    let spread = |outcomes: &[&Outcome], of: fn(&Outcome) -> f64| {
        Spread::of(outcomes.iter().map(|one| of(one))).expect("one repetition at least")
    };
    let mut text = format!(
        "\n{} rows, {} partitions, schemas {}, {} repetitions: median (least–most)\n\n",
        grouped(command.rows as f64, 0),
        command.partitions,
        command.schemas,
        repetitions.len(),
    );
    for Line { who, outcomes, processes, ratios } in lines(repetitions) {
        let rate = spread(&outcomes, |one| one.rows_per_second);
        let ratio = Spread::of(ratios).map(|ratio| format!(", {ratio:.2} of the UPDATE"));
        text += &format!("{who}: {rate} rows/s{}\n", ratio.unwrap_or_default());
        text += &format!(
            "    WAL {:.0} B/row; HOT {:.1} %; heap × {:.2}; indexes × {:.2}\n",
            spread(&outcomes, |one| one.cost.wal_bytes_per_row),
            spread(&outcomes, |one| one.cost.hot_percent),
            spread(&outcomes, |one| one.cost.heap_growth),
            spread(&outcomes, |one| one.cost.index_growth),
        );
        text += &format!(
            "    server's sessions {:.1} µs/row; machine idle {:.0} %\n",
            spread(&outcomes, |one| one.server_us_per_row),
            spread(&outcomes, |one| one.idle_percent),
        );
        if let Some(last) = processes.last() {
            let of = |of: fn(&Process) -> f64| {
                Spread::of(processes.iter().map(|one| of(one))).expect("one repetition at least")
            };
            text += &format!(
                "    worker {:.1} µs/row; peak {:.0} MB; first commit after {:.2} s\n",
                of(|one| one.us_per_row),
                of(|one| megabytes(one.peak_bytes)),
                of(|one| one.first_commit.as_secs_f64()),
            );
            let threads: Vec<String> = last
                .threads
                .iter()
                .filter(|(_, spent)| *spent >= 0.05)
                .map(|(name, spent)| format!("{name} {spent:.1}"))
                .collect();
            text += &format!("    its threads, µs/row, last repetition: {}\n", threads.join(", "));
        }
    }
    if let Some(rate) = Spread::of(repetitions.iter().filter_map(|one| one.row_by_row)) {
        text += &format!("one awaited UPDATE a message: {rate} rows/s\n");
    }
    text += &format!("mismatching rows: {}\n", mismatches(repetitions));
    text
}

/// The figures as one object; those of the first worker, medians.
pub(crate) fn json(command: &DrainCommand, repetitions: &[Repetition]) -> Value {
    let lines = lines(repetitions);
    let (update, worker) = (&lines[0], &lines[1]);
    let row_by_row = Spread::of(repetitions.iter().filter_map(|one| one.row_by_row));
    let to_row_by_row = Spread::of(
        repetitions
            .iter()
            .filter_map(|one| Some(one.workers[0].1.rows_per_second / one.row_by_row?)),
    );
    let variants: Vec<Value> = lines[2..]
        .iter()
        .map(|line| {
            json!({
                "settings": line.who,
                "rows_per_s": rounded(median(&line.outcomes, |one| one.rows_per_second), 0),
                "ratio_to_sql_update": rounded(middle(line.ratios.iter().copied()), 3),
            })
        })
        .collect();
    let process = |of: fn(&Process) -> f64| middle(worker.processes.iter().map(|one| of(one)));
    json!({
        "test": "drain",
        "rows": command.rows,
        "partitions": command.partitions,
        "schemas": command.schemas.to_string(),
        "repeat": repetitions.len(),
        "settings": worker.who,
        "rows_per_s": rounded(median(&worker.outcomes, |one| one.rows_per_second), 0),
        "sql_update_rows_per_s": rounded(median(&update.outcomes, |one| one.rows_per_second), 0),
        "ratio_to_sql_update": rounded(middle(worker.ratios.iter().copied()), 3),
        "per_row_rows_per_s": row_by_row.map(|rate| rounded(rate.median, 0)),
        "ratio_to_per_row": to_row_by_row.map(|ratio| rounded(ratio.median, 1)),
        "mismatches": mismatches(repetitions),
        "rss_mb": rounded(process(|one| megabytes(one.peak_bytes)), 1),
        "first_commit_s": rounded(process(|one| one.first_commit.as_secs_f64()), 2),
        "worker_cpu_us_per_row": rounded(process(|one| one.us_per_row), 2),
        "worker": costs(worker),
        "sql_update": costs(update),
        "variants": variants,
    })
}

/// Rows that were wrong after any contest.
pub(crate) fn mismatches(repetitions: &[Repetition]) -> u64 {
    lines(repetitions).iter().flat_map(|line| &line.outcomes).map(|one| one.mismatches).sum()
}

fn costs(line: &Line<'_>) -> Value {
    let of = |of: fn(&Outcome) -> f64, decimals| rounded(median(&line.outcomes, of), decimals);
    json!({
        "wal_bytes_per_row": of(|one| one.cost.wal_bytes_per_row, 0),
        "hot_pct": of(|one| one.cost.hot_percent, 1),
        "heap_growth": of(|one| one.cost.heap_growth, 3),
        "index_growth": of(|one| one.cost.index_growth, 3),
        "server_cpu_us_per_row": of(|one| one.server_us_per_row, 2),
        "machine_idle_pct": of(|one| one.idle_percent, 1),
    })
}

fn median(outcomes: &[&Outcome], of: fn(&Outcome) -> f64) -> f64 {
    middle(outcomes.iter().map(|one| of(one)))
}

fn middle(figures: impl IntoIterator<Item = f64>) -> f64 {
    Spread::of(figures).map_or(f64::NAN, |spread| spread.median)
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn rounded(figure: f64, decimals: i32) -> f64 {
    let scale = 10_f64.powi(decimals);
    (figure * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let of = |figures: &[f64]| Spread::of(figures.iter().copied()).map(|one| one.median);
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn thousands_are_told_apart() {
        assert_eq!(grouped(1_234_567.0, 0), "1,234,567");
        assert_eq!(grouped(123.0, 0), "123");
        assert_eq!(grouped(1_234.56, 1), "1,234.6");
        let spread = Spread::of([70_123.4, 69_000.0, 71_000.0]).unwrap();
        assert_eq!(spread.to_string(), "70,123 (69,000–71,000)");
    }
}
