//! A table of users and an application that writes to it: for the demo, tests and load tests.
//!
//! Nothing here uses the rest of the library but its clock: what is to be proven must not prove itself.

pub mod traffic;
pub mod users;
