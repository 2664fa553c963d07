//! Crossfade changes the shape of live PostgreSQL data without downtime.
//!
//! Two planes. The *data plane* (`pipeline`) carries changes from a source into rows; it is
//! partition-parallel and knows no phases. The *control plane* (`migration`) asks gates and decides.
//!
//! ```text
//! source ─RawChange→ envelope ─Decoded→ transform ─Effect→ batch ─Batch→ sink ─WriteReceipt→ progress
//! ```
//!
//! Read in this order.

pub mod clock;
pub mod failpoint;
pub mod table;

pub mod config;
pub mod metric;
pub mod pg;
pub mod state;

pub mod pipeline;

pub mod migration;

pub mod cli;
pub mod ops;

pub mod demo;
