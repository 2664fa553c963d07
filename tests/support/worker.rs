//! The real binary with a config file of its own, and what it says over HTTP and in its log.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::migration::Migration;
use super::postgres::{Database, PASSWORD, lsn};
use super::scratch::unique;
use super::stack::stack;
use super::users::CANARY;
use super::wait::{self, seconds};

/// A config file to be: each field holds further lines of its section.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) url: String,
    /// Read by the worker at each connect, in place of `url`.
    pub(crate) url_file: Option<PathBuf>,
    pub(crate) database: String,
    pub(crate) properties: String,
    pub(crate) up: String,
    pub(crate) worker: String,
    pub(crate) batch: &'static str,
    pub(crate) stable_for: &'static str,
    pub(crate) failpoints: Option<String>,
    /// Of publication, slot and connector.
    objects: String,
    topic: String,
    folder: PathBuf,
}

impl Config {
    pub(crate) fn of(migration: &Migration) -> Self {
        Self {
            name: migration.name.clone(),
            url: migration.database.worker_url(),
            url_file: None,
            database: "tls = \"disable\"".into(),
            properties: String::new(),
            up: "first_name = { split = \"name\", take = \"first\" }\n\
                 last_name = { split = \"name\", take = \"rest\" }"
                .into(),
            worker: "sample_every = \"200ms\"".into(),
            batch: "",
            stable_for: "1s",
            failpoints: None,
            objects: migration.name.clone(),
            topic: migration.topic.name.clone(),
            folder: migration.scratch.path(""),
        }
    }

    /// More lines in `[database]`.
    pub(crate) fn database(mut self, lines: &str) -> Self {
        let _ = write!(self.database, "\n{lines}");
        self
    }

    /// A member that takes its place again at once after it was killed; others wait for the time-out of
    /// its session.
    pub(crate) fn static_member(mut self) -> Self {
        self.properties = "\"group.instance.id\" = \"the-only-one\"".into();
        self
    }

    /// As `FAILPOINTS` takes it.
    pub(crate) fn failpoints(mut self, points: String) -> Self {
        self.failpoints = Some(points);
        self
    }

    fn text(&self) -> String {
        let Self {
            name, database, properties, up, worker, batch, stable_for, objects, topic, ..
        } = self;
        let (brokers, connect) = (&stack().brokers, &stack().connect_url);
        let url = match &self.url_file {
            Some(file) => format!("url_file = \"{}\"", file.display()),
            None => "url = \"${DATABASE_URL}\"".into(),
        };
        format!(
            r#"version = 1
name = "{name}"

[database]
{url}
{database}

[source]
kind = "kafka"
brokers = "{brokers}"
topic = "{topic}"
slot = "{objects}"
publication = "{objects}"

[source.connect]
url = "{connect}"
connector = "{objects}"

[source.properties]
{properties}

[table."public.users".up]
{up}

[batch]
{batch}

[gate.caught_up]
max_lag = "20s"
stable_for = "{stable_for}"

[http]
listen = "127.0.0.1:0"

[worker]
{worker}
"#
        )
    }

    /// Runs a verb to its end.
    pub(crate) fn run(&self, verb: &[&str]) -> Output {
        self.command(verb).output().expect("the binary runs")
    }

    fn command(&self, verb: &[&str]) -> Command {
        let file = self.folder.join(unique("config")).with_extension("toml");
        std::fs::write(&file, self.text()).expect("the test's folder can be written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_crossfade"));
        command
            .args(["--log-format", "text"])
            .args(verb)
            .arg("--config")
            .arg(file)
            .env("DATABASE_URL", &self.url)
            .env_remove("CROSSFADE_LOG")
            .env_remove("FAILPOINTS")
            .stdin(Stdio::null());
        if let Some(points) = &self.failpoints {
            command.env("FAILPOINTS", points);
        }
        command
    }

    /// Starts a worker; it may still end at once.
    pub(crate) fn spawn(&self) -> Worker {
        let log = self.folder.join(unique("worker")).with_extension("log");
        let file = File::create(&log).expect("the test's folder can be written");
        let child = self.command(&["worker"]).stderr(file).spawn().expect("the binary runs");
        Worker { child: RefCell::new(child), log, seen: RefCell::default() }
    }

    /// Starts a worker and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(&self) -> Worker {
        let worker = self.spawn();
        worker.until("the worker to be ready", seconds(30), || match worker.get("/readyz") {
            Ok((200, _)) => Ok(()),
            Ok((code, body)) => Err(format!("{code} {body}")),
            Err(error) => Err(error),
        });
        worker
    }
}

/// A worker process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Worker {
    child: RefCell<Child>,
    log: PathBuf,
    /// The last answer of the gate.
    seen: RefCell<String>,
}

impl Worker {
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits; panics with the last answer of the gate and the end of the log.
    #[track_caller]
    pub(crate) fn until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut() -> Result<T, String>,
    ) -> T {
        // A worker that has gone is not waited for.
        let look = || match self.child.borrow_mut().try_wait() {
            Ok(None) => look().map(Ok),
            ended => Ok(Err(format!("the worker ended: {ended:?}"))),
        };
        match wait::within(limit, look).flatten() {
            Ok(answer) => answer,
            Err(seen) => panic!(
                "waited {limit:?} for {what}; last seen: {seen}\ngate: {}\n{}",
                self.seen.borrow(),
                self.tail()
            ),
        }
    }

    /// Waits until the log has `text`, `times` times.
    #[track_caller]
    pub(crate) fn until_logged(&self, text: &str, times: usize, limit: Duration) {
        self.until(&format!("log line \"{text}\""), limit, || {
            let found = self.log().matches(text).count();
            if found >= times { Ok(()) } else { Err(format!("{found} of {times}")) }
        });
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(25);
        format!("log ({} lines):\n{}", lines.len(), lines[from..].join("\n"))
    }

    fn address(&self) -> Result<String, String> {
        let log = self.log();
        let line = log.lines().find(|line| line.contains("serving http"));
        let line = line.ok_or("does not serve yet")?;
        let address = line.split("address=").nth(1).ok_or("no address in the log")?;
        Ok(address.split_whitespace().next().unwrap_or_default().trim_matches('"').to_owned())
    }

    /// Status and body of a GET.
    pub(crate) fn get(&self, path: &str) -> Result<(u16, Value), String> {
        let url = format!("http://{}{path}", self.address()?);
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(seconds(20)))
            .build()
            .new_agent();
        let mut answer = agent.get(url).call().map_err(|error| error.to_string())?;
        let body = answer.body_mut().read_json().map_err(|error| error.to_string())?;
        Ok((answer.status().as_u16(), body))
    }

    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        match self.get("/v1/status") {
            Ok((200, body)) => body,
            other => panic!("/v1/status: {other:?}\n{}", self.tail()),
        }
    }

    /// One of the counters in the status.
    #[track_caller]
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.status()["counters"][name].as_u64().expect("a counter")
    }

    /// Asks the gate `caught-up` once.
    pub(crate) fn gate(&self) -> Result<(u16, Value), String> {
        let answer = self.get("/v1/gates/caught-up?stable=1s&wait=1s");
        *self.seen.borrow_mut() = format!("{answer:?}");
        answer
    }

    /// Waits until the gate opens for all that is committed now.
    #[track_caller]
    pub(crate) fn until_caught_up(&self, database: &Database) {
        let now = database.lsn();
        self.until("the gate to open", seconds(60), || {
            let (code, body) = self.gate()?;
            match as_of(&body) {
                Some(as_of) if code == 200 && as_of >= now => Ok(()),
                _ => Err(format!("{code} {body}")),
            }
        });
    }

    /// Waits until the gate says no.
    #[track_caller]
    pub(crate) fn until_no_go(&self) {
        self.until("a no-go", seconds(20), || match self.gate()? {
            (422, body) if body["verdict"] == "no_go" => Ok(()),
            (code, body) => Err(format!("{code} {body}")),
        });
    }

    /// Sends SIG`name`.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.borrow().id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill can be run");
        assert!(sent.success(), "the worker has gone by itself\n{}", self.tail());
    }

    /// SIGTERM; it must drain and end well.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        let status = self.ended(seconds(40));
        assert!(status.success(), "the worker ended with {status}\n{}", self.log());
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        let child = self.child.get_mut();
        child.kill().expect("the worker runs");
        child.wait().expect("a child");
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub(crate) fn ended(&mut self, limit: Duration) -> ExitStatus {
        let child = self.child.get_mut();
        match wait::within(limit, || match child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it runs".into()),
            Err(error) => Err(error.to_string()),
        }) {
            Ok(status) => status,
            Err(seen) => panic!("waited {limit:?} for the worker to end; {seen}\n{}", self.tail()),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        let _ = child.kill();
        let _ = child.wait();
        // Wherever a worker was driven to, its log holds no row value and no password.
        if !std::thread::panicking() {
            let log = self.log();
            let secret = |line: &&str| line.contains(CANARY) || line.contains(PASSWORD);
            let leak = log.lines().find(secret);
            assert!(leak.is_none(), "a secret is in the log: {leak:?}");
        }
    }
}

/// Up to where an open gate says that all is applied; it remembers what it proved a moment ago.
pub(crate) fn as_of(gate: &Value) -> Option<u64> {
    gate["evidence"].as_str()?.strip_prefix("caught up as of ").map(lsn)
}
