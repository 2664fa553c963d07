//! The data plane, from a row's change to its new columns.

mod gap;
mod group;
mod journey;
mod kill;
mod poison;
mod replay;
mod restart;
mod snapshot;
mod start;
mod tls;
mod visibility;
mod writes;
