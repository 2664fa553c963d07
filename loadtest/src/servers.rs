//! The real servers of a run: started by `loadtest/stack/stack`, gone with this process.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{sleep, timeout};

/// How long a connector may take until its task runs, and an orderly stop of all servers.
const PATIENCE: Duration = Duration::from_secs(60);
/// The limit of one REST call; Kafka Connect answers some only after a rebalance.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The repository, as it was when this was built.
pub(crate) fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Servers of our own, whatever the environment names.
///
/// They live for as long as we hold their standard input: also a SIGKILL of this process ends them.
#[derive(Debug)]
pub(crate) struct Servers {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Held open: the servers write to it.
    _answers: Lines<BufReader<ChildStdout>>,
    dir: PathBuf,
    exported: HashMap<String, String>,
}

impl Servers {
    /// Starts `parts` (`postgres`, `kafka`, `connect`, `all`; a list with commas) in `dir`, which must
    /// be new or empty, and waits until they answer.
    ///
    /// `keep` leaves `dir` with logs and data after the stop.
    pub(crate) async fn start(parts: &str, dir: &Path, keep: bool) -> anyhow::Result<Self> {
        let stack = repository().join("loadtest/stack/stack");
        let mut command = Command::new(&stack);
        command.args(["run", "--with", parts, "--dir"]).arg(dir);
        if keep {
            command.arg("--keep");
        }
        for name in ["PG_URL", "KAFKA_BROKERS", "CONNECT_URL"] {
            command.env_remove(format!("CROSSFADE_{name}"));
        }
        // A group of its own: Ctrl-C is ours to act on, and the servers go last.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(false);
        let mut child =
            command.spawn().with_context(|| format!("could not start {}", stack.display()))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("the stack has no standard output")?;
        let mut answers = BufReader::new(stdout).lines();
        match answers.next_line().await {
            Ok(Some(line)) if line == "ready" => {}
            _ => {
                drop(stdin);
                let status = child.wait().await?;
                if !keep {
                    let _ = std::fs::remove_dir_all(dir);
                }
                bail!("the servers did not start ({status}); the lines above say why");
            }
        }
        let exported = std::fs::read_to_string(dir.join("env"))
            .context("the stack wrote no env file")?
            .lines()
            .filter_map(exported)
            .collect();
        Ok(Self { child, stdin, _answers: answers, dir: dir.to_owned(), exported })
    }

    /// Where logs and data lie.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// `postgresql://` URL of a superuser.
    pub(crate) fn postgres(&self) -> anyhow::Result<&str> {
        self.exported("CROSSFADE_PG_URL")
    }

    /// `host:port` of the broker.
    pub(crate) fn brokers(&self) -> anyhow::Result<&str> {
        self.exported("CROSSFADE_KAFKA_BROKERS")
    }

    /// Kafka Connect.
    pub(crate) fn connect(&self) -> anyhow::Result<Connect> {
        Ok(Connect { url: self.exported("CROSSFADE_CONNECT_URL")?.to_owned() })
    }

    fn exported(&self, name: &str) -> anyhow::Result<&str> {
        self.exported.get(name).map(String::as_str).with_context(|| format!("no {name}"))
    }

    /// Stops all of them; without `keep` their folder goes too.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.stdin.take());
        let status = timeout(PATIENCE, self.child.wait()).await.context("the servers hang")??;
        ensure!(status.success(), "the servers stopped with {status}");
        Ok(())
    }
}

/// `export NAME=value` as bash's `%q` writes it; backslashes are all that our values can need.
fn exported(line: &str) -> Option<(String, String)> {
    let (name, quoted) = line.strip_prefix("export ")?.split_once('=')?;
    let mut value = String::new();
    let mut rest = quoted.chars();
    while let Some(mut each) = rest.next() {
        if each == '\\' {
            each = rest.next()?;
        }
        value.push(each);
    }
    Some((name.to_owned(), value))
}

/// The REST interface of Kafka Connect.
#[derive(Debug, Clone)]
pub(crate) struct Connect {
    url: String,
}

impl Connect {
    /// Makes or changes a connector and waits until it and its task run.
    pub(crate) async fn register(&self, name: &str, config: &Value) -> anyhow::Result<()> {
        self.call("PUT", &format!("{name}/config"), Some(config)).await?;
        self.await_state(name, "RUNNING").await
    }

    /// Ends its tasks and keeps its place; returns when they have ended. A paused task would go on
    /// decoding until its queue is full.
    pub(crate) async fn stop(&self, name: &str) -> anyhow::Result<()> {
        self.call("PUT", &format!("{name}/stop"), None).await?;
        let waited = timeout(PATIENCE, async {
            loop {
                let status = self.call("GET", &format!("{name}/status"), None).await?;
                let tasks = status["tasks"].as_array().map_or(0, Vec::len);
                if status["connector"]["state"] == "STOPPED" && tasks == 0 {
                    return Ok(());
                }
                sleep(Duration::from_millis(100)).await;
            }
        });
        waited.await.with_context(|| format!("connector \"{name}\" did not stop"))?
    }

    /// Removes a connector. Its slot stays: see [`drop_slot`].
    pub(crate) async fn delete(&self, name: &str) -> anyhow::Result<()> {
        self.call("DELETE", name, None).await.map(drop)
    }

    async fn await_state(&self, name: &str, wanted: &str) -> anyhow::Result<()> {
        let waited = timeout(PATIENCE, async {
            loop {
                // 404 until the herder has seen its own record.
                let status = self.call("GET", &format!("{name}/status"), None).await;
                let status = status.unwrap_or_default();
                let task = &status["tasks"][0];
                if status["connector"]["state"] == wanted && task["state"] == wanted {
                    return Ok(());
                }
                if task["state"] == "FAILED" {
                    let trace = task["trace"].as_str().unwrap_or_default();
                    bail!("connector \"{name}\" failed: {}", trace.lines().next().unwrap_or(trace));
                }
                sleep(Duration::from_millis(100)).await;
            }
        });
        waited.await.with_context(|| format!("connector \"{name}\" did not become {wanted}"))?
    }

    /// One call below `/connectors/`; repeated while Connect rebalances (409).
    async fn call(&self, verb: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let uri = format!("{}/connectors/{path}", self.url);
        let body = body.map(Value::to_string).unwrap_or_default();
        for _ in 0..50 {
            let request = ureq::http::Request::builder()
                .method(verb)
                .uri(&uri)
                .header("Content-Type", "application/json")
                .body(body.clone())?;
            let (status, answer) =
                tokio::task::spawn_blocking(move || agent_run(request)).await??;
            match status {
                409 => sleep(Duration::from_millis(200)).await,
                200..=299 => return Ok(serde_json::from_str(&answer).unwrap_or_default()),
                _ => bail!("{verb} {uri}: {status} {answer}"),
            }
        }
        bail!("{verb} {uri}: Kafka Connect keeps rebalancing");
    }
}

fn agent_run(request: ureq::http::Request<String>) -> Result<(u16, String), ureq::Error> {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(CALL_TIMEOUT))
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .build()
        .new_agent();
    let mut answer = agent.run(request)?;
    Ok((answer.status().as_u16(), answer.body_mut().read_to_string()?))
}

/// What the shipped connector template leaves open.
#[derive(Debug)]
pub(crate) struct ConnectorFor<'a> {
    /// With host, port, user, password and database.
    pub postgres: &'a tokio_postgres::Config,
    pub topic_prefix: &'a str,
    pub slot: &'a str,
    pub publication: &'a str,
    pub partitions: u32,
}

impl ConnectorFor<'_> {
    /// `config/debezium-users.json`, filled in.
    pub(crate) fn config(&self) -> anyhow::Result<Value> {
        let file = repository().join("config/debezium-users.json");
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("could not read {}", file.display()))?;
        let template: Map<String, Value> = serde_json::from_str(&text)?;
        let database = self.postgres;
        let host = match database.get_hosts().first() {
            Some(tokio_postgres::config::Host::Tcp(host)) => host.as_str(),
            _ => bail!("the connector needs a database on TCP"),
        };
        let port = database.get_ports().first().copied().unwrap_or(5432);
        let password = String::from_utf8_lossy(database.get_password().unwrap_or_default());
        let values = [
            ("${PG_HOST}", host),
            ("${PG_PORT}", &port.to_string()),
            ("${PG_USER}", database.get_user().unwrap_or("postgres")),
            ("${PG_PASSWORD}", &password),
            ("${PG_DATABASE}", database.get_dbname().unwrap_or("postgres")),
            ("${TOPIC_PREFIX}", self.topic_prefix),
            ("${SLOT}", self.slot),
            ("${PUBLICATION}", self.publication),
            ("${PARTITIONS}", &self.partitions.to_string()),
            ("${REPLICATION_FACTOR}", "1"),
        ];
        let filled = template.into_iter().map(|(key, mut value)| {
            if let Some((_, given)) = values.iter().find(|(name, _)| value == *name) {
                value = Value::from(*given);
            }
            (key, value)
        });
        Ok(Value::Object(filled.collect()))
    }
}

/// Drops a replication slot, once its connector has let go of it; none is as good.
pub(crate) async fn drop_slot(client: &tokio_postgres::Client, slot: &str) -> anyhow::Result<()> {
    let waited = timeout(PATIENCE, async {
        loop {
            let left = client
                .query_one(
                    "SELECT count(pg_drop_replication_slot(slot_name)) FILTER (WHERE NOT active), count(*)
                       FROM pg_replication_slots WHERE slot_name = $1",
                    &[&slot],
                )
                .await?;
            if left.get::<_, i64>(0) == left.get::<_, i64>(1) {
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
    });
    waited.await.with_context(|| format!("slot \"{slot}\" stays in use"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_bash_quoted() {
        let read = |line| exported(line).map(|(_, value)| value);
        assert_eq!(read(r"export A=postgresql://u@h:1/d"), Some("postgresql://u@h:1/d".into()));
        assert_eq!(read(r"export A=/a\ b\\c"), Some(r"/a b\c".into()));
        assert_eq!(read("# nothing"), None);
    }

    #[test]
    fn fills_in_the_whole_template() {
        let postgres = "postgresql://postgres@127.0.0.1:7/demo".parse().unwrap();
        let connector = ConnectorFor {
            postgres: &postgres,
            topic_prefix: "cdc",
            slot: "a_slot",
            publication: "a_publication",
            partitions: 4,
        };
        let config = connector.config().unwrap();
        assert_eq!(config["database.port"], "7");
        assert_eq!(config["topic.creation.default.partitions"], "4");
        assert!(!config.to_string().contains("${"), "{config}");
    }
}
