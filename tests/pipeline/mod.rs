//! The data plane, from a row's change to its new columns.

mod journey;
