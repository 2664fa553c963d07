//! The data plane: from a record of the source to a row and its checkpoint. It knows no phases.
//!
//! ```text
//! source ─RawChange→ envelope ─Decoded→ transform ─Effect→ batch ─Batch→ sink ─WriteReceipt→ progress
//!                                                            ↑
//! rows (current rows by key) ───────── ChangeEvent ──────────┘
//! ```
//!
//! Stages import the base (`position`, `checkpoint`, `change`, `mutation`, `progress`) and never each
//! other; `run` alone joins them.

pub mod change;
pub mod checkpoint;
pub mod mutation;
pub mod position;
pub mod progress;

pub mod source;

pub mod envelope;
pub mod transform;

pub mod batch;
pub mod sink;

pub mod run;

pub use change::{ChangeEvent, Decoded, Op, Origin, RawChange};
pub use checkpoint::{Delta, Lane, Mark, WriteReceipt};
pub use mutation::{Effect, Mutation};
pub use position::{DatabaseMicros, Epoch, PartitionId, Position};
pub use progress::{Counters, Mode, PartitionProgress, Progress, SlotSample, WorkerState};
