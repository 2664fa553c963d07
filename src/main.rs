//! The `crossfade` binary: arguments → telemetry → runtime → exit code.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::process::ExitCode;

use clap::Parser;
use crossfade::cli::config::{ConfigCommand, ConfigFile};
use crossfade::cli::rewind::RewindCommand;
use crossfade::cli::worker::WorkerCommand;
use crossfade::cli::{config, exit, hint, rewind, worker};
use crossfade::config::Settings;
use crossfade::ops::screen::{LogFormat, Screen};
use crossfade::ops::shutdown::Shutdown;
use crossfade::ops::telemetry;

/// Zero-downtime schema changes for PostgreSQL: backfill, keep in step, prove, switch, contract.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage or config.\n\
                  CROSSFADE_LOG sets what is logged, for example CROSSFADE_LOG=debug."
)]
struct Root {
    /// How logs look: `auto` draws on a terminal and prints key=value lines elsewhere
    #[arg(long, global = true, value_enum, default_value = "auto", env = "CROSSFADE_LOG_FORMAT")]
    log_format: LogFormat,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Worker(WorkerCommand),
    Rewind(RewindCommand),
    /// Look at a config file
    #[command(subcommand)]
    Config(ConfigCommand),
}

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _failpoints = ::fail::FailScenario::setup();
    let root = Root::parse();
    let colour = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if let Verb::Config(command) = &root.verb {
        return config::run(command, &mut stdout(), &mut stderr(), colour).into();
    }
    let screen = Screen::stderr(root.log_format);
    if let Err(error) = telemetry::install(&screen) {
        return fail(&error.into(), exit::USAGE);
    }
    let file = match &root.verb {
        Verb::Worker(command) => &command.file,
        Verb::Rewind(command) => &command.file,
        Verb::Config(_) => unreachable!("answered above"),
    };
    let settings = match load(file, colour) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into(), exit::FAILED),
    };
    let result = runtime.block_on(async {
        match root.verb {
            Verb::Worker(_) => {
                let shutdown = Shutdown::new();
                let _signals = shutdown.on_signals()?;
                worker::run(settings, screen, shutdown).await
            }
            Verb::Rewind(command) => {
                let said = rewind::run(settings, command.to, command.partition).await?;
                stdout().write_all(said.as_bytes())?;
                Ok(())
            }
            Verb::Config(_) => unreachable!("answered above"),
        }
    });
    // A thread that still waits for a broker must not hold the exit up.
    runtime.shutdown_background();
    match result {
        Ok(()) => exit::DONE.into(),
        Err(error) => fail(&error, exit::FAILED),
    }
}

fn load(file: &ConfigFile, colour: bool) -> Result<Settings, ExitCode> {
    file.load().map(|loaded| loaded.settings).map_err(|errors| {
        let _ = stderr().write_all(errors.render(colour).as_bytes());
        exit::USAGE.into()
    })
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    let _ = stderr().write_all(hint::render(error).as_bytes());
    code.into()
}
