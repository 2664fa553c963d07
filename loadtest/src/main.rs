//! The `loadtest` binary: the demo and the load tests, each a verb, on real servers.

use std::process::ExitCode;

use clap::Parser;

mod demo;
mod drain;
mod servers;
mod worker;

/// Crossfade on real servers: PostgreSQL, Kafka and Kafka Connect with Debezium.
#[derive(Debug, Parser)]
#[command(version, after_help = "Exit codes: 0 proven, 1 not, 2 wrong usage.")]
struct Root {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Demo(demo::DemoCommand),
    Drain(drain::DrainCommand),
}

fn main() -> ExitCode {
    let Root { verb } = Root::parse();
    // One thread: children are tied to the thread that starts them (`worker`), and it must not end.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let result = runtime.block_on(async {
        match verb {
            Verb::Demo(command) => demo::run(command).await,
            Verb::Drain(command) => drain::run(command).await,
        }
    });
    // An interrupted question to a gate may still wait for its answer.
    runtime.shutdown_background();
    result.unwrap_or_else(|error| fail(&error))
}

#[expect(clippy::print_stderr, reason = "the one place that reports a failure")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
