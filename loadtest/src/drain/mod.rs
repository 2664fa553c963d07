//! `loadtest drain`: how fast a backlog is written, against what the database can do by itself.
//!
//! Three contestants fill the same two columns of the same table, each from the same frozen,
//! checkpointed state: one `UPDATE` over the whole table, the worker with the connector's topic before
//! it, and a plain consumer with one awaited `UPDATE` a message. A repetition has new rows and a new
//! topic, and the order of the first two alternates. What is compared is the ratio inside a
//! repetition; the machine's mood is in all of its figures alike.
//!
//! The connector has stopped before the first contest and its slot stays. It would otherwise decode
//! the echo of whatever is written beside it, and on a small machine that is measured instead of the
//! contestants. The load test of the tail has it running.
//!
//! After each contest every row is compared by SQL of its own; a run with one wrong row has no figure.

mod contestants;
mod process;
mod report;
mod settings;
mod table;
mod topic;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use crossfade::clock::Clock;

use self::contestants::{Arena, Outcome};
use self::report::Repetition;
use self::settings::{Override, Variant};
use self::table::Users;
use crate::servers::{self, ConnectorFor, Servers};
use crate::worker;

/// Drain a topic of snapshot records, against a whole-table UPDATE and a row-by-row consumer
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DrainCommand {
    /// Rows of the table
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..))]
    rows: u64,
    /// Partitions of the topic
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
    /// Whether each record carries its schema
    #[arg(long, value_enum, default_value_t = Schemas::Off)]
    schemas: Schemas,
    /// Repetitions, each with new rows
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Records that the row-by-row consumer writes; 0 leaves it out
    #[arg(long, default_value_t = 10_000)]
    row_by_row: u64,
    /// A setting of the worker, as in database.writers=2; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<Override>,
    /// One more worker in each repetition, with these settings besides; may be repeated
    #[arg(long = "try", value_name = "KEY=VALUE,…")]
    variants: Vec<Variant>,
    /// The crossfade program [default: the one beside this]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Leave the servers' folder with data and logs
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Schemas {
    On,
    Off,
}

impl fmt::Display for Schemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

pub(crate) async fn run(command: DrainCommand) -> anyhow::Result<ExitCode> {
    let built = match &command.binary {
        Some(path) => path.clone(),
        None => worker::binary()?,
    };
    let dir = std::env::temp_dir().join(format!("crossfade-drain.{}", std::process::id()));
    let servers = tokio::select! {
        servers = Servers::start("all", &dir, command.keep) => servers?,
        interrupted = tokio::signal::ctrl_c() => return stopped(interrupted),
    };
    let repetitions = tokio::select! {
        repetitions = repeat(&command, &servers, &built) => repetitions,
        interrupted = tokio::signal::ctrl_c() => stopped(interrupted),
    };
    let logs = servers.dir().to_owned();
    servers.stop().await?;
    if command.keep {
        say(&format!("data and logs are in {}", logs.display()));
    }
    let repetitions = repetitions?;
    print(&report::table(&command, &repetitions));
    print(&report::json(&command, &repetitions).to_string());
    Ok(match report::mismatches(&repetitions) {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn stopped<T>(interrupted: std::io::Result<()>) -> anyhow::Result<T> {
    interrupted.context("could not listen for Ctrl-C")?;
    bail!("interrupted")
}

async fn repeat(
    command: &DrainCommand,
    servers: &Servers,
    built: &Path,
) -> anyhow::Result<Vec<Repetition>> {
    // A build that ends meanwhile must not change who competes.
    let binary = servers.dir().join("crossfade");
    std::fs::copy(built, &binary).with_context(|| format!("could not copy {}", built.display()))?;
    let mut repetitions = Vec::new();
    for number in 1..=command.repeat {
        repetitions.push(repetition(command, servers, &binary, number).await?);
    }
    Ok(repetitions)
}

async fn repetition(
    command: &DrainCommand,
    servers: &Servers,
    binary: &Path,
    number: u32,
) -> anyhow::Result<Repetition> {
    let clock = Clock::system();
    let name = format!("drain_{number}");
    let server = servers.postgres()?.to_owned();
    let admin = table::connect(&server, "postgres", "drain").await?;
    admin.batch_execute(&format!("CREATE DATABASE {name}")).await?;
    let client = table::connect(&server, &name, "drain").await?;
    let users = Users::create(client, command.rows, &name, clock.clone()).await?;

    let mut postgres: tokio_postgres::Config = server.parse()?;
    postgres.dbname(&name);
    let connect = servers.connect()?;
    let connector = topic::Connector {
        connect: &connect,
        name: &name,
        place: ConnectorFor {
            postgres: &postgres,
            topic_prefix: &name,
            slot: &name,
            publication: &name,
            partitions: command.partitions,
        },
        schemas: command.schemas == Schemas::On,
    };
    let (brokers, topic) = (servers.brokers()?.to_owned(), format!("{name}.public.users"));
    let began = clock.now();
    let ends =
        topic::fill(&connector, &users.client, &brokers, &topic, command.rows, &clock).await?;
    say(&format!(
        "repetition {number}: the connector took {:.1} s for {} records",
        (clock.now() - began).as_secs_f64(),
        command.rows
    ));

    let arena = Arena {
        users,
        server,
        database: name.clone(),
        brokers,
        topic,
        ends,
        rows: command.rows,
        clock,
    };
    let plain = Variant::plain(&command.set);
    let mut workers = Vec::new();
    let update_first = number % 2 == 1;
    let mut update = None;
    if update_first {
        update = Some(whole_table_update(&arena, number).await?);
    }
    for (index, variant) in std::iter::once(&plain).chain(&command.variants).enumerate() {
        let worker_name = format!("drain-{number}-{index}");
        let overrides = command.set.iter().chain(&variant.overrides);
        let file = settings::write(servers.dir(), &worker_name, &arena, &name, &name, overrides)?;
        let (outcome, process) = contestants::worker(&arena, binary, &file).await?;
        tell(number, &variant.label, &outcome, process.us_per_row);
        workers.push((variant.label.clone(), outcome, process));
    }
    let update = match update {
        Some(update) => update,
        None => whole_table_update(&arena, number).await?,
    };
    let row_by_row = match command.row_by_row.min(command.rows) {
        0 => None,
        records => Some(contestants::row_by_row(&arena, records).await?),
    };

    connect.delete(&name).await?;
    servers::drop_slot(&admin, &name).await?;
    drop(arena);
    admin
        .batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)"))
        .await
        .context("could not drop the database")?;
    Ok(Repetition { update, workers, row_by_row })
}

async fn whole_table_update(arena: &Arena, number: u32) -> anyhow::Result<Outcome> {
    let outcome = contestants::whole_table_update(arena).await?;
    tell(number, "whole-table UPDATE", &outcome, 0.0);
    Ok(outcome)
}

fn tell(number: u32, who: &str, outcome: &Outcome, own_us: f64) {
    say(&format!(
        "repetition {number}: {who}: {:.0} rows/s, {:.1} + {own_us:.1} µs/row in server and worker, \
         HOT {:.0} %, machine idle {:.0} %, {} mismatches",
        outcome.rows_per_second,
        outcome.server_us_per_row,
        outcome.cost.hot_percent,
        outcome.idle_percent,
        outcome.mismatches
    ));
}

#[expect(clippy::print_stderr, reason = "what goes on, for a person who waits")]
fn say(line: &str) {
    eprintln!("drain: {line}");
}

#[expect(clippy::print_stdout, reason = "the report")]
fn print(text: &str) {
    println!("{text}");
}
