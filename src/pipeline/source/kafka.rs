//! Kafka, read through one consumer group.
//!
//! The group shares partitions among workers and does nothing else: where a partition begins is told by
//! the progress rows, and the group's own offsets are only a mirror for lag tools. A partition that is
//! assigned stays paused until it has been claimed in the database and [`Source::start`] says from where.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::{Logs, Polled, Source, SourceError};
use crate::config::settings;
use crate::pipeline::change::RawChange;
use crate::pipeline::position::{PartitionId, Position};
use crate::state::progress::Log;

/// Longest wait for a broker's answer in one call; what is not answered is asked again.
const ANSWER: Duration = Duration::from_secs(5);

/// A consumer of one topic.
pub struct KafkaSource {
    consumer: BaseConsumer<Shared>,
    topic: Arc<str>,
    /// Assigned partitions that are still to be announced.
    unannounced: Vec<PartitionId>,
    assigned: BTreeMap<i32, PartitionId>,
    starting: BTreeMap<i32, Start>,
}

/// Where a partition is to be sought, until the client has taken it.
#[derive(Debug, Clone, Copy)]
struct Start {
    next: i64,
    refused: u32,
}

/// Refusals of a seek after which the partition is assigned anew. A client that is still setting a
/// partition up refuses a few times; one that met `auto.offset.reset = error` refuses for ever.
const REFUSALS: u32 = 50;

/// What the client's callbacks leave for the next poll.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Inbox>>);

#[derive(Default)]
struct Inbox {
    rebalances: VecDeque<Rebalance>,
    ends: BTreeMap<i32, i64>,
    unreachable: bool,
}

enum Rebalance {
    Assigned(Vec<i32>),
    Revoked(Vec<i32>),
}

impl KafkaSource {
    /// Joins the group.
    ///
    /// # Errors
    ///
    /// When the settings are refused; a broker that does not answer is waited for.
    pub fn new(settings: &settings::KafkaSource) -> Result<Self, SourceError> {
        let shared = Shared::default();
        let consumer: BaseConsumer<Shared> = consumer_config(settings)?
            .set("group.id", &settings.group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            // The least that brokers allow by default: a killed worker's partitions move after it.
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "2000")
            .set("max.poll.interval.ms", "300000")
            // New topics and partitions are seen this soon.
            .set("topic.metadata.refresh.interval.ms", "10000")
            .set("queued.max.messages.kbytes", (settings.queue_bytes / 1024).max(1).to_string())
            .set("statistics.interval.ms", "1000")
            .create_with_context(shared)
            .map_err(setup)?;
        consumer.subscribe(&[&settings.topic]).map_err(SourceError::Setup)?;
        Ok(Self {
            consumer,
            topic: settings.topic.as_str().into(),
            unannounced: Vec::new(),
            assigned: BTreeMap::new(),
            starting: BTreeMap::new(),
        })
    }

    fn partition(&self, number: i32) -> PartitionId {
        PartitionId { topic: self.topic.clone(), number }
    }

    fn list(&self, number: i32) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, number);
        list
    }

    fn rebalanced(&mut self) -> Option<Polled> {
        let next = self.consumer.context().inbox(|inbox| inbox.rebalances.pop_front());
        match next? {
            Rebalance::Assigned(numbers) => {
                let partitions: Vec<_> = numbers.iter().map(|n| self.partition(*n)).collect();
                self.assigned.extend(numbers.into_iter().zip(partitions.iter().cloned()));
                self.unannounced.extend(partitions);
                None
            }
            Rebalance::Revoked(numbers) => {
                for number in &numbers {
                    self.assigned.remove(number);
                    self.starting.remove(number);
                }
                self.unannounced.retain(|partition| !numbers.contains(&partition.number));
                Some(Polled::Revoked(numbers.iter().map(|n| self.partition(*n)).collect()))
            }
        }
    }

    /// Seeks what is to be started. The client refuses while it still sets a partition up.
    fn seek(&mut self) {
        let (consumer, topic) = (&self.consumer, &self.topic);
        self.starting.retain(|number, start| {
            let mut list = TopicPartitionList::new();
            let offset = Offset::Offset(start.next);
            if let Err(error) = list.add_partition_offset(topic, *number, offset) {
                tracing::error!(partition = number, %error, "an offset was refused");
                return true;
            }
            let sought = if start.refused < REFUSALS {
                consumer
                    .seek_partitions(list.clone(), Duration::from_millis(500))
                    .and_then(|answers| answers.elements().iter().try_for_each(|one| one.error()))
            } else {
                start.refused = 0;
                consumer
                    .incremental_unassign(&list)
                    .and_then(|()| consumer.incremental_assign(&list))
            };
            let started = sought.and_then(|()| consumer.resume(&list));
            if let Err(error) = &started {
                start.refused += 1;
                if start.refused.is_multiple_of(REFUSALS) {
                    tracing::warn!(partition = number, %error, "cannot start a partition yet");
                }
            }
            started.is_err()
        });
    }
}

impl Source for KafkaSource {
    fn poll(
        &mut self,
        timeout: Duration,
        receive: &mut dyn FnMut(RawChange<'_>),
    ) -> Result<Polled, SourceError> {
        if let Some(polled) = self.rebalanced() {
            return Ok(polled);
        }
        if !self.unannounced.is_empty() {
            return Ok(Polled::Assigned(std::mem::take(&mut self.unannounced)));
        }
        let mut timeout = timeout;
        if !self.starting.is_empty() {
            self.seek();
            timeout = timeout.min(Duration::from_millis(10));
        }
        match self.consumer.poll(timeout) {
            None => Ok(Polled::Nothing),
            Some(Ok(message)) => {
                let number = message.partition();
                // A record that was fetched before the partition was started again is none of ours.
                if self.starting.contains_key(&number) {
                    return Ok(Polled::Nothing);
                }
                let Some(partition) = self.assigned.get(&number) else {
                    return Ok(Polled::Nothing);
                };
                receive(RawChange {
                    partition,
                    position: Position(message.offset()),
                    key: message.key(),
                    value: message.payload(),
                });
                Ok(Polled::Record)
            }
            Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                Err(SourceError::Fatal(KafkaError::MessageConsumptionFatal(code)))
            }
            Some(Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
            ))) => {
                // The error does not say which: look at all again. What is lost becomes a gap there.
                tracing::warn!(
                    "an offset is no longer in the log, looking at all partitions again"
                );
                self.unannounced = self.assigned.values().cloned().collect();
                Ok(Polled::Nothing)
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "Kafka does not deliver");
                Ok(Polled::Nothing)
            }
        }
    }

    fn start(&mut self, partition: &PartitionId, next: i64) {
        if self.assigned.contains_key(&partition.number) {
            self.starting.insert(partition.number, Start { next, refused: 0 });
        }
    }

    fn pause(&mut self, partition: &PartitionId) {
        if let Err(error) = self.consumer.pause(&self.list(partition.number)) {
            tracing::warn!(%partition, %error, "could not pause a partition");
        }
    }

    fn resume(&mut self, partition: &PartitionId) {
        if let Err(error) = self.consumer.resume(&self.list(partition.number)) {
            tracing::warn!(%partition, %error, "could not resume a partition");
        }
    }

    fn end(&self, partition: &PartitionId) -> Option<i64> {
        self.consumer.context().inbox(|inbox| inbox.ends.get(&partition.number).copied())
    }

    fn look_again(&mut self, partition: &PartitionId) {
        if self.assigned.contains_key(&partition.number) && !self.unannounced.contains(partition) {
            self.unannounced.push(partition.clone());
        }
    }

    fn trouble(&self) -> Option<String> {
        let unreachable = self.consumer.context().inbox(|inbox| inbox.unreachable);
        unreachable.then(|| "no Kafka broker answers".to_owned())
    }

    fn mirror(&mut self, durable: &[(PartitionId, Position)]) {
        let mut list = TopicPartitionList::new();
        for (partition, position) in durable {
            if self.assigned.contains_key(&partition.number) && position.next_offset() >= 0 {
                let offset = Offset::Offset(position.next_offset());
                if let Err(error) = list.add_partition_offset(&self.topic, partition.number, offset)
                {
                    tracing::warn!(%partition, %error, "could not mirror an offset");
                }
            }
        }
        if list.count() > 0
            && let Err(error) = self.consumer.commit(&list, CommitMode::Async)
        {
            tracing::warn!(%error, "could not mirror offsets to the group");
        }
    }
}

impl Shared {
    fn inbox<T>(&self, act: impl FnOnce(&mut Inbox) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Shared {
    fn stats(&self, statistics: Statistics) {
        // Bootstrap entries have the id -1 and may rest while their broker is up under its own.
        let brokers = || statistics.brokers.values().filter(|broker| broker.nodeid >= 0);
        self.inbox(|inbox| {
            inbox.unreachable = !brokers().any(|broker| broker.state == "UP");
            for partition in statistics.topics.values().flat_map(|topic| topic.partitions.values())
            {
                if partition.partition >= 0 && partition.ls_offset >= 0 {
                    inbox.ends.insert(partition.partition, partition.ls_offset);
                }
            }
        });
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => {
                tracing::warn!(target: "rdkafka", facility, message);
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(target: "rdkafka", facility, message);
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.inbox(|inbox| inbox.unreachable = true);
        }
        tracing::warn!(target: "rdkafka", %error, reason, "Kafka client error");
    }
}

impl ConsumerContext for Shared {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        kind: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let numbers: Vec<i32> = list.elements().iter().map(|one| one.partition()).collect();
        let done = if kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            // A place to stand on until the real one is known; without it the client would ask for
            // the group's offsets, and fail where there are none.
            let assigned = list
                .set_all_offsets(Offset::Beginning)
                .and_then(|()| consumer.incremental_assign(list))
                .and_then(|()| consumer.pause(list));
            self.inbox(|inbox| inbox.rebalances.push_back(Rebalance::Assigned(numbers)));
            assigned
        } else {
            self.inbox(|inbox| inbox.rebalances.push_back(Rebalance::Revoked(numbers)));
            consumer.incremental_unassign(list)
        };
        if let Err(error) = done {
            tracing::error!(%error, "could not follow a rebalance");
        }
    }
}

/// What every client of the topic has in common; the group's consumer adds to it.
fn consumer_config(settings: &settings::KafkaSource) -> Result<ClientConfig, SourceError> {
    let mut config = ClientConfig::new();
    for (name, value) in &settings.properties {
        config.set(name, value.expose());
    }
    for (name, path) in &settings.property_files {
        let text = std::fs::read_to_string(path)
            .map_err(|error| SourceError::Secret(name.clone(), error))?;
        config.set(name, text.trim_end());
    }
    config
        .set("bootstrap.servers", &settings.brokers)
        .set("client.id", "crossfade")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A lost offset must be loud, never a jump to somewhere.
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        // The default of a second lets a fast reader idle: librdkafka issue 2879.
        .set("fetch.queue.backoff.ms", "20")
        .set("fetch.wait.max.ms", "100")
        // Counted compressed: Debezium's records shrink ten- to twentyfold, so these are small.
        .set("fetch.max.bytes", "4194304")
        .set("max.partition.fetch.bytes", "262144")
        .set_log_level(RDKafkaLogLevel::Warning);
    Ok(config)
}

/// The client's error without the value that it may repeat.
fn setup(error: KafkaError) -> SourceError {
    if let KafkaError::ClientConfig(_, _, property, _) = error {
        SourceError::Property(property)
    } else {
        SourceError::Setup(error)
    }
}

/// Reads a topic's ends and the cluster's identity, apart from any group.
pub struct KafkaProbe {
    consumer: BaseConsumer,
    topic: Arc<str>,
}

impl KafkaProbe {
    /// # Errors
    ///
    /// When the settings are refused.
    pub fn new(settings: &settings::KafkaSource) -> Result<Self, SourceError> {
        let consumer = consumer_config(settings)?.create().map_err(setup)?;
        Ok(Self { consumer, topic: settings.topic.as_str().into() })
    }

    /// The id that a cluster gives itself; blocks for up to five seconds.
    pub fn cluster_id(&self) -> Option<String> {
        self.consumer.client().fetch_cluster_id(ANSWER)
    }

    /// The bounds of every partition as a reader of committed records sees them now; blocks.
    ///
    /// An empty list is a topic that does not exist yet.
    ///
    /// # Errors
    ///
    /// When a broker does not answer in time.
    pub fn bounds(&self) -> Result<Vec<(PartitionId, Log)>, KafkaError> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), ANSWER)?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == &*self.topic);
        let mut numbers: Vec<i32> =
            topic.iter().flat_map(|topic| topic.partitions()).map(|one| one.id()).collect();
        numbers.sort_unstable();
        numbers
            .into_iter()
            .map(|number| {
                let partition = PartitionId { topic: self.topic.clone(), number };
                let log = self.bounds_of(&partition)?;
                Ok((partition, log))
            })
            .collect()
    }

    fn bounds_of(&self, partition: &PartitionId) -> Result<Log, KafkaError> {
        self.consumer
            .fetch_watermarks(&partition.topic, partition.number, ANSWER)
            .map(|(low, high)| Log { low, high })
    }
}

impl Logs for KafkaProbe {
    fn bounds(&self, partition: &PartitionId) -> Result<Log, String> {
        self.bounds_of(partition).map_err(|error| error.to_string())
    }
}
