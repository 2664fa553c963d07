//! What a person types: one file a verb.
//!
//! A verb writes to the writers that it is given and returns an exit code; only `main` touches the
//! process.

use std::io;

pub mod config;
mod gate;
pub mod hint;
pub mod rewind;
pub mod worker;

/// The exit codes of every verb.
pub mod exit {
    pub const DONE: u8 = 0;
    pub const FAILED: u8 = 1;
    /// Wrong usage or a wrong config file; clap's own code.
    pub const USAGE: u8 = 2;
}

/// The exit code of a verb whose output may have failed.
///
/// A reader that went away (`crossfade config print | head`) had all that it wanted.
pub fn after_output(result: io::Result<u8>) -> u8 {
    match result {
        Ok(code) => code,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => exit::DONE,
        Err(_) => exit::FAILED,
    }
}
