//! PostgreSQL: what every other part needs of it.

pub mod catalog;
pub mod connect;
pub mod ident;
pub mod lsn;
pub mod preflight;
pub mod server;
pub mod sqlstate;
