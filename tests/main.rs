//! Integration tests: the real binary against real PostgreSQL, Kafka and Debezium.
//!
//! `cargo test --features failpoints --test it`. Servers come from the environment
//! (`CROSSFADE_PG_URL`, `CROSSFADE_KAFKA_BROKERS`, `CROSSFADE_CONNECT_URL`, as `loadtest/stack/stack exec`
//! sets them); those that are not named there are started once for the whole run. A server that is
//! missing fails the tests: none is skipped.

#![expect(clippy::print_stderr, reason = "what a failed test left behind is told, not failed for")]

mod layers;
mod pipeline;
mod support;
