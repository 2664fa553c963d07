//! Claims partitions in the database, and samples what only the database knows.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Sender;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_postgres::Client;

use super::{ClaimRequest, Command, Plan, RunError, claim};
use crate::config::settings::Source;
use crate::pg::ident::Ident;
use crate::pg::server;
use crate::pipeline::position::{DatabaseMicros, PartitionId, Position};
use crate::pipeline::progress::{Progress, SlotSample};
use crate::state::progress::{self, Seen};
use crate::state::{StateError, dead_letter, gap, sql};

/// Samples between two mirrors of the durable positions to the consumer group.
const MIRROR_EVERY: u32 = 5;
/// Longest wait for all answers of a sample; claims wait behind it.
const ANSWER: Duration = Duration::from_secs(20);
/// Wait after a sample that the database did not answer.
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
    // One task a claim: a partition whose broker is away must not hold up the others.
    let mut claims = JoinSet::new();
    let mut claiming: HashMap<PartitionId, AbortHandle> = HashMap::new();
    loop {
        tokio::select! {
            request = requests.recv() => {
                let Some(request) = request else { return Ok(()) };
                let partition = request.partition.clone();
                let claim = claim::claim(plan.clone(), pool.clone(), request, commands.clone());
                // An earlier claim that is still under way would take the partition from this one.
                if let Some(former) = claiming.insert(partition, claims.spawn(claim)) {
                    former.abort();
                }
            }
            Some(claimed) = claims.join_next() => {
                match claimed {
                    Err(overtaken) if overtaken.is_cancelled() => {}
                    claimed => claimed.map_err(|_| RunError::Panicked).flatten()?,
                }
            }
            _ = tick.tick() => {
                ticks += 1;
                let mirror = ticks.is_multiple_of(MIRROR_EVERY);
                let sampled = tokio::time::timeout(
                    ANSWER,
                    sample(&plan, &pool, &status, mirror),
                );
                match sampled.await {
                    Ok(Ok(sampled)) => act(&plan, sampled, &commands, &status)?,
                    Ok(Err(error @ RunError::OtherServer { .. })) => return Err(error),
                    Err(_) => tracing::warn!("the database does not answer a sample"),
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "could not sample the database");
                        tokio::time::sleep(BACK_OFF).await;
                    }
                }
            }
        }
    }
}

/// Passes on what a sample has shown.
fn act(
    plan: &Plan,
    Sampled { durable, moved }: Sampled,
    commands: &Sender<Command>,
    status: &watch::Sender<Progress>,
) -> Result<(), RunError> {
    for partition in moved {
        if commands.try_send(Command::LookAgain(partition)).is_err() {
            tracing::debug!("the reading thread is busy; the claim waits");
        }
    }
    if !durable.is_empty() && commands.try_send(Command::Mirror(durable)).is_err() {
        tracing::debug!("the reading thread is busy; the mirror waits");
    }
    let open = status.borrow().dead_letters_open;
    let limit = plan.settings.dead_letters.limit;
    if open >= limit {
        return Err(RunError::DeadLetters { open, limit });
    }
    Ok(())
}

#[derive(Debug)]
struct Sampled {
    durable: Vec<(PartitionId, Position)>,
    /// Partitions whose stored position went back; the thread knows which are its own.
    moved: Vec<PartitionId>,
}

/// Reads clock, slot, gaps and dead letters; with `mirror` also the durable positions.
async fn sample(
    plan: &Plan,
    pool: &deadpool_postgres::Pool,
    status: &watch::Sender<Progress>,
    mirror: bool,
) -> Result<Sampled, RunError> {
    let client = pool.get().await.map_err(|_| claim::unreachable_database())?;
    // A pool that reconnects to a promoted standby would go on as if nothing had been lost.
    let now = server::identity(&client).await?;
    if now != plan.server {
        return Err(RunError::OtherServer { began: plan.server.clone(), now });
    }
    let name = &plan.settings.name;
    let Source::Kafka(kafka) = &plan.settings.source;
    let (now, slot) = clock_and_slot(&client, &kafka.slot).await?;
    gap::watch_slot(&client, name, &kafka.slot).await?;
    let gaps = gap::open(&client, name).await?;
    let dead = dead_letter::open(&client, name).await?;
    // Read before the rows, so that only what was reported must be found in them.
    let reported: BTreeMap<_, _> =
        status.borrow().partitions.iter().map(|(id, one)| (id.clone(), one.position)).collect();
    let seen = match mirror {
        true => progress::durable(&client, name).await?,
        false => progress::seen(&client, name).await?,
    };
    let durable = match mirror {
        true => seen.iter().map(|seen| (seen.partition.clone(), seen.position)).collect(),
        false => Vec::new(),
    };
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
    Ok(Sampled { durable, moved: went_back(&reported, seen) })
}

/// The partitions that must be claimed again: a person moved them, or a crash of the database took
/// back a commit that was reported. Without a change to write no writer would notice either.
fn went_back(reported: &BTreeMap<PartitionId, Position>, seen: Vec<Seen>) -> Vec<PartitionId> {
    let moved = |Seen { partition, position, rewound, .. }: Seen| {
        let lost = reported.get(&partition).is_some_and(|reported| position < *reported);
        if rewound {
            tracing::info!(%partition, "moved by hand, claiming it again");
        } else if lost {
            tracing::warn!(%partition, %position, "a reported commit was lost, claiming it again");
        }
        (rewound || lost).then_some(partition)
    };
    seen.into_iter().filter_map(moved).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_moved_or_lost_is_claimed_again() {
        let id = |number| PartitionId::new("users", number);
        let seen = |number, position, rewound| Seen {
            partition: id(number),
            position: Position(position),
            source: "here".into(),
            rewound,
        };
        let reported = (0..4).map(|number| (id(number), Position(7))).collect();
        let stored = vec![
            seen(0, 7, false),
            seen(1, 8, false), // committed, and reported a moment later
            seen(2, 6, false),
            seen(3, 7, true),
            seen(4, 0, false), // another worker's
        ];
        assert_eq!(went_back(&reported, stored), [id(2), id(3)]);
    }
}
