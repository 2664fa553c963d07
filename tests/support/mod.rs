//! What the tests stand on: servers, a migration under test, and ways to wait that say what they saw.

pub(crate) mod cluster;
pub(crate) mod connector;
pub(crate) mod migration;
pub(crate) mod postgres;
pub(crate) mod scratch;
pub(crate) mod stack;
pub(crate) mod topic;
pub(crate) mod traffic;
pub(crate) mod users;
pub(crate) mod wait;
pub(crate) mod worker;
