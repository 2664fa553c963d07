//! From a batch to a committed transaction.

mod params;
pub mod postgres;
mod statement;
mod visibility;

pub use postgres::{CurrentRow, Fence, Session, SinkError};
