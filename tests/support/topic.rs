//! A topic, made before any connector so that a test chooses its partitions.

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::stack::stack;
use super::wait::{seconds, until};

#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) partitions: i32,
}

impl Topic {
    pub(crate) fn create(name: String, partitions: i32) -> Self {
        let topic = Self { name, partitions };
        topic.create_again();
        topic
    }

    pub(crate) fn create_again(&self) {
        let new = NewTopic::new(&self.name, self.partitions, TopicReplication::Fixed(1));
        until("the topic to be made", seconds(20), || {
            let made = block_on(admin().create_topics([&new], &AdminOptions::new()));
            made.map_err(|error| error.to_string())?.remove(0).map_err(|(_, code)| code.to_string())
        });
    }

    pub(crate) fn delete(&self) {
        let deleted = block_on(admin().delete_topics(&[&self.name], &AdminOptions::new()));
        deleted.expect("Kafka answers").remove(0).expect("the topic can be deleted");
    }

    /// The offset after the last record of each partition.
    pub(crate) fn ends(&self) -> Vec<i64> {
        let consumer: BaseConsumer = client().create().expect("a consumer");
        (0..self.partitions)
            .map(|partition| {
                let bounds = consumer.fetch_watermarks(&self.name, partition, seconds(10));
                bounds.expect("Kafka tells the ends").1
            })
            .collect()
    }

    pub(crate) fn records(&self) -> i64 {
        self.ends().iter().sum()
    }

    /// Deletes all records that a partition has, as retention does.
    pub(crate) fn expire(&self, partition: i32) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.name, partition, Offset::End).expect("an offset");
        let answer = block_on(admin().delete_records(&list, &AdminOptions::new()));
        let answer = answer.expect("Kafka answers");
        answer.elements().iter().for_each(|one| one.error().expect("the records can be deleted"));
    }

    /// Sends one record and waits until Kafka has it.
    pub(crate) fn send(&self, partition: i32, key: Option<&[u8]>, value: Option<&[u8]>) {
        let producer: BaseProducer = client().create().expect("a producer");
        let mut record: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(&self.name).partition(partition);
        if let Some(key) = key {
            record = record.key(key);
        }
        if let Some(value) = value {
            record = record.payload(value);
        }
        producer.send(record).map_err(|(error, _)| error).expect("the record is queued");
        producer.flush(seconds(10)).expect("the record is sent");
    }
}

fn client() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &stack().brokers);
    config
}

fn admin() -> AdminClient<DefaultClientContext> {
    client().create().expect("an admin client")
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(work)
}
