//! Standard error, shared by log lines and the status line so that neither cuts the other.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};
use tracing_subscriber::fmt::MakeWriter;

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// Coloured lines and a bar at a terminal, `text` otherwise.
    #[default]
    Auto,
    /// One `key=value` line an event.
    Text,
    /// One JSON object an event.
    Json,
}

/// What standard error is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For a person at a terminal.
    Drawn,
    /// `key=value` lines.
    Pairs,
    Json,
}

impl LogFormat {
    fn form(self, terminal: bool) -> Form {
        match self {
            Self::Auto if terminal => Form::Drawn,
            Self::Auto | Self::Text => Form::Pairs,
            Self::Json => Form::Json,
        }
    }
}

/// A handle on standard error; clones draw on the same place.
#[derive(Clone)]
pub struct Screen {
    bars: MultiProgress,
    form: Form,
}

impl Screen {
    /// Draws only when standard error is a terminal and `format` leaves the choice.
    pub fn stderr(format: LogFormat) -> Self {
        let form = format.form(io::stderr().is_terminal());
        let target = match form {
            Form::Drawn => ProgressDrawTarget::stderr(),
            Form::Pairs | Form::Json => ProgressDrawTarget::hidden(),
        };
        Self { bars: MultiProgress::with_draw_target(target), form }
    }

    pub fn form(&self) -> Form {
        self.form
    }

    /// Adds a bar below whatever is logged.
    pub fn add(&self, bar: ProgressBar) -> ProgressBar {
        self.bars.add(bar)
    }

    /// Writes one line above the bars. An error is dropped: a closed standard error must not stop a
    /// worker.
    pub fn line(&self, text: &str) {
        let mut line = String::with_capacity(text.len() + 1);
        line.push_str(text);
        line.push('\n');
        self.bars.suspend(|| io::stderr().write_all(line.as_bytes())).unwrap_or(());
    }
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen").field("form", &self.form).finish_non_exhaustive()
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bars.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_only_at_a_terminal_that_was_not_told_otherwise() {
        assert_eq!(LogFormat::Auto.form(true), Form::Drawn);
        assert_eq!(LogFormat::Auto.form(false), Form::Pairs);
        assert_eq!(LogFormat::Text.form(true), Form::Pairs);
        assert_eq!(LogFormat::Json.form(true), Form::Json);
    }
}
