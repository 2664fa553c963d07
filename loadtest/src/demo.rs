//! `loadtest demo`.

use std::process::ExitCode;

/// Split a column under traffic, kill the worker half way, and compare every row
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DemoCommand {
    /// Rows of the table before the traffic begins
    #[arg(long, default_value_t = 200_000)]
    rows: u64,
}

pub(crate) async fn run(command: DemoCommand) -> anyhow::Result<ExitCode> {
    let _ = command;
    std::future::ready(Ok(ExitCode::FAILURE)).await
}
