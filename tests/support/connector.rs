//! Debezium connectors, made from the template that is shipped.

use std::sync::{Condvar, Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::postgres::{Database, Sql};
use super::stack::stack;
use super::wait::{self, seconds};

/// Connectors that may run at once: more only make each other slow.
const AT_ONCE: usize = 2;

static PERMITS: (Mutex<usize>, Condvar) = (Mutex::new(AT_ONCE), Condvar::new());

#[derive(Debug)]
struct Permit;

impl Permit {
    fn take() -> Self {
        let (left, changed) = &PERMITS;
        let left = left.lock().unwrap_or_else(PoisonError::into_inner);
        *changed.wait_while(left, |left| *left == 0).unwrap_or_else(PoisonError::into_inner) -= 1;
        Self
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let (left, changed) = &PERMITS;
        *left.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        changed.notify_one();
    }
}

/// A running connector; it and its slot go at the end.
#[derive(Debug)]
pub(crate) struct Connector {
    name: String,
    slot: String,
    database_url: String,
    _permit: Permit,
}

impl Connector {
    /// Registers a connector named like its slot, publication and topic prefix.
    ///
    /// `settings` override the template's.
    pub(crate) fn register(
        name: &str,
        database: &Database,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Self {
        let permit = Permit::take();
        let server = &database.server;
        let template = include_str!("../../config/debezium-users.json")
            .replace("${PG_HOST}", &server.host)
            .replace("${PG_PORT}", &server.port.to_string())
            .replace("${PG_USER}", &server.user)
            .replace("${PG_PASSWORD}", server.password.as_deref().unwrap_or("none"))
            .replace("${PG_DATABASE}", &database.name)
            .replace("${TOPIC_PREFIX}", name)
            .replace("${PARTITIONS}", &partitions.to_string())
            .replace("${REPLICATION_FACTOR}", "1")
            .replace("${SLOT}", name)
            .replace("${PUBLICATION}", name);
        let mut config: Map<String, Value> =
            serde_json::from_str(&template).expect("the template is JSON");
        // The default waits ten seconds after a lost database.
        config.insert("retriable.restart.connector.wait.ms".into(), json!("1000"));
        for (key, value) in settings {
            config.insert((*key).into(), json!(value));
        }
        let config = Value::Object(config);
        let connector = Self {
            name: name.into(),
            slot: name.into(),
            database_url: database.url(),
            _permit: permit,
        };
        wait::until("Kafka Connect to take the connector", seconds(30), || {
            let put = ureq::put(connector.address("/config")).send_json(&config);
            put.map(drop).map_err(|error| error.to_string())
        });
        connector.until_running();
        connector
    }

    /// Waits until Kafka Connect says that connector and task run.
    #[track_caller]
    pub(crate) fn until_running(&self) {
        wait::until("the connector to run", seconds(60), || {
            let status = self.status()?;
            let states = [&status["connector"]["state"], &status["tasks"][0]["state"]];
            if states.iter().all(|state| *state == "RUNNING") {
                Ok(())
            } else {
                Err(status.to_string())
            }
        });
    }

    /// Ends its task; the slot stays.
    #[track_caller]
    pub(crate) fn pause(&self) {
        ureq::put(self.address("/pause")).send_empty().expect("Kafka Connect takes it");
        wait::until("the connector to pause", seconds(30), || {
            let status = self.status()?;
            if status["tasks"][0]["state"] == "PAUSED" { Ok(()) } else { Err(status.to_string()) }
        });
    }

    #[track_caller]
    pub(crate) fn resume(&self) {
        ureq::put(self.address("/resume")).send_empty().expect("Kafka Connect takes it");
        self.until_running();
    }

    fn status(&self) -> Result<Value, String> {
        let mut answer =
            ureq::get(self.address("/status")).call().map_err(|error| error.to_string())?;
        answer.body_mut().read_json().map_err(|error| error.to_string())
    }

    fn address(&self, path: &str) -> String {
        format!("{}/connectors/{}{path}", stack().connect_url.trim_end_matches('/'), self.name)
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        let _ = ureq::delete(self.address("")).call();
        // A slot that stays keeps WAL for ever. It is active until the task has gone.
        let dropped = wait::within(seconds(20), || {
            let sql = Sql::try_open(&self.database_url, "tests").map_err(|e| e.to_string())?;
            let statement = format!(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                  WHERE slot_name = '{}'",
                self.slot
            );
            sql.try_run(&statement).map_err(|error| error.to_string())
        });
        if let Err(error) = dropped {
            eprintln!("replication slot {} stays: {error}", self.slot);
        }
    }
}
