//! Where changes come from. A source knows partitions and positions, no tables.

pub mod kafka;
pub mod script;

use std::time::Duration;

use crate::pipeline::change::RawChange;
use crate::pipeline::position::{PartitionId, Position};
use crate::state::progress::Log;

/// A source that is polled from a thread of its own, never blocked by the database.
pub trait Source {
    /// Waits up to `timeout` for one thing to happen and hands a record to `receive`.
    ///
    /// Records of one partition come in order. A partition delivers nothing before it is started.
    ///
    /// # Errors
    ///
    /// Only what waiting does not mend; a lost broker is retried inside.
    fn poll(
        &mut self,
        timeout: Duration,
        receive: &mut dyn FnMut(RawChange<'_>),
    ) -> Result<Polled, SourceError>;

    /// Delivers an assigned partition from `next` on.
    fn start(&mut self, partition: &PartitionId, next: i64);

    /// Stops delivering a partition; polling must go on.
    fn pause(&mut self, partition: &PartitionId);

    /// Delivers a paused partition again from where it stopped.
    fn resume(&mut self, partition: &PartitionId);

    /// The last sampled end of a partition: the offset after its last record.
    fn end(&self, partition: &PartitionId) -> Option<i64>;

    /// Announces an assigned partition again.
    fn look_again(&mut self, partition: &PartitionId);

    /// Why nothing comes, where that is known: a broker that does not answer.
    fn trouble(&self) -> Option<String>;

    /// Tells lag tools how far we are; nothing is ever read from it.
    fn mirror(&mut self, durable: &[(PartitionId, Position)]);
}

/// Tells how far logs reach. Asked apart from polling, since a broker may take seconds to answer.
pub trait Logs: Send + Sync {
    /// The bounds of one partition as a reader of committed records sees them now; blocks.
    ///
    /// # Errors
    ///
    /// In words, when no broker answers in time.
    fn bounds(&self, partition: &PartitionId) -> Result<Log, String>;
}

/// What came of a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Polled {
    Nothing,
    Record,
    /// These partitions are ours from now on, or must be looked at again: claim, then start them.
    Assigned(Vec<PartitionId>),
    /// These are no longer ours.
    Revoked(Vec<PartitionId>),
}

/// Why a source cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("could not set up the Kafka consumer")]
    Setup(#[source] rdkafka::error::KafkaError),
    /// Without the client's own words, which repeat the value.
    #[error("the Kafka client refuses property \"{0}\" or its value")]
    Property(String),
    #[error("the Kafka consumer failed for good")]
    Fatal(#[source] rdkafka::error::KafkaError),
    #[error("could not read the secret file of Kafka property \"{0}\"")]
    Secret(String, #[source] std::io::Error),
}
