//! `loadtest demo`: a column is split under traffic, the worker is killed half way, every row is compared.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use crossfade::clock::Clock;
use crossfade::demo::traffic::{Load, Report, Traffic};
use crossfade::demo::users::{self, Comparison, PUBLICATION, SLOT, WORKER};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;
use tokio_postgres::{Client, Config, NoTls};

use crate::servers::{Connect, ConnectorFor, Servers, drop_slot};
use crate::worker::{self, GateAnswer, Histogram, Status, Worker};

/// A database of its own: the migration's state lies in it as well.
const DATABASE: &str = "demo";
const TOPIC_PREFIX: &str = "demo";
const CONNECTOR: &str = "users-postgres-connector";
const PARTITIONS: u32 = 4;
/// How long the application holds a transaction open.
const HELD: Duration = Duration::from_secs(4);
/// Between two looks at the worker.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The longest that a phase may take, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(900);

/// Split users.name under traffic, kill the worker half way, and compare every row
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DemoCommand {
    /// Rows of the table before the traffic begins
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    rows: u64,
    /// Statements that the application sends a second
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    traffic: u32,
    /// Seconds of traffic after the backfill, over which the lag is measured
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Leave logs, data and the worker's config file in a folder
    #[arg(long)]
    keep: bool,
}

/// What has been started, so that it can be stopped from wherever we are.
#[derive(Debug)]
struct Stage {
    clock: Clock,
    began: Instant,
    /// The servers' folder, which they remove; what we put there goes with it.
    dir: PathBuf,
    servers: Option<Servers>,
    client: Option<Client>,
    connect: Option<Connect>,
    traffic: Option<Traffic>,
    worker: Option<Worker>,
}

/// Plays the demo and removes all that it made, however it ends.
pub(crate) async fn run(command: DemoCommand) -> anyhow::Result<ExitCode> {
    let clock = Clock::system();
    let dir = std::env::temp_dir().join(format!("crossfade-demo.{}", std::process::id()));
    let mut stage = Stage {
        began: clock.now(),
        clock,
        dir,
        servers: None,
        client: None,
        connect: None,
        traffic: None,
        worker: None,
    };
    let mut signals = Signals::new()?;
    let result = tokio::select! {
        result = stage.play(&command) => result,
        code = signals.next() => {
            stage.say("interrupted");
            Ok(ExitCode::from(code))
        }
    };
    if result.is_err() {
        stage.say(&worker::last_lines(&stage.log()));
    }
    let tidied = tokio::select! {
        tidied = stage.tidy(command.keep) => tidied,
        // What is left is tied to this process, and ends with it.
        code = signals.next() => return Ok(ExitCode::from(code)),
    };
    let code = result?;
    tidied?;
    Ok(code)
}

impl Stage {
    async fn play(&mut self, command: &DemoCommand) -> anyhow::Result<ExitCode> {
        let binary = worker::binary()?;
        self.say("starting PostgreSQL, Kafka, and Kafka Connect with Debezium");
        let servers = Servers::start("all", &self.dir, command.keep).await?;
        let servers = self.servers.insert(servers);
        let mut database: Config = servers.postgres()?.parse()?;
        let brokers = servers.brokers()?.to_owned();
        let connect = self.connect.insert(servers.connect()?).clone();
        let (admin, _) = open(&database).await?;
        admin.batch_execute(&format!("CREATE DATABASE {DATABASE}")).await?;
        database.dbname(DATABASE);
        let client = self.client.insert(open(&database).await?.0);
        users::create(client).await?;
        users::load(client, command.rows).await?;
        users::grant(client).await?;
        let before = users::mismatches(client).await?;
        self.say(&format!(
            "table users has {} rows; {} of them differ from what they should become",
            grouped(before.rows),
            grouped(before.mismatches),
        ));
        ensure!(before.mismatches > 0, "the comparison sees no difference where nothing is filled");

        let load = Load { writers: 4, per_second: command.traffic, seed: 1 };
        self.traffic = Some(Traffic::start(&database, load).await?);
        let connector = ConnectorFor {
            postgres: &database,
            topic_prefix: TOPIC_PREFIX,
            slot: SLOT,
            publication: PUBLICATION,
            partitions: PARTITIONS,
        };
        self.say(&format!("the application writes, {} statements a second", command.traffic));
        let backfill = self.clock.now();
        connect.register(CONNECTOR, &connector.config()?).await?;
        self.say("Debezium took its place in the log and reads the table");
        if let Some(traffic) = &mut self.traffic {
            traffic.hold_transactions(HELD).await?;
        }

        let http = worker::free_address()?;
        let file = self.dir.join("crossfade.toml");
        let user_url = worker_url(&database)?;
        std::fs::write(&file, config(&user_url, &brokers, http))?;
        self.worker = Some(Worker::start(&binary, &file, &self.log(), http).await?);
        self.say("crossfade worker started");
        let half = u64::try_from(before.mismatches).unwrap_or(0) / 2;
        let first = self.until(|status| status.counter("written") >= half).await?;
        let worker = self.worker.take().context("no worker to kill")?;
        worker.kill().await?;
        self.say(&format!(
            "killed it (SIGKILL) after {} rows written",
            grouped(first.counter("written"))
        ));
        self.worker = Some(Worker::start(&binary, &file, &self.log(), http).await?);
        self.say("started it again; Kafka waits until it believes the first one dead (session.timeout.ms)");
        self.until(|status| status.counter("records") > 0).await?;
        self.say("it goes on behind the last commit of the first");

        let rows = command.rows;
        // Status counts records from Kafka on; only the gate sees a connector that is behind the log.
        self.until(|status| status.accounted() >= rows).await?;
        let opened = self.gate().await?;
        let backfill = self.since(backfill);
        self.say(&format!("the gate caught-up is open under traffic: {opened}"));
        let before_lag = self.lag().await?;
        sleep(Duration::from_secs(command.seconds)).await;
        let lag = self.lag().await?.since(&before_lag);
        let traffic = self.traffic.take().context("no traffic to stop")?.stop().await;
        self.say("the application stopped; asking the gate for its last word");
        let opened = self.gate().await?;
        self.say(&format!("the gate is open: {opened}"));
        let worker = self.worker.as_ref().context("no worker")?;
        let second = worker.status().await?;
        let client = self.client.as_ref().context("no client")?;
        let compared = users::mismatches(client).await?;
        let outcome = Outcome {
            rows,
            backfill,
            first,
            second,
            lag,
            seconds: command.seconds,
            traffic,
            compared,
        };
        say(&outcome.report());
        Ok(outcome.verdict())
    }

    /// Waits until the worker says so; returns what it said.
    async fn until(&mut self, wanted: impl Fn(&Status) -> bool) -> anyhow::Result<Status> {
        let began = self.clock.now();
        while self.since(began) < PATIENCE {
            let worker = self.worker.as_mut().context("no worker to ask")?;
            worker.running()?;
            let status = worker.status().await?;
            ensure!(status.source_gaps() == 0, "the worker reports a gap in its source");
            if wanted(&status) {
                return Ok(status);
            }
            sleep(LOOK_EVERY).await;
        }
        bail!("the worker did not get on for {} s", PATIENCE.as_secs())
    }

    async fn gate(&self) -> anyhow::Result<String> {
        let began = self.clock.now();
        let worker = self.worker.as_ref().context("no worker to ask")?;
        while self.since(began) < PATIENCE {
            match worker.gate("caught-up", "").await? {
                GateAnswer::Open(reason) => return Ok(reason),
                GateAnswer::NotYet(reason) => self.say(&format!("not yet: {reason}")),
                GateAnswer::NoGo(reason) => bail!("the gate says no: {reason}"),
            }
        }
        bail!("the gate did not open for {} s", PATIENCE.as_secs())
    }

    async fn lag(&self) -> anyhow::Result<Histogram> {
        let worker = self.worker.as_ref().context("no worker to ask")?;
        Ok(Histogram::parse(&worker.metrics().await?, "crossfade_apply_lag_seconds"))
    }

    /// Stops what runs, in the order in which they depend on each other, and goes on after a failure.
    async fn tidy(&mut self, keep: bool) -> anyhow::Result<()> {
        let mut first_error = None;
        let mut note = |result: anyhow::Result<()>| {
            if let Err(error) = result {
                first_error.get_or_insert(error);
            }
        };
        drop(self.traffic.take());
        if let Some(worker) = self.worker.take() {
            note(worker.terminate().await.and_then(|status| {
                ensure!(status.success(), "the worker did not drain ({status})");
                Ok(())
            }));
        }
        if let Some(connect) = self.connect.take() {
            // None, when we were stopped before it was made.
            let _ = connect.delete(CONNECTOR).await;
        }
        if let Some(client) = self.client.take() {
            note(drop_slot(&client, SLOT).await);
        }
        match self.servers.take() {
            Some(servers) => note(servers.stop().await),
            // Interrupted while they started: they stop by themselves and remove their folder.
            None => gone(&self.dir).await,
        }
        if keep {
            self.say(&format!("logs and data are in {}", self.dir.display()));
        }
        first_error.map_or(Ok(()), Err)
    }

    fn log(&self) -> PathBuf {
        self.dir.join("worker.log")
    }

    fn since(&self, then: Instant) -> Duration {
        self.clock.now().saturating_duration_since(then)
    }

    fn say(&self, what: &str) {
        say(&format!("{:6.1} s  {what}", self.since(self.began).as_secs_f64()));
    }
}

/// All that the report tells.
#[derive(Debug)]
struct Outcome {
    rows: u64,
    backfill: Duration,
    /// The last look at the worker that was killed.
    first: Status,
    second: Status,
    lag: Histogram,
    seconds: u64,
    traffic: Report,
    compared: Comparison,
}

impl Outcome {
    fn report(&self) -> String {
        let Self { rows, backfill, first, second, lag, seconds, traffic, compared } = self;
        let both = |name| grouped(first.counter(name) + second.counter(name));
        let seconds_taken = backfill.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = (*rows as f64 / seconds_taken).round();
        let p99 = lag.quantile(0.99).map_or("unknown".into(), |lag| format!("{:.0} ms", lag * 1e3));
        let mut errors = grouped(traffic.failed());
        for (code, count) in &traffic.errors {
            errors.push_str(&format!(" ({count} of {code})"));
        }
        let lines = [
            (
                "rows compared",
                grouped(compared.rows),
                "all of them, by an SQL expression of the demo's own",
            ),
            ("mismatches", grouped(compared.mismatches), ""),
            (
                "backfill",
                format!("{seconds_taken:.1} s"),
                "until the gate opened: snapshot, kill and restart included",
            ),
            ("rows per second", grouped(rate), ""),
            ("lag p99", p99, "the application's commit to the worker's, after the backfill"),
            ("worker writes", both("written"), "rows, by both processes (*)"),
            ("echoes", both("echoes"), "the worker's own writes, come back and recognised (*)"),
            ("restarts", "1".into(), "by SIGKILL"),
            ("application writes", grouped(traffic.writes()), ""),
            (
                "slowest of them",
                format!("{} ms", traffic.slowest.as_millis()),
                "outside of the long transactions",
            ),
            (
                "long transactions",
                grouped(traffic.long_transactions),
                "of 4 s, each renames 20 users",
            ),
            ("application errors", errors, ""),
        ];
        let mut text = String::from("\n");
        for (what, value, note) in lines {
            text.push_str(format!("{what:<20}{value:>12}  {note}").trim_end());
            text.push('\n');
        }
        let verdict = match compared.mismatches {
            0 => "PASSED: old and new columns agree in every row",
            _ => "FAILED: old and new columns differ",
        };
        text.push_str(&format!(
            "\n\
             lag: quantile of the worker's histogram crossfade_apply_lag_seconds over {seconds} s\n\
             of traffic; one sample a batch, by its oldest event\n\
             (*) as last seen, at most {} ms before the kill\n\
             \n\
             {verdict}",
            LOOK_EVERY.as_millis(),
        ));
        text
    }

    fn verdict(&self) -> ExitCode {
        if self.compared.mismatches == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// What the worker is started with.
fn config(url: &str, brokers: &str, http: std::net::SocketAddr) -> String {
    format!(
        r#"version = 1
name = "users-name-split"

[database]
url = "{url}"
tls = "disable"                          # loopback

[source]
kind = "kafka"
brokers = "{brokers}"
topic = "{TOPIC_PREFIX}.public.users"

[table."public.users"]
key = ["id"]

[table."public.users".up]
first_name = {{ split = "name", take = "first" }}
last_name = {{ split = "name", take = "rest" }}

[gate.caught_up]
max_lag = "5s"
stable_for = "2s"

[http]
listen = "{http}"

[worker]
sample_every = "200ms"
"#
    )
}

/// The database as the worker's role sees it; the server trusts loopback.
fn worker_url(database: &Config) -> anyhow::Result<String> {
    let Some(tokio_postgres::config::Host::Tcp(host)) = database.get_hosts().first() else {
        bail!("the database is not on TCP");
    };
    let port = database.get_ports().first().context("the database has no port")?;
    Ok(format!("postgresql://{WORKER}@{host}:{port}/{DATABASE}"))
}

async fn open(database: &Config) -> anyhow::Result<(Client, tokio::task::JoinHandle<()>)> {
    let (client, connection) =
        database.connect(NoTls).await.context("could not connect to the database")?;
    Ok((client, tokio::spawn(async { drop(connection.await) })))
}

/// Waits until nobody needs the folder any more.
async fn gone(folder: &Path) {
    for _ in 0..600 {
        if !folder.exists() {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The ways to ask us to stop.
struct Signals([(Signal, u8); 3]);

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self([
            (signal(SignalKind::interrupt())?, 130),
            (signal(SignalKind::terminate())?, 143),
            (signal(SignalKind::hangup())?, 129),
        ]))
    }

    /// The exit code of whoever obeys the next one.
    async fn next(&mut self) -> u8 {
        let [(interrupt, a), (terminate, b), (hangup, c)] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => *a,
            _ = terminate.recv() => *b,
            _ = hangup.recv() => *c,
        }
    }
}

/// A whole number with commas between thousands.
fn grouped(number: impl std::fmt::Display) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[expect(clippy::print_stdout, reason = "the demo's output")]
fn say(line: &str) {
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_thousands() {
        assert_eq!(
            ["0", "999", "1000", "1234567"].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
    }

    #[test]
    fn the_workers_config_is_valid() {
        let folder = std::env::temp_dir().join(format!("crossfade-config.{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("crossfade.toml");
        let address = ([127, 0, 0, 1], 8787).into();
        std::fs::write(&file, config("postgresql://u@127.0.0.1/d", "127.0.0.1:9092", address))
            .unwrap();
        let loaded = crossfade::config::load(&file, &|_| None);
        std::fs::remove_dir_all(&folder).unwrap();
        let settings = loaded.map_err(|errors| errors.render(false)).unwrap().settings;
        let crossfade::config::settings::Source::Kafka(kafka) = &settings.source;
        assert_eq!((kafka.slot.as_str(), kafka.publication.as_str()), (SLOT, PUBLICATION));
    }
}
