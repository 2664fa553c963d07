//! Joins the stages: a thread that reads, tasks that write, a task that claims and samples.
//!
//! ```text
//!  thread `ingest`                     tasks `writer`                      task `control`
//!  source → envelope → transform       window → batches → sink → receipt   claims partitions, samples
//!      → window ──bounded channel──→       │                                 clock, slot, gaps
//!      ↑──────────── commands: claimed, seek back, fenced, mirror ───────────┘
//! ```
//!
//! The thread never waits for the database: a partition whose window is full is paused while polling
//! goes on. Every channel is bounded.

mod claim;
mod control;
mod ingest;
mod parts;
mod retry;
mod writer;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crossbeam::channel;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinError;

use crate::clock::Clock;
use crate::config::settings::Settings;
use crate::pg::connect::{ConnectError, Connector};
use crate::pg::server::{IdentityError, ServerIdentity};
use crate::pipeline::batch::Window;
use crate::pipeline::envelope::DebeziumDecoder;
use crate::pipeline::position::{Epoch, PartitionId, Position};
use crate::pipeline::progress::{Mode, Progress, WorkerState};
use crate::pipeline::sink::SinkError;
use crate::pipeline::source::{Logs, Source, SourceError};
use crate::pipeline::transform::Mapping;
use crate::state::StateError;
use crate::state::gap::Gap;
use crate::state::ownership::Ownership;
use crate::state::progress::{Claim, Log};
use crate::table::Projection;

/// All that a run needs, resolved and checked at start.
#[derive(Clone)]
pub struct Plan {
    pub settings: Arc<Settings>,
    pub connector: Connector,
    pub projection: Arc<Projection>,
    pub mapping: Arc<Mapping>,
    pub ownership: Ownership,
    pub server: ServerIdentity,
    /// Database and broker together, as the progress rows name them.
    pub source: String,
    /// Names this process in the progress rows.
    pub owner: String,
    /// Tells how far the source's logs reach.
    pub logs: Arc<dyn Logs>,
    pub clock: Clock,
}

/// Why the worker stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the batch at {partition} behind position {from} cannot be written")]
    Sink { partition: PartitionId, from: Position, source: SinkError },
    #[error("transactions behind {partition} did not become visible in time")]
    NotVisible { partition: PartitionId },
    #[error("progress of {partition} is at {found}, the batch went from {from} to {to}")]
    Ahead { partition: PartitionId, found: String, from: Position, to: Position },
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the database is now {now}, the worker began on {began}")]
    OtherServer { began: ServerIdentity, now: ServerIdentity },
    #[error("a writer cannot open its session")]
    Session(#[source] SinkError),
    #[error("{open} dead letters are unresolved, the limit is {limit}")]
    DeadLetters { open: u64, limit: u64 },
    #[error("could not start the reading thread")]
    Thread(#[source] std::io::Error),
    #[error("part of the worker ended by a defect")]
    Panicked,
}

impl RunError {
    /// What an operator can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Sink { source, .. } => source.hint().map(String::from),
            Self::NotVisible { .. } => Some(
                "A commit waits for a synchronous standby: see pg_stat_activity for wait_event \
                 SyncRep. Nothing was skipped; start the worker again when it has ended."
                    .into(),
            ),
            Self::Ahead { .. } => Some(
                "Another program moved crossfade.progress. Find it; then start the worker again."
                    .into(),
            ),
            Self::State(error) => error.hint(),
            Self::Connect(error) => Some(error.hint().into()),
            Self::OtherServer { .. } => Some(
                "Start the worker again: it records that the source may have lost changes, and \
                 reads the topic from its start."
                    .into(),
            ),
            Self::DeadLetters { .. } => Some(
                "See crossfade.dead_letter for the reasons. Raise dead_letters.limit only when they \
                 are understood."
                    .into(),
            ),
            Self::Session(_) => {
                Some("Compare table, columns and rights with the config; then start again.".into())
            }
            Self::Source(_) | Self::Identity(_) | Self::Thread(_) | Self::Panicked => None,
        }
    }
}

/// A window on its way to a writer.
#[derive(Debug)]
struct Work {
    window: Window,
    mode: Mode,
    epoch: Epoch,
    /// Cleared when the partition is revoked, sought or fenced: what is still queued is then void.
    live: Arc<AtomicBool>,
}

/// What the thread is told.
#[derive(Debug)]
enum Command {
    Claimed {
        partition: PartitionId,
        /// Of the request; a claim that was overtaken is void.
        live: Arc<AtomicBool>,
        log: Log,
        claim: Claim,
    },
    /// A commit that was reported has been lost in a crash: read again from there. `live` is that of
    /// the window which met it; the answer to a window that is void by now is void too.
    SeekBack {
        partition: PartitionId,
        position: Position,
        live: Arc<AtomicBool>,
    },
    /// Somebody else owns the partition.
    Fenced {
        partition: PartitionId,
        live: Arc<AtomicBool>,
    },
    Mirror(Vec<(PartitionId, Position)>),
    /// The partition's stored position was moved or lost: claim it again.
    LookAgain(PartitionId),
    Stop,
}

/// What the thread asks of the control task.
#[derive(Debug)]
struct ClaimRequest {
    partition: PartitionId,
    /// Cleared when the partition is revoked or asked for again.
    live: Arc<AtomicBool>,
    /// What re-reading the last record has shown.
    found: Option<Gap>,
}

/// Claims, commands and windows under way; each is answered or dropped, none waits behind another
/// kind.
const COMMANDS: usize = 1024;

/// Runs until `stop`, then drains; or until an error that waiting does not mend.
///
/// # Errors
///
/// Whatever was not written stands behind the stored positions, and is read again at the next start.
pub async fn run(
    plan: Plan,
    decoder: DebeziumDecoder,
    source: impl Source + Send + 'static,
    progress: Arc<watch::Sender<Progress>>,
    stop: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let (commands, inbox) = channel::bounded(COMMANDS);
    let (claims, requests) = mpsc::channel(COMMANDS);
    let mut writers = tokio::task::JoinSet::new();
    let mut lanes = Vec::new();
    for number in 0..plan.settings.database.writers {
        // One window waits while one is written; more would only grow old.
        let (sender, receiver) = channel::bounded(1);
        let wake = Arc::new(Notify::new());
        lanes.push(ingest::WriterLane { windows: sender, wake: wake.clone() });
        let writer = writer::Writer::new(number, &plan, receiver, wake, &commands, &progress);
        writers.spawn(writer.run());
    }
    let mut control =
        tokio::spawn(control::run(plan.clone(), requests, commands.clone(), progress.clone()));
    let ingest = ingest::Ingest::new(&plan, decoder, source, lanes, inbox, claims, &progress);
    // A thread of its own: it lives as long as the worker, and a profile shows its name.
    let (ended, mut ingest_ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("ingest".into())
        .spawn(move || ended.send(ingest.run()))
        .map_err(RunError::Thread)?;
    progress.send_modify(|progress| progress.state = WorkerState::Running);

    let joined = |ended: Result<Result<(), RunError>, JoinError>| {
        ended.map_err(|_| RunError::Panicked).flatten()
    };
    let mut stop = std::pin::pin!(stop);
    let mut reading = true;
    let first = tokio::select! {
        biased;
        () = &mut stop => Ok(()),
        Some(ended) = writers.join_next() => joined(ended),
        ended = &mut control => joined(ended),
        ended = &mut ingest_ended => {
            reading = false;
            ended.map_err(|_| RunError::Panicked).flatten()
        }
    };
    progress.send_modify(|progress| progress.state = WorkerState::Draining);
    // The channel is only full of what the thread will read before this.
    let _ = commands.send(Command::Stop);
    control.abort();
    let drained = tokio::time::timeout(plan.settings.worker.shutdown_timeout, async {
        let mut result = match reading {
            true => ingest_ended.await.map_err(|_| RunError::Panicked).flatten(),
            false => Ok(()),
        };
        while let Some(ended) = writers.join_next().await {
            result = result.and(joined(ended));
        }
        result
    })
    .await
    .unwrap_or_else(|_| {
        tracing::warn!("the time to drain ran out; what is left is read again at the next start");
        Ok(())
    });
    let result = first.and(drained);
    let state = if result.is_ok() { WorkerState::Stopped } else { WorkerState::Failed };
    progress.send_modify(|progress| progress.state = state);
    result
}
