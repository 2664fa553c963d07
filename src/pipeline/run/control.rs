//! Claims partitions in the database, and samples what only the database knows.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Sender;
use tokio::sync::{mpsc, watch};
use tokio_postgres::Client;

use super::{ClaimRequest, Command, Plan, RunError};
use crate::config::settings::Source;
use crate::pg::connect::Code;
use crate::pg::ident::Ident;
use crate::pipeline::checkpoint::Lane;
use crate::pipeline::position::{DatabaseMicros, PartitionId, Position};
use crate::pipeline::progress::{Progress, SlotSample};
use crate::state::{StateError, dead_letter, gap, progress, sql};

/// Samples between two mirrors of the durable positions to the consumer group.
const MIRROR_EVERY: u32 = 5;
/// Wait after a sample or a claim that the database did not answer.
const BACK_OFF: Duration = Duration::from_secs(1);

pub(super) async fn run(
    plan: Plan,
    mut requests: mpsc::Receiver<ClaimRequest>,
    commands: Sender<Command>,
    status: Arc<watch::Sender<Progress>>,
) -> Result<(), RunError> {
    let pool = plan.connector.pool();
    let mut tick = tokio::time::interval(plan.settings.worker.sample_every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut ticks = 0_u32;
    loop {
        // Claims first: a partition that nobody reads is worse than an old figure.
        tokio::select! {
            biased;
            request = requests.recv() => {
                let Some(request) = request else { return Ok(()) };
                claim(&plan, &pool, request, &commands).await?;
            }
            _ = tick.tick() => {
                ticks += 1;
                let mirror = ticks.is_multiple_of(MIRROR_EVERY);
                match sample(&plan, &pool, &status, mirror).await {
                    Ok(Sampled { durable, rewound }) => {
                        for partition in rewound {
                            tracing::info!(%partition, "moved by hand, claiming it again");
                            if commands.try_send(Command::LookAgain(partition)).is_err() {
                                tracing::debug!("the reading thread is busy; the rewind waits");
                            }
                        }
                        if !durable.is_empty() && commands.try_send(Command::Mirror(durable)).is_err() {
                            tracing::debug!("the reading thread is busy; the mirror waits");
                        }
                        let open = status.borrow().dead_letters_open;
                        let limit = plan.settings.dead_letters.limit;
                        if open > limit {
                            return Err(RunError::DeadLetters { open, limit });
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "could not sample the database");
                        tokio::time::sleep(BACK_OFF).await;
                    }
                }
            }
        }
    }
}

/// Claims until it succeeds: without a claim the partition stays paused.
async fn claim(
    plan: &Plan,
    pool: &deadpool_postgres::Pool,
    request: ClaimRequest,
    commands: &Sender<Command>,
) -> Result<(), RunError> {
    let ClaimRequest { partition, generation, log, found } = request;
    let claim = loop {
        let attempt = async {
            let mut client = pool.get().await.map_err(|_| unreachable_database())?;
            if let Some(gap) = &found {
                gap::record(&**client, &plan.settings.name, &partition, gap).await?;
                progress::reset(
                    &client,
                    &plan.settings.name,
                    &partition,
                    Position::before(log.low),
                )
                .await?;
            }
            progress::claim(
                &mut client,
                &plan.settings.name,
                &partition,
                Lane::ONLY,
                &plan.source,
                log,
                &plan.owner,
            )
            .await
        };
        match attempt.await {
            Ok(claim) => break claim,
            Err(error @ StateError::Sql { code: Code::State(_), .. }) if halts(&error) => {
                return Err(error.into());
            }
            Err(error) => {
                tracing::warn!(%partition, %error, "could not claim the partition yet");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    };
    if let Some(gap) = &claim.gap {
        tracing::error!(%partition, gap = gap.detail(), "the source has a gap; no gate opens until it is healed");
    }
    // Room is bounded by the partitions of one worker; a full channel means the thread has stopped.
    if commands.try_send(Command::Claimed { partition, generation, log, claim }).is_err() {
        tracing::warn!("a claimed partition found no reader");
    }
    Ok(())
}

fn halts(error: &StateError) -> bool {
    match error {
        StateError::Sql { code, .. } => {
            code.disposition() == crate::pg::sqlstate::Disposition::Halt
        }
        StateError::Newer { .. }
        | StateError::OtherConfig { .. }
        | StateError::Mode { .. }
        | StateError::Session(_) => true,
    }
}

fn unreachable_database() -> StateError {
    StateError::Sql { what: "connect", code: Code::Closed }
}

#[derive(Debug)]
struct Sampled {
    durable: Vec<(PartitionId, Position)>,
    /// Partitions that a person has moved; the thread knows which are its own.
    rewound: Vec<PartitionId>,
}

/// Reads clock, slot, gaps and dead letters; with `mirror` also the durable positions.
async fn sample(
    plan: &Plan,
    pool: &deadpool_postgres::Pool,
    status: &watch::Sender<Progress>,
    mirror: bool,
) -> Result<Sampled, StateError> {
    let client = pool.get().await.map_err(|_| unreachable_database())?;
    let name = &plan.settings.name;
    let Source::Kafka(kafka) = &plan.settings.source;
    let (now, slot) = clock_and_slot(&client, &kafka.slot).await?;
    let gaps = gap::open(&client, name).await?;
    let dead = dead_letter::open(&client, name).await?;
    let rewound = progress::rewound(&client, name).await?;
    let durable = if mirror { progress::durable(&client, name).await? } else { Vec::new() };
    let sampled = plan.clock.now();
    status.send_modify(|status| {
        status.slot = slot;
        status.source_gaps = gaps;
        status.dead_letters_open = dead;
        status.sampled = Some(sampled);
        for one in status.partitions.values_mut() {
            one.lag_seconds = match one.lag_records() {
                Some(0) => Some(0.0),
                Some(_) => one.committed.map(|committed| now.seconds_since(committed)),
                None => None,
            };
        }
    });
    Ok(Sampled { durable, rewound })
}

async fn clock_and_slot(
    client: &Client,
    slot: &Ident,
) -> Result<(DatabaseMicros, Option<SlotSample>), StateError> {
    let row = client
        .query_one(
            "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, s.active,
                    pg_wal_lsn_diff(pg_current_wal_lsn(), s.confirmed_flush_lsn)::bigint,
                    pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)::bigint,
                    s.confirmed_flush_lsn
               FROM (SELECT 1) one LEFT JOIN pg_replication_slots s ON s.slot_name = $1",
            &[&slot.as_str()],
        )
        .await
        .map_err(sql("read clock and slot"))?;
    let bytes = |index| u64::try_from(row.get::<_, Option<i64>>(index).unwrap_or(0)).unwrap_or(0);
    let slot = row.get::<_, Option<bool>>(1).map(|active| SlotSample {
        active,
        lag_bytes: bytes(2),
        retained_bytes: bytes(3),
        confirmed: row.get(4),
    });
    Ok((DatabaseMicros(row.get(0)), slot))
}
