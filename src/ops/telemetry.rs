//! Logs on standard error, and what a panic may say.
//!
//! Standard output belongs to the answers of the command. A person at a terminal gets coloured
//! lines; anything else gets `key=value` lines that grep, or JSON when asked for. No row value is
//! logged anywhere, and a panic's message is shown only when it is fixed text: a formatted one may
//! hold a value.

use std::any::Any;
use std::panic::PanicHookInfo;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::ops::key_value::KeyValue;
use crate::ops::screen::{Form, Screen};

/// The environment variable with the log filter, for example `debug` or `info,crossfade::ops=debug`.
pub const FILTER_VARIABLE: &str = "CROSSFADE_LOG";

/// librdkafka reports each lost broker connection at its own pace; only its warnings are news.
const DEFAULT_FILTER: &str = "info,rdkafka=warn,librdkafka=warn";

/// The logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("could not read the log filter in {FILTER_VARIABLE}")]
    Filter(#[source] ParseError),
    #[error("{FILTER_VARIABLE} is not UTF-8 text")]
    NotUnicode,
    #[error("logs are already set up")]
    Installed,
}

/// Installs the subscriber and the panic hook of the process.
///
/// # Errors
///
/// A bad filter is an error, not a default: who sets it looks for something.
pub fn install(screen: &Screen) -> Result<(), TelemetryError> {
    let filter = filter(std::env::var(FILTER_VARIABLE))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(screen.clone());
    let installed = match screen.form() {
        Form::Drawn => builder.with_ansi(true).compact().try_init(),
        Form::Pairs => {
            builder.with_ansi(false).fmt_fields(KeyValue).event_format(KeyValue).try_init()
        }
        Form::Json => builder.json().flatten_event(true).try_init(),
    };
    installed.map_err(|_| TelemetryError::Installed)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn filter(variable: Result<String, std::env::VarError>) -> Result<EnvFilter, TelemetryError> {
    let text = match variable {
        Ok(text) if !text.trim().is_empty() => text,
        Ok(_) | Err(std::env::VarError::NotPresent) => DEFAULT_FILTER.to_owned(),
        Err(std::env::VarError::NotUnicode(_)) => return Err(TelemetryError::NotUnicode),
    };
    EnvFilter::builder().parse(text).map_err(TelemetryError::Filter)
}

/// One line; where, and the message only if it is fixed text.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map_or_else(|| "unknown".to_owned(), ToString::to_string);
    let thread = std::thread::current();
    tracing::error!(
        location,
        thread = thread.name().unwrap_or("unnamed"),
        panic = fixed_text(panic.payload()),
        "panicked"
    );
}

/// The message of `panic!("…")` and of `unwrap` on `None`; a formatted one is withheld.
fn fixed_text(payload: &(dyn Any + Send)) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("message withheld")
}

#[cfg(test)]
mod tests {
    use std::env::VarError;

    use super::*;

    #[test]
    fn filters_by_the_variable_or_at_info() {
        let text = |variable| filter(variable).map(|filter| filter.to_string()).ok();

        assert_eq!(text(Ok("debug".into())).as_deref(), Some("debug"));
        for unset in [Ok("  ".into()), Err(VarError::NotPresent)] {
            let found = text(unset).expect("the default is valid");
            assert!(found.contains("info") && found.contains("rdkafka=warn"), "{found}");
        }
        assert_eq!(text(Ok("crossfade=loud".into())), None, "a typing error is not a default");
    }

    #[test]
    fn a_panic_shows_fixed_text_and_withholds_what_was_formatted() {
        let payload = |panic: fn()| std::panic::catch_unwind(panic).expect_err("it panics");

        assert_eq!(fixed_text(&*payload(|| panic!("no batch is open"))), "no batch is open");
        assert_eq!(
            fixed_text(&*payload(|| panic!("bad value {}", std::hint::black_box("Ada")))),
            "message withheld"
        );
    }
}
