//! How a running worker is seen and stopped: metrics, HTTP, logs, signals, the terminal.
//!
//! Nothing here decides anything about data. It reads `Progress`, asks gates through
//! [`gate::Gate`], and may be left out without a row going another way.

pub mod gate;
pub mod http;
pub mod metrics;
pub mod screen;
pub mod shutdown;
pub mod status;
pub mod status_line;
pub mod telemetry;

mod key_value;
mod pace;
