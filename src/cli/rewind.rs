//! `crossfade rewind`: a person moves where a partition is read next.

use std::sync::Arc;

use anyhow::{Context, bail};

use super::hint::advised;
use crate::config::settings::{Settings, Source};
use crate::pg::connect::Connector;
use crate::pipeline::position::Position;
use crate::pipeline::source::kafka::KafkaProbe;
use crate::state::progress;

/// Move where the topic is read next; a running worker follows by itself
#[derive(Debug, Clone, clap::Args)]
pub struct RewindCommand {
    #[command(flatten)]
    pub file: super::config::ConfigFile,
    /// `earliest`, or the position (inclusive) that counts as done: reading goes on behind it
    #[arg(long)]
    pub to: Target,
    /// Only this partition; all of them otherwise
    #[arg(long)]
    pub partition: Option<i32>,
}

/// Where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Earliest,
    Position(Position),
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse::<i64>()) {
            ("earliest", _) => Ok(Self::Earliest),
            (_, Ok(position)) if (-1..i64::MAX).contains(&position) => {
                Ok(Self::Position(Position(position)))
            }
            _ => Err("expected `earliest` or a position from -1 on".into()),
        }
    }
}

/// Moves and says what was moved.
///
/// # Errors
///
/// When nothing was moved: the migration has not begun, or there is no such partition.
pub async fn run(settings: Settings, to: Target, only: Option<i32>) -> anyhow::Result<String> {
    let Source::Kafka(kafka) = &settings.source;
    let probe = Arc::new(KafkaProbe::new(kafka)?);
    let bounds = tokio::task::spawn_blocking(move || probe.bounds())
        .await?
        .context("Kafka does not tell the bounds of the topic")?;
    let connector = Connector::new(&settings.database, "crossfade rewind");
    let mut client = connector.connect().await.map_err(|error| {
        let hint = error.hint();
        advised(error, Some(hint))
    })?;
    let mut said = String::new();
    for (partition, log) in bounds {
        if only.is_some_and(|only| only != partition.number) {
            continue;
        }
        let position = match to {
            Target::Earliest => Position::before(log.low),
            Target::Position(position) => position,
        };
        if position.next_offset() < log.low || position.next_offset() > log.high {
            bail!(
                "{partition} holds the positions {} to {}; {position} is outside. Nothing more was moved.\n{said}",
                log.low,
                log.high - 1
            );
        }
        let moved = progress::rewind(&mut client, &settings.name, &partition, position).await;
        let moved = moved.map_err(|error| {
            let hint = "A worker makes the state tables at its first start; nothing was moved.";
            advised(error, Some(hint))
        })?;
        if moved > 0 {
            said.push_str(&format!("{partition}: next offset {}\n", position.next_offset()));
        }
    }
    if said.is_empty() {
        bail!("migration \"{}\" has no progress there to move", settings.name);
    }
    Ok(said)
}
