//! Decoders: bytes of a source in, [`crate::pipeline::Decoded`] out. Pure.
//!
//! A record becomes a change, a step of progress, or an error; nothing is dropped in silence. What
//! the event does not say for certain is [`crate::table::Value::Unknown`], never NULL and never the
//! filler that stands in its place.

pub mod debezium;
pub mod error;

mod json;
mod prefix;
mod types;

#[cfg(test)]
mod captured;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod properties;

pub use debezium::DebeziumDecoder;
pub use error::DecodeError;
