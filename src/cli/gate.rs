//! The caught-up gate's hands: sends barriers, looks at slot, log and positions.

use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::Duration;

use deadpool_postgres::Pool;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::config::settings::{CaughtUpSettings, Connect, KafkaSource};
use crate::migration::gate::catch_up::{
    Arrival, Barrier, CatchUpGate, Limits, Look, Verdict, behind, ends,
};
use crate::ops::gate::{Gate, GateAnswer, GateAsk, Verdict as Answer};
use crate::pg::connect::Code;
use crate::pg::lsn::Lsn;
use crate::pg::server::{self, ServerIdentity};
use crate::pipeline::position::DatabaseMicros;
use crate::pipeline::run::Plan;
use crate::pipeline::source::kafka::KafkaProbe;
use crate::state::{StateError, dead_letter, gap, progress};

/// Between two looks while a caller waits.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The gate `caught-up` of a migration that reads Kafka.
pub(super) struct CaughtUp {
    migration: String,
    kafka: KafkaSource,
    server: ServerIdentity,
    /// As the progress rows name it.
    source: String,
    defaults: CaughtUpSettings,
    pool: Pool,
    probe: Arc<KafkaProbe>,
    clock: Clock,
    /// One look at a time: two would send two barriers.
    barrier: Mutex<Option<Barrier>>,
    gate: Lock<CatchUpGate>,
}

impl std::fmt::Debug for CaughtUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaughtUp").field("migration", &self.migration).finish_non_exhaustive()
    }
}

impl CaughtUp {
    pub(super) fn new(plan: &Plan, kafka: KafkaSource, probe: Arc<KafkaProbe>) -> Self {
        Self {
            migration: plan.settings.name.clone(),
            kafka,
            server: plan.server.clone(),
            source: plan.source.clone(),
            defaults: plan.settings.gate.caught_up.clone(),
            pool: plan.connector.pool(),
            probe,
            clock: plan.clock.clone(),
            barrier: Mutex::new(None),
            gate: Lock::default(),
        }
    }

    /// Looks once, and remembers what was seen.
    async fn look(&self) {
        let mut barrier = self.barrier.lock().await;
        let look = match self.see(&mut barrier).await {
            Ok(look) => look,
            Err(reason) => Look::Blind { reason },
        };
        match &look {
            Look::Arrived(_) | Look::NoGo { .. } | Look::Blind { .. } => *barrier = None,
            Look::UnderWay { .. } => {}
        }
        self.gate.lock().unwrap_or_else(PoisonError::into_inner).observe(look);
    }

    async fn see(&self, barrier: &mut Option<Barrier>) -> Result<Look, String> {
        let client =
            self.pool.get().await.map_err(|_| "the database does not answer".to_owned())?;
        let sql = |error: tokio_postgres::Error| {
            format!("the database does not answer ({})", Code::of(&error))
        };
        if let Some(reason) = self.no_go(&client).await? {
            return Ok(Look::NoGo { reason });
        }
        let row = client
            .query_one(
                "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, s.active,
                        s.confirmed_flush_lsn, s.wal_status
                   FROM (SELECT 1) one LEFT JOIN pg_replication_slots s ON s.slot_name = $1",
                &[&self.kafka.slot.as_str()],
            )
            .await
            .map_err(sql)?;
        let now = DatabaseMicros(row.get(0));
        let slot = &self.kafka.slot;
        let Some(active) = row.get::<_, Option<bool>>(1) else {
            return Err(format!("there is no replication slot {slot}"));
        };
        if row.get::<_, Option<&str>>(3) == Some("lost") {
            return Ok(Look::NoGo { reason: format!("replication slot {slot} has lost WAL") });
        }
        let sent = match barrier {
            Some(sent) => sent,
            None => barrier.insert(send(&client).await.map_err(sql)?),
        };
        let under_way = |waits_for| Look::UnderWay { sent: sent.sent, now, waits_for };
        let confirmed: Option<Lsn> = row.get(2);
        if sent.ends.is_none() && confirmed.is_none_or(|confirmed| confirmed < sent.lsn) {
            let who = if active { "the connector to confirm" } else { "a connector on" };
            return Ok(under_way(format!("{who} slot {slot}")));
        }
        if let Some(connect) = &self.kafka.connect
            && let Some(trouble) = trouble(connect.clone()).await
        {
            return Err(trouble);
        }
        let ends = match &sent.ends {
            Some(ends) => ends,
            None => {
                let positions = progress::seen(&client, &self.migration)
                    .await
                    .map_err(|error| error.to_string())?;
                let probe = self.probe.clone();
                let bounds = tokio::task::spawn_blocking(move || probe.bounds())
                    .await
                    .map_err(|_| "reading the ends of the topic failed".to_owned())?
                    .map_err(|error| {
                        format!("Kafka does not tell the ends of the topic: {error}")
                    })?;
                if bounds.is_empty() {
                    return Err(format!("topic \"{}\" does not exist", self.kafka.topic));
                }
                sent.ends.insert(ends(&bounds, &positions, &self.source)?)
            }
        };
        let positions =
            progress::durable(&client, &self.migration).await.map_err(|error| error.to_string())?;
        let behind = behind(ends, &positions);
        if let Some((partition, records)) = behind.first() {
            let total: i64 = behind.iter().map(|(_, records)| records).sum();
            return Ok(under_way(format!(
                "a worker: {total} records in {} partition(s), {records} in {partition}",
                behind.len()
            )));
        }
        // Again, now that the positions are read: a record that was parked moved them too.
        if let Some(reason) = self.no_go(&client).await? {
            return Ok(Look::NoGo { reason });
        }
        // The clock is read after the positions, so the lag is never told too small.
        let arrived = client
            .query_one("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint", &[])
            .await
            .map_err(sql)?;
        let arrived = DatabaseMicros(arrived.get(0));
        Ok(Look::Arrived(Arrival { lsn: sent.lsn, sent: sent.sent, arrived }))
    }

    /// What shuts the gate until somebody has acted.
    async fn no_go(&self, client: &tokio_postgres::Client) -> Result<Option<String>, String> {
        let words = |error: StateError| error.to_string();
        let now = server::identity(client).await.map_err(|error| error.to_string())?;
        if now != self.server {
            return Ok(Some(format!(
                "the database is now {now}, the worker began on {}",
                self.server
            )));
        }
        let gaps = gap::open(client, &self.migration).await.map_err(words)?;
        if let Some(first) = gaps.first() {
            return Ok(Some(format!("{} source gap(s), the first: {first}", gaps.len())));
        }
        let dead = dead_letter::open(client, &self.migration).await.map_err(words)?;
        Ok((dead > 0).then(|| format!("{dead} unresolved dead letter(s)")))
    }
}

impl Gate for CaughtUp {
    fn defaults(&self) -> GateAsk {
        let CaughtUpSettings { max_lag, stable_for } = self.defaults;
        GateAsk { max_lag, stable: stable_for, wait: Duration::ZERO }
    }

    fn evaluate(&self, ask: GateAsk) -> BoxFuture<'_, GateAnswer> {
        Box::pin(async move {
            let limits = Limits { max_lag: ask.max_lag, stable_for: ask.stable };
            let began = self.clock.now();
            loop {
                self.look().await;
                let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner).judge(limits);
                let answer = answer(gate, limits);
                let waited = self.clock.now().saturating_duration_since(began);
                let done = match answer.verdict {
                    Answer::Open | Answer::NoGo => true,
                    Answer::Holding | Answer::Closed => waited + LOOK_EVERY > ask.wait,
                };
                if done {
                    return answer;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
    }
}

/// The verdict in words and numbers, always with the limits it was judged by.
fn answer(verdict: Verdict, limits: Limits) -> GateAnswer {
    let limited = |answer: GateAnswer| {
        answer
            .with("max_lag_seconds", limits.max_lag.as_secs_f64())
            .with("stable_seconds", limits.stable_for.as_secs_f64())
    };
    limited(match verdict {
        Verdict::Open { as_of, held, worst_lag } => {
            let reason = format!("everything committed before {as_of} is applied and durable");
            let mut answer = GateAnswer::new(Answer::Open, reason)
                .with("held_seconds", held.as_secs_f64())
                .with("worst_lag_seconds", worst_lag.as_secs_f64());
            answer.evidence = Some(format!("caught up as of {as_of}"));
            answer
        }
        Verdict::Holding { held, remaining, worst_lag } => {
            let reason = format!("caught up, {:.1} s to hold", remaining.as_secs_f64());
            let mut answer = GateAnswer::new(Answer::Holding, reason)
                .with("held_seconds", held.as_secs_f64())
                .with("remaining_seconds", remaining.as_secs_f64())
                .with("worst_lag_seconds", worst_lag.as_secs_f64());
            answer.retry_after = Some(remaining.min(Duration::from_secs(5)));
            answer
        }
        Verdict::Closed { reason } => {
            let mut answer = GateAnswer::new(Answer::Closed, reason);
            answer.retry_after = Some(Duration::from_secs(1));
            answer
        }
        Verdict::NoGo { reason } => GateAnswer::new(Answer::NoGo, reason),
    })
}

/// Sends a barrier. What is not flushed is not streamed: the commit waits for it, or where it does not
/// (`synchronous_commit = off`) the server's WAL writer follows within a second.
///
/// Non-transactional: a transactional message has made connectors lose what shared its transaction.
async fn send(client: &tokio_postgres::Client) -> Result<Barrier, tokio_postgres::Error> {
    let row = client
        .query_one(
            // The id makes it a transaction whose commit can wait.
            "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
                    pg_logical_emit_message(false, 'crossfade.barrier', ''), pg_current_xact_id()",
            &[],
        )
        .await?;
    Ok(Barrier { sent: DatabaseMicros(row.get(0)), lsn: row.get(1), ends: None })
}

/// What is wrong with the connector, as Kafka Connect sees it.
async fn trouble(connect: Connect) -> Option<String> {
    let Connect { url, connector } = connect;
    let asked = tokio::task::spawn_blocking(move || -> Result<Option<String>, ureq::Error> {
        let url = format!("{}/connectors/{connector}/status", url.trim_end_matches('/'));
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(5)))
            .build()
            .new_agent();
        let status: serde_json::Value = agent.get(&url).call()?.body_mut().read_json()?;
        let states = std::iter::once(&status["connector"])
            .chain(status["tasks"].as_array().into_iter().flatten())
            .map(|part| part["state"].as_str().unwrap_or("unknown").to_owned())
            .collect::<Vec<_>>();
        let wrong = states.iter().find(|state| *state != "RUNNING");
        let wrong = wrong.cloned().or_else(|| (states.len() < 2).then(|| "without a task".into()));
        Ok(wrong.map(|state| format!("connector \"{connector}\" is {state}")))
    });
    match asked.await {
        Ok(Ok(trouble)) => trouble,
        Ok(Err(error)) => Some(format!("Kafka Connect does not answer: {error}")),
        Err(_) => Some("asking Kafka Connect failed".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_in_the_documentation_are_what_the_gate_answers() {
        let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/http.md"));
        let (max_lag, stable_for) = (Duration::from_secs(5), Duration::from_secs(10));
        let limits = Limits { max_lag, stable_for };
        let (worst_lag, held) = (Duration::from_millis(1500), Duration::from_millis(12_500));
        let remaining = Duration::from_millis(6_500);
        for verdict in [
            Verdict::Open { as_of: Lsn(0x77C_39D0), held, worst_lag },
            Verdict::Holding { held: stable_for - remaining, remaining, worst_lag },
            Verdict::NoGo { reason: "1 unresolved dead letter(s)".into() },
        ] {
            let said = answer(verdict, limits);
            let numbers = serde_json::to_string(&said.numbers).unwrap();
            let numbers = numbers.replace(":", ": ").replace(",", ", ");
            for part in [format!("\"reason\": \"{}\"", said.reason), numbers] {
                assert!(page.contains(&part), "docs/http.md lacks {part}");
            }
            if let Some(evidence) = said.evidence {
                assert!(page.contains(&format!("\"evidence\": \"{evidence}\"")));
            }
        }
    }
}
