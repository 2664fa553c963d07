//! Standard error, shared by log lines and the status line so that neither cuts the other.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};
use tracing_subscriber::fmt::MakeWriter;

/// A handle on standard error; clones draw on the same place.
#[derive(Clone)]
pub struct Screen {
    bars: MultiProgress,
    terminal: bool,
}

impl Screen {
    /// Draws only when standard error is a terminal.
    pub fn stderr() -> Self {
        let terminal = io::stderr().is_terminal();
        let target =
            if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { bars: MultiProgress::with_draw_target(target), terminal }
    }

    pub fn is_terminal(&self) -> bool {
        self.terminal
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
        f.debug_struct("Screen").field("terminal", &self.terminal).finish_non_exhaustive()
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
