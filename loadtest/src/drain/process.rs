//! What the kernel says of processes and of the machine (proc(5)).

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

/// `sysconf(_SC_CLK_TCK)`; 100 on every Linux that Rust runs on.
const TICK: Duration = Duration::from_millis(10);

/// Processor time of a process so far, threads that ended included.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    stat(Path::new(&format!("/proc/{pid}"))).map(|(_, spent)| spent)
}

/// Processor time of each thread, the busiest first.
pub(crate) fn threads(pid: u32) -> anyhow::Result<Vec<(String, Duration)>> {
    let tasks = format!("/proc/{pid}/task");
    let mut threads = Vec::new();
    for task in fs::read_dir(&tasks).with_context(|| format!("could not list {tasks}"))? {
        // A thread may end meanwhile.
        if let Ok(thread) = stat(&task?.path()) {
            threads.push(thread);
        }
    }
    threads.sort_by_key(|(_, spent)| std::cmp::Reverse(*spent));
    Ok(threads)
}

/// The most memory that was ever resident, in bytes.
pub(crate) fn peak_memory(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("could not read {path}"))?;
    status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        })
        .map(|kib| kib * 1024)
        .with_context(|| format!("{path} names no peak"))
}

/// Time that the machine's processors have been idle and busy, all added up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    idle: u64,
    all: u64,
}

impl Machine {
    pub(crate) fn now() -> anyhow::Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("could not read /proc/stat")?;
        let line = stat.lines().next().unwrap_or_default();
        // user nice system idle iowait irq softirq steal; guest time is in user already.
        let ticks: Vec<u64> =
            line.split_whitespace().skip(1).take(8).flat_map(str::parse).collect();
        anyhow::ensure!(ticks.len() == 8, "/proc/stat begins with {line:?}");
        Ok(Self { idle: ticks[3] + ticks[4], all: ticks.iter().sum() })
    }

    /// The share of the time since `earlier` in which processors had nothing to do, in percent.
    pub(crate) fn idle_percent_since(self, earlier: Self) -> f64 {
        let all = self.all.saturating_sub(earlier.all).max(1);
        100.0 * self.idle.saturating_sub(earlier.idle) as f64 / all as f64
    }
}

/// Name and processor time out of a `stat` file.
fn stat(folder: &Path) -> anyhow::Result<(String, Duration)> {
    let path = folder.join("stat");
    let text =
        fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
    parse(&text).with_context(|| format!("{} is not as proc(5) has it", path.display()))
}

/// The name may hold blanks and parentheses, so the fields are counted from its end.
fn parse(text: &str) -> Option<(String, Duration)> {
    let (head, rest) = text.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let mut fields = rest.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((name, TICK * (user + system)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_parenthesis_does_not_shift_the_fields() {
        let line = "7 (a) (b) S 1 7 7 0 -1 4194560 1 0 0 0 12 30 0 0 20 0 1 0 5 0 0";
        assert_eq!(parse(line), Some(("a) (b".to_owned(), Duration::from_millis(420))));
        assert_eq!(parse("7 (cut"), None);
    }

    #[test]
    fn this_process_has_memory_and_threads() {
        let pid = std::process::id();
        assert!(peak_memory(pid).unwrap() > 1_000_000);
        assert!(!threads(pid).unwrap().is_empty());
    }
}
