//! `crossfade worker`: the data plane alone.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::config::ConfigFile;
use super::gate::CaughtUp;
use super::hint::advised;
use crate::clock::Clock;
use crate::config::settings::{Settings, Source};
use crate::config::{self};
use crate::ops::http::{self, Surface};
use crate::ops::metrics::Exporter;
use crate::ops::screen::Screen;
use crate::ops::shutdown::Shutdown;
use crate::ops::status::About;
use crate::ops::status_line;
use crate::pg::connect::Connector;
use crate::pg::preflight::{self, Weight};
use crate::pg::{catalog, server};
use crate::pipeline::envelope::DebeziumDecoder;
use crate::pipeline::progress::Progress;
use crate::pipeline::run::{self, Plan};
use crate::pipeline::source::kafka::{KafkaProbe, KafkaSource};
use crate::pipeline::transform::{Mapping, MappingError};
use crate::state::{self, ownership};

/// Consume, transform and write, until told to stop
#[derive(Debug, Clone, clap::Args)]
pub struct WorkerCommand {
    #[command(flatten)]
    pub file: ConfigFile,
}

/// Runs the worker until a signal has drained it.
///
/// # Errors
///
/// With what was left behind and what to do next; nothing that was read but not written is lost.
pub async fn run(settings: Settings, screen: Screen, shutdown: Shutdown) -> anyhow::Result<()> {
    let clock = Clock::system();
    let exporter = Exporter::new().context("could not set up metrics")?;
    exporter.install().context("could not set up metrics")?;
    let settings = Arc::new(settings);
    let Source::Kafka(kafka) = &settings.source;

    // The port first: a second worker on this machine should fail before it claims anything.
    let listener = match settings.http.listen {
        Some(address) => Some(
            TcpListener::bind(address)
                .await
                .with_context(|| format!("could not listen on {address} (http.listen)"))?,
        ),
        None => None,
    };
    let probe = Arc::new(KafkaProbe::new(kafka)?);
    let plan = prepare(&settings, &probe, clock.clone()).await?;
    let decoder = DebeziumDecoder::new(&plan.projection, &kafka.unavailable_value);
    let source = KafkaSource::new(kafka)?;

    let (progress, _) = watch::channel(Progress::starting());
    let progress = Arc::new(progress);
    let gate = CaughtUp::new(&plan, kafka.clone(), probe);
    let mut aside = tokio::task::JoinSet::new();
    aside.spawn(exporter.clone().upkeep(shutdown.requested()));
    if let Some(listener) = listener {
        let surface =
            Surface::new(About::new(&settings.name), progress.subscribe(), clock.clone(), exporter)
                .with_gate("caught-up", Arc::new(gate));
        let stopping = shutdown.requested();
        tracing::info!(address = %listener.local_addr()?, "serving status, gates and metrics");
        aside.spawn(async move {
            if let Err(error) = http::serve(listener, Arc::new(surface), stopping).await {
                tracing::error!(%error, "the HTTP server ended");
            }
        });
    }
    let (done, drained) = tokio::sync::oneshot::channel::<()>();
    aside.spawn(status_line::run(
        progress.subscribe(),
        clock,
        async move {
            let _ = drained.await;
        },
        screen,
    ));
    let result = run::run(plan, decoder, source, progress.clone(), shutdown.requested()).await;
    drop(done);
    shutdown.request(crate::ops::shutdown::Cause::Program);
    while aside.join_next().await.is_some() {}
    if let Err(error) = result {
        let hint = error.hint();
        let error = anyhow::Error::new(error).context("the worker stopped; positions are kept");
        return Err(advised(error, hint));
    }
    let counters = progress.borrow().counters;
    tracing::info!(written = counters.written, records = counters.records, "worker drained");
    Ok(())
}

/// Resolves names, checks rights, brings the state tables up and says who we are.
async fn prepare(
    settings: &Arc<Settings>,
    probe: &Arc<KafkaProbe>,
    clock: Clock,
) -> anyhow::Result<Plan> {
    let Source::Kafka(kafka) = &settings.source;
    let connector = Connector::new(&settings.database, format!("crossfade {}", settings.name));
    let mut client = connector.connect().await.map_err(|error| {
        let hint = error.hint();
        advised(error, Some(hint))
    })?;
    let table = catalog::table(&client, &settings.table.schema, &settings.table.name)
        .await
        .map_err(|error| {
            let hint = error.hint();
            advised(error, hint)
        })?;
    if let Some(key) = &settings.table.key {
        let found: Vec<_> = table.key_columns().map(|column| column.name.clone()).collect();
        if *key != found {
            bail!("the config says that {table} has the key {key:?}, the catalog says {found:?}");
        }
    }
    let table = Arc::new(table);
    let (projection, mapping) = Mapping::resolve(&table, &settings.table).map_err(|errors| {
        let line = |error: &MappingError| match error.fix() {
            Some(fix) => format!("{error}\n    {fix}"),
            None => error.to_string(),
        };
        let lines: Vec<_> = errors.iter().map(line).collect();
        anyhow::anyhow!("the config does not fit the table:\n  {}", lines.join("\n  "))
    })?;

    let facts = preflight::facts(&client, &projection, &kafka.slot, &kafka.publication)
        .await
        .map_err(|code| anyhow::anyhow!("could not check the database ({code})"))?;
    let mut stops = Vec::new();
    for finding in preflight::judge(&facts, &projection, &kafka.slot, &kafka.publication) {
        match finding.weight {
            Weight::Warns => tracing::warn!(fix = finding.fix, "{}", finding.what),
            Weight::Stops => stops.push(format!("{}\n    {}", finding.what, finding.fix)),
        }
    }
    if !stops.is_empty() {
        bail!(
            "the database is not ready; each line below has the statement that mends it:\n  {}",
            stops.join("\n  ")
        );
    }

    let applied = state::apply(&mut client).await.map_err(explain)?;
    if applied > 0 {
        tracing::info!(applied, "state tables are up to date in schema crossfade");
    }
    let digest = format!("{} {}", config::digest(settings), mapping.versions());
    state::register(&client, &settings.name, &digest).await.map_err(explain)?;
    let ownership = ownership::read(&client, &settings.name).await.map_err(explain)?;
    let server = server::identity(&client).await?;
    let cluster = probe.clone();
    let cluster = tokio::task::spawn_blocking(move || cluster.cluster_id()).await?;
    let cluster = cluster.with_context(|| {
        format!("no Kafka broker answers at {} (source.brokers)", kafka.brokers)
    })?;
    let asked = probe.clone();
    match tokio::task::spawn_blocking(move || asked.bounds()).await? {
        Ok(bounds) if bounds.is_empty() => tracing::warn!(
            fix = "Register the connector (config/debezium-users.json); it makes the topic.",
            "topic \"{}\" does not exist yet, the worker waits for it",
            kafka.topic
        ),
        Ok(bounds) => {
            let records: i64 = bounds.iter().map(|(_, log)| log.high - log.low).sum();
            tracing::info!(topic = kafka.topic, partitions = bounds.len(), records, "topic found");
        }
        Err(error) => tracing::warn!(%error, "could not look at topic \"{}\"", kafka.topic),
    }
    let source = format!("{server}, Kafka cluster {cluster}");
    tracing::info!(
        migration = settings.name, %table, source,
        "config, rights and tables are in order"
    );
    Ok(Plan {
        settings: settings.clone(),
        connector,
        projection: Arc::new(projection),
        mapping: Arc::new(mapping),
        ownership,
        server,
        source,
        owner: format!("{} pid {}", host(), std::process::id()),
        logs: probe.clone(),
        clock,
    })
}

fn explain(error: state::StateError) -> anyhow::Error {
    let hint = error.hint();
    advised(error, hint)
}

fn host() -> String {
    std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname"))
        .map_or_else(|_| "host".into(), |name| name.trim().to_owned())
}
