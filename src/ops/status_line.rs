//! The worker's state on standard error: a bar at a terminal, a `key=value` line every ten seconds
//! elsewhere, a log event where the log is JSON; all in the same words.

use std::fmt::Write;
use std::future::Future;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::clock::Clock;
use crate::metric;
use crate::ops::key_value::write_pair;
use crate::ops::pace::Pace;
use crate::ops::screen::{Form, Screen};
use crate::pipeline::progress::{Mode, Progress};

/// Between two lines that are kept.
const PRINT_EVERY: Duration = Duration::from_secs(10);

/// Between two drawings of the same line.
const DRAW_EVERY: Duration = Duration::from_millis(500);

/// WAL that a connector leaves unconfirmed while it does its work; below it a person sees nothing of it.
const CONNECTOR_BEHIND: u64 = 16 << 20;

/// Steps of the bar.
const BAR_LENGTH: u64 = 1000;

/// The state as one line of pairs, without a line feed. `?` is unknown, never zero.
pub fn render_line(progress: &Progress, pace: &Pace, now: Instant) -> String {
    let facts = Facts::of(progress, pace, now);
    let mut line = String::new();
    let mut pair = |key, value: String| {
        // Writing to a string cannot fail.
        write_pair(&mut line, key, &value).unwrap_or(());
    };
    pair("state", facts.state.to_owned());
    pair("rows_written", progress.counters.written.to_string());
    pair("rows_per_s", facts.rate.map_or_else(unknown, |rate| format!("{rate:.0}")));
    pair("lag_s", facts.lag.map_or_else(unknown, |lag| format!("{lag:.1}")));
    pair("behind", facts.behind.map_or_else(unknown, |behind| behind.to_string()));
    // What the connector has not delivered yet is in none of the figures before.
    pair("slot_lag_bytes", progress.slot.map_or_else(unknown, |slot| slot.lag_bytes.to_string()));
    if let Some(percent) = facts.percent {
        pair("percent", format!("{percent:.1}"));
    }
    if let Some(eta) = facts.eta {
        pair("eta_s", eta.as_secs().to_string());
    }
    pair("bulk", facts.bulk.to_string());
    pair("tail", facts.tail.to_string());
    pair("retries", progress.counters.retries.to_string());
    pair("dead", progress.dead_letters_open.to_string());
    pair("gaps", progress.source_gaps.len().to_string());
    pair("sample_age_s", facts.sample_age.map_or_else(unknown, |age| age.as_secs().to_string()));
    if let Some(why) = &progress.throttled {
        pair("throttled", why.clone());
    }
    line.trim_start().to_owned()
}

/// The state for a person, without a line feed: what is well is left out, and what is not comes
/// first, because a terminal cuts the end off.
pub fn render_human(progress: &Progress, pace: &Pace, now: Instant) -> String {
    let facts = Facts::of(progress, pace, now);
    let mut line = facts.state.to_owned();
    let mut part = |text: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        line.write_fmt(format_args!("   {text}")).unwrap_or(());
    };
    if !progress.source_gaps.is_empty() {
        part(format_args!("SOURCE GAP: {}", progress.source_gaps.join("; ")));
    }
    if progress.dead_letters_open > 0 {
        part(format_args!("DEAD LETTERS {}", HumanCount(progress.dead_letters_open)));
    }
    if let Some(why) = &progress.throttled {
        part(format_args!("slowed: {why}"));
    }
    if let Some(percent) = facts.percent {
        part(format_args!("{percent:.1} %"));
    }
    if let Some(eta) = facts.eta {
        part(format_args!("about {} left", HumanDuration(eta)));
    }
    match facts.lag {
        Some(lag) => part(format_args!("lag {lag:.1} s")),
        None => part(format_args!("lag unknown")),
    }
    match facts.behind {
        Some(behind) => part(format_args!("{} behind", HumanCount(behind))),
        None => part(format_args!("? behind")),
    }
    match progress.slot {
        Some(slot) if slot.lag_bytes >= CONNECTOR_BEHIND => {
            part(format_args!("connector {} behind", HumanBytes(slot.lag_bytes)));
        }
        Some(_) | None => {}
    }
    part(format_args!("{} rows", HumanCount(progress.counters.written)));
    if let Some(rate) = facts.rate {
        part(format_args!("{}/s", HumanCount(rate.round() as u64)));
    }
    if facts.bulk > 0 {
        part(format_args!("bulk {}/{}", facts.bulk, facts.bulk + facts.tail));
    }
    if progress.counters.retries > 0 {
        part(format_args!("retried {}", HumanCount(progress.counters.retries)));
    }
    line
}

/// Shows the state until `shutdown`, or until the worker is gone.
///
/// What is shown after `shutdown` is requested is up to the caller: pass a future that resolves
/// when the drain is over, and the drain is shown too.
pub async fn run(
    mut progress: watch::Receiver<Progress>,
    clock: Clock,
    shutdown: impl Future<Output = ()>,
    screen: Screen,
) {
    let mut pace = Pace::default();
    let bar = (screen.form() == Form::Drawn).then(|| screen.add(new_bar()));
    let mut tick = interval(if bar.is_some() { DRAW_EVERY } else { PRINT_EVERY });
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(shutdown);
    loop {
        let stop = tokio::select! {
            () = &mut shutdown => true,
            () = gone(&mut progress) => true,
            _ = tick.tick() => false,
        };
        {
            let now = clock.now();
            let progress = progress.borrow();
            pace.observe(&progress, now);
            match &bar {
                Some(bar) if !stop => draw(bar, &progress, &pace, now),
                Some(bar) => {
                    bar.finish_and_clear();
                    screen.line(&render_human(&progress, &pace, now));
                }
                None if screen.form() == Form::Json => log(&progress, &pace, now),
                None => screen.line(&render_line(&progress, &pace, now)),
            }
        }
        if stop {
            return;
        }
    }
}

/// Resolves when nobody can report progress any more.
async fn gone(progress: &mut watch::Receiver<Progress>) {
    while progress.changed().await.is_ok() {}
}

/// The same facts as fields; what is unknown is left out.
fn log(progress: &Progress, pace: &Pace, now: Instant) {
    let facts = Facts::of(progress, pace, now);
    tracing::info!(
        state = facts.state,
        rows_written = progress.counters.written,
        rows_per_s = facts.rate,
        lag_s = facts.lag,
        behind = facts.behind,
        percent = facts.percent,
        eta_s = facts.eta.map(|eta| eta.as_secs()),
        bulk = facts.bulk,
        tail = facts.tail,
        retries = progress.counters.retries,
        dead = progress.dead_letters_open,
        gaps = progress.source_gaps.len(),
        sample_age_s = facts.sample_age.map(|age| age.as_secs()),
        throttled = progress.throttled.as_deref(),
        "status"
    );
}

fn new_bar() -> ProgressBar {
    ProgressBar::new(BAR_LENGTH)
}

fn draw(bar: &ProgressBar, progress: &Progress, pace: &Pace, now: Instant) {
    let template = if pace.percent().is_some() {
        "{spinner} [{bar:20.cyan}] {wide_msg}"
    } else {
        "{spinner} {wide_msg}"
    };
    let style = ProgressStyle::with_template(template).expect("the template is fixed and valid");
    bar.set_style(style.progress_chars("=> "));
    let steps = pace.percent().unwrap_or(0.0) * BAR_LENGTH as f64 / 100.0;
    bar.set_position((steps as u64).min(BAR_LENGTH));
    bar.set_message(render_human(progress, pace, now));
    bar.tick();
}

struct Facts {
    state: &'static str,
    rate: Option<f64>,
    lag: Option<f64>,
    behind: Option<u64>,
    percent: Option<f64>,
    eta: Option<Duration>,
    bulk: usize,
    tail: usize,
    sample_age: Option<Duration>,
}

impl Facts {
    fn of(progress: &Progress, pace: &Pace, now: Instant) -> Self {
        let count =
            |mode| progress.partitions.values().filter(|partition| partition.mode == mode).count();
        Self {
            state: metric::state_word(progress.state),
            rate: pace.rows_per_second(),
            lag: metric::worst_lag_seconds(progress),
            behind: metric::remaining(progress),
            percent: pace.percent(),
            eta: pace.eta(),
            bulk: count(Mode::Bulk),
            tail: count(Mode::Tail),
            sample_age: progress.sampled.map(|at| now.saturating_duration_since(at)),
        }
    }
}

fn unknown() -> String {
    "?".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::screen::LogFormat;
    use crate::ops::shutdown::{Cause, Shutdown};
    use crate::ops::status::tests::sample;

    fn halfway() -> (Progress, Pace, Instant) {
        let clock = Clock::manual();
        let mut progress = sample(&clock);
        let mut pace = Pace::default();
        pace.observe(&progress, clock.now());
        clock.advance(Duration::from_secs(20));
        progress.counters.records += 601;
        progress.counters.written += 600;
        for partition in progress.partitions.values_mut() {
            if partition.mode == Mode::Bulk {
                partition.position.0 += 600;
            }
        }
        pace.observe(&progress, clock.now());
        (progress, pace, clock.now())
    }

    #[test]
    fn says_all_in_pairs() {
        let (progress, pace, now) = halfway();
        insta::assert_snapshot!(render_line(&progress, &pace, now), @"state=running rows_written=2000 rows_per_s=30 lag_s=42.5 behind=400 slot_lag_bytes=4096 percent=60.0 eta_s=14 bulk=1 tail=1 retries=2 dead=1 gaps=0 sample_age_s=20");
    }

    #[test]
    fn quotes_why_it_is_slow() {
        let (mut progress, pace, now) = halfway();
        progress.throttled = Some("replica db-2 is 3.4 s behind (limit 3 s)".into());
        let line = render_line(&progress, &pace, now);
        assert!(
            line.ends_with(r#" throttled="replica db-2 is 3.4 s behind (limit 3 s)""#),
            "{line}"
        );
    }

    #[test]
    fn shows_what_is_unknown_as_unknown() {
        let (mut progress, _, now) = halfway();
        progress.partitions.clear();
        progress.sampled = None;
        progress.slot = None;
        insta::assert_snapshot!(render_line(&progress, &Pace::default(), now), @"state=running rows_written=2000 rows_per_s=? lag_s=? behind=? slot_lag_bytes=? bulk=0 tail=0 retries=2 dead=1 gaps=0 sample_age_s=?");
        insta::assert_snapshot!(render_human(&progress, &Pace::default(), now), @"running   DEAD LETTERS 1   lag unknown   ? behind   2,000 rows   retried 2");
    }

    #[test]
    fn tells_a_person_what_matters() {
        let (mut progress, pace, now) = halfway();
        insta::assert_snapshot!(render_human(&progress, &pace, now), @"running   DEAD LETTERS 1   60.0 %   about 14 seconds left   lag 42.5 s   400 behind   2,000 rows   30/s   bulk 1/2   retried 2");
        progress.dead_letters_open = 0;
        progress.counters.retries = 0;
        progress.source_gaps = vec!["the slot was made anew".into()];
        progress.throttled = Some("replica db-2 is 3.4 s behind".into());
        insta::assert_snapshot!(render_human(&progress, &pace, now), @"running   SOURCE GAP: the slot was made anew   slowed: replica db-2 is 3.4 s behind   60.0 %   about 14 seconds left   lag 42.5 s   400 behind   2,000 rows   30/s   bulk 1/2");
    }

    #[test]
    fn says_when_the_connector_is_behind_though_we_are_not() {
        let (mut progress, pace, now) = halfway();
        let slot = progress.slot.as_mut().expect("the sample has a slot");
        slot.lag_bytes = 300 << 20;
        let line = render_human(&progress, &pace, now);
        assert!(line.contains("connector 300.00 MiB behind"), "{line}");
    }

    #[test]
    fn the_bar_is_drawn_without_a_terminal_to_draw_on() {
        let (progress, pace, now) = halfway();
        let bar = ProgressBar::hidden();
        bar.set_length(BAR_LENGTH);
        draw(&bar, &progress, &pace, now);
        assert!(bar.position() <= BAR_LENGTH);
        draw(&bar, &progress, &Pace::default(), now);
        assert_eq!(bar.position(), 0, "no bar before the work is known");
    }

    #[tokio::test]
    async fn ends_at_shutdown_and_when_the_worker_is_gone() {
        let clock = Clock::manual();
        let (sender, receiver) = watch::channel(sample(&clock));
        let shutdown = Shutdown::new();
        shutdown.request(Cause::Program);
        run(receiver.clone(), clock.clone(), shutdown.requested(), Screen::stderr(LogFormat::Text))
            .await;

        drop(sender);
        run(receiver, clock, std::future::pending(), Screen::stderr(LogFormat::Text)).await;
    }
}
