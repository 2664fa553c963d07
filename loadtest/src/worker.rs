//! A `crossfade worker` as an operator has it: a process with an HTTP address, and signals.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// How long a worker may take until it answers, and from SIGTERM to its end.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a gate may wait, and the 15 seconds longer that a client should.
const GATE_WAIT: Duration = Duration::from_secs(60);
const CALL_TIMEOUT: Duration = Duration::from_secs(75);

/// The `crossfade` that was built together with this program.
pub(crate) fn binary() -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("crossfade");
    ensure!(beside.is_file(), "found no {}: cargo build --release --workspace", beside.display());
    Ok(beside)
}

/// A loopback address on which nobody listens just now.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A running worker. Dropped, it is killed; and the kernel kills it where we cannot (Linux).
#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    http: SocketAddr,
}

impl Worker {
    /// Starts a worker with a config file that has `http.listen = http`; its log is appended to `log`.
    /// Returns once it answers.
    pub(crate) async fn start(
        binary: &Path,
        config: &Path,
        log: &Path,
        http: SocketAddr,
    ) -> anyhow::Result<Self> {
        let log_file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = tied_to_us(binary);
        command.args(["--log-format", "text", "worker", "--config"]).arg(config);
        // A group of its own: Ctrl-C is ours to act on.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_file);
        let child = command.kill_on_drop(true).spawn().context("could not start the worker")?;
        let mut worker = Self { child, http };
        let answering = timeout(PATIENCE, async {
            loop {
                if let Some(status) = worker.child.try_wait()? {
                    bail!("the worker ended at once ({status}); {}", last_lines(log));
                }
                if worker.status().await.is_ok() {
                    return Ok(());
                }
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        answering.with_context(|| format!("the worker does not answer; {}", last_lines(log)))??;
        Ok(worker)
    }

    /// The pid, for its `/proc` entry.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// SIGKILL.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        self.child.start_kill()?;
        self.child.wait().await?;
        Ok(())
    }

    /// SIGTERM; waits for the drain.
    pub(crate) async fn terminate(mut self) -> anyhow::Result<ExitStatus> {
        let pid = self.child.id().context("the worker has ended already")?;
        let sent = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await?;
        ensure!(sent.success(), "could not signal the worker");
        Ok(timeout(PATIENCE, self.child.wait()).await.context("the worker does not drain")??)
    }

    /// Whether it still runs; an error says how it ended.
    pub(crate) fn running(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the worker ended by itself ({status})"),
        }
    }

    /// `/v1/status`.
    pub(crate) async fn status(&self) -> anyhow::Result<Status> {
        let (code, body) = self.get("/v1/status").await?;
        ensure!(code == 200, "/v1/status answered {code}");
        Ok(Status(serde_json::from_str(&body)?))
    }

    /// `/metrics`.
    pub(crate) async fn metrics(&self) -> anyhow::Result<String> {
        let (code, body) = self.get("/metrics").await?;
        ensure!(code == 200, "/metrics answered {code}");
        Ok(body)
    }

    /// One question to the gate `name`, which may hold the answer back for a minute.
    ///
    /// `limits` goes into the query as it is: `max_lag=5s&stable=10s`, or nothing.
    pub(crate) async fn gate(&self, name: &str, limits: &str) -> anyhow::Result<GateAnswer> {
        let wait = GATE_WAIT.as_secs();
        let (code, body) = self.get(&format!("/v1/gates/{name}?wait={wait}s&{limits}")).await?;
        let body: Value = serde_json::from_str(&body)?;
        let reason = body["reason"].as_str().unwrap_or_default().to_owned();
        match code {
            200 => Ok(GateAnswer::Open(reason)),
            202 => Ok(GateAnswer::NotYet(reason)),
            422 => Ok(GateAnswer::NoGo(reason)),
            _ => bail!("gate \"{name}\" answered {code}: {body}"),
        }
    }

    async fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let uri = format!("http://{}{path}", self.http);
        let asked = tokio::task::spawn_blocking(move || -> Result<_, ureq::Error> {
            let agent = ureq::Agent::config_builder()
                .timeout_global(Some(CALL_TIMEOUT))
                .http_status_as_error(false)
                .build()
                .new_agent();
            let mut answer = agent.get(&uri).call()?;
            Ok((answer.status().as_u16(), answer.body_mut().read_to_string()?))
        });
        Ok(asked.await??)
    }
}

/// The program, killed when our main thread ends: a worker of a killed run must not go on for ever.
fn tied_to_us(binary: &Path) -> Command {
    if Path::new("/usr/bin/setpriv").exists() {
        let mut command = Command::new("/usr/bin/setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(binary);
        command
    } else {
        Command::new(binary)
    }
}

/// The last lines of a log, for an error message.
pub(crate) fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(15)..].join("\n  ");
    format!("the end of its log:\n  {last}")
}

/// What a gate said.
#[derive(Debug)]
pub(crate) enum GateAnswer {
    Open(String),
    NotYet(String),
    NoGo(String),
}

/// The body of `/v1/status`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status(Value);

impl Status {
    /// One of `counters`: `records`, `written`, `equal`, `echoes`, …
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.0["counters"][name].as_u64().unwrap_or(0)
    }

    /// Records accounted for since the topic began, over all partitions and all workers before.
    pub(crate) fn accounted(&self) -> u64 {
        self.partitions().filter_map(|p| u64::try_from(p["position"].as_i64()? + 1).ok()).sum()
    }

    /// Reasons to believe that the source lost something.
    pub(crate) fn source_gaps(&self) -> usize {
        self.0["source_gaps"].as_array().map_or(0, Vec::len)
    }

    fn partitions(&self) -> impl Iterator<Item = &Value> {
        self.0["partitions"].as_object().into_iter().flat_map(serde_json::Map::values)
    }
}

/// A histogram of `/metrics`: counts of samples at or below each bound, over all label values.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Histogram(Vec<(f64, u64)>);

impl Histogram {
    /// Reads the histogram `name` from a page in the Prometheus text format; empty where there is none.
    pub(crate) fn parse(page: &str, name: &str) -> Self {
        let mut buckets: Vec<(f64, u64)> = Vec::new();
        for line in page.lines() {
            let Some(rest) = line.strip_prefix(name).and_then(|l| l.strip_prefix("_bucket{"))
            else {
                continue;
            };
            let bound = rest.split_once("le=\"").and_then(|(_, rest)| rest.split_once('"'));
            let count = rest.rsplit_once("} ").and_then(|(_, count)| count.trim().parse().ok());
            let (Some((bound, _)), Some(count)) = (bound, count) else { continue };
            let Ok(bound) = bound.parse::<f64>() else { continue };
            match buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, sum)) => *sum += count,
                None => buckets.push((bound, count)),
            }
        }
        buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        Self(buckets)
    }

    /// The samples that came after `earlier` was read, from the same process.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let before = |bound| earlier.0.iter().find(|(b, _)| *b == bound).map_or(0, |(_, n)| *n);
        Self(self.0.iter().map(|&(b, n)| (b, n.saturating_sub(before(b)))).collect())
    }

    /// Samples.
    pub(crate) fn count(&self) -> u64 {
        self.0.last().map_or(0, |(_, count)| *count)
    }

    /// The quantile `q`, evenly spread inside its bucket as Prometheus's `histogram_quantile` has it;
    /// `None` without samples, or beyond the last bound.
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    pub(crate) fn quantile(&self, q: f64) -> Option<f64> {
        let rank = q * self.count() as f64;
        let mut below = (0.0, 0);
        for &(bound, count) in &self.0 {
            if count > 0 && count as f64 >= rank {
                let share = (rank - below.1 as f64) / (count - below.1) as f64;
                return bound.is_finite().then_some(below.0 + (bound - below.0) * share);
            }
            below = (bound, count);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# TYPE lag histogram
lag_bucket{le=\"0.1\"} 50
lag_bucket{le=\"0.2\"} 90
lag_bucket{le=\"+Inf\"} 100
lag_sum 12.5
lag_count 100
other_bucket{le=\"0.1\"} 7
";

    #[test]
    fn a_quantile_lies_inside_its_bucket() {
        let lag = Histogram::parse(PAGE, "lag");
        assert_eq!(lag.count(), 100);
        assert_eq!(lag.quantile(0.25), Some(0.05));
        assert_eq!(lag.quantile(0.9), Some(0.2));
        assert_eq!(lag.quantile(0.99), None, "beyond the last bound");
    }

    #[test]
    fn a_difference_forgets_what_came_before() {
        let earlier =
            Histogram::parse(&PAGE.replace("} 90", "} 50").replace("} 100", "} 50"), "lag");
        let lag = Histogram::parse(PAGE, "lag").since(&earlier);
        assert_eq!((lag.count(), lag.quantile(0.8)), (50, Some(0.2)));
    }

    #[test]
    fn nothing_is_no_quantile() {
        assert_eq!(Histogram::parse("", "lag").quantile(0.5), None);
    }
}
