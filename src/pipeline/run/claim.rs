//! Claims a partition: reads its bounds, takes it over in the database, and tells the reading thread.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::channel::{Sender, TrySendError};
use deadpool_postgres::Pool;

use super::{ClaimRequest, Command, Plan, RunError};
use crate::pg::connect::Code;
use crate::pg::sqlstate::Disposition;
use crate::pipeline::checkpoint::Lane;
use crate::pipeline::position::PartitionId;
use crate::state::StateError;
use crate::state::progress::{self, Log, TakeOver, Taken};

/// Wait after a broker or a database that did not answer.
const BACK_OFF: Duration = Duration::from_secs(1);
/// Wait for the reading thread to take what is in its inbox.
const BUSY: Duration = Duration::from_millis(10);

/// Claims until it succeeds or the partition is no longer ours to claim: without a claim it stays
/// paused.
pub(super) async fn claim(
    plan: Plan,
    pool: Pool,
    request: ClaimRequest,
    commands: Sender<Command>,
) -> Result<(), RunError> {
    let ClaimRequest { partition, live, found } = request;
    let mut seen = None;
    let (claim, log) = loop {
        // For every attempt: bounds that grew old look like a log that became shorter.
        let log = bounds(&plan, &partition).await;
        if !live.load(Ordering::Acquire) {
            return Ok(());
        }
        let attempt = async {
            let mut client = pool.get().await.map_err(|_| unreachable_database())?;
            let take = TakeOver {
                migration: &plan.settings.name,
                partition: &partition,
                lane: Lane::ONLY,
                source: &plan.source,
                owner: &plan.owner,
                found: found.as_ref(),
                seen,
            };
            progress::claim(&mut client, take, log).await
        };
        match attempt.await {
            Ok(Taken::Claimed(claim)) => break (claim, log),
            Ok(Taken::Beyond(position)) => seen = Some(position),
            Err(StateError::Sql { what, code }) if code.disposition() != Disposition::Halt => {
                tracing::warn!(%partition, what, %code, "could not claim the partition yet");
                tokio::time::sleep(BACK_OFF).await;
            }
            Err(error) => return Err(error.into()),
        }
    };
    if let Some(gap) = &claim.gap {
        let gap = gap.detail();
        tracing::error!(%partition, gap, "the source has a gap; no gate opens until it is healed");
    }
    let mut claimed = Command::Claimed { partition, live, log, claim };
    loop {
        match commands.try_send(claimed) {
            Err(TrySendError::Full(back)) => claimed = back,
            // Without a reader the worker is stopping, and so is this task.
            Ok(()) | Err(TrySendError::Disconnected(_)) => return Ok(()),
        }
        tokio::time::sleep(BUSY).await;
    }
}

async fn bounds(plan: &Plan, partition: &PartitionId) -> Log {
    loop {
        let (logs, asked) = (plan.logs.clone(), partition.clone());
        match tokio::task::spawn_blocking(move || logs.bounds(&asked)).await {
            Ok(Ok(log)) => return log,
            Ok(Err(error)) => {
                tracing::warn!(%partition, error, "could not read the bounds of the partition");
            }
            Err(error) => tracing::error!(%partition, %error, "reading bounds has failed"),
        }
        tokio::time::sleep(BACK_OFF).await;
    }
}

pub(super) fn unreachable_database() -> StateError {
    StateError::Sql { what: "connect", code: Code::Closed }
}
