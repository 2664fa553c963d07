//! The control plane: gates, and later the sequencer that asks them.

pub mod gate;
