//! The wish to stop: asked once, heard by everyone, by a signal or by ourselves.
//!
//! The first SIGTERM or SIGINT asks for a drain: batches in flight are finished, so the next start
//! has nothing to find out. The second ends the process at once; progress is in the database, so
//! that loses nothing either.

use std::future::Future;
use std::io;
use std::task::Poll;

use futures_util::stream::{self, Stream, StreamExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A wish that cannot be taken back; clones share it.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Sender<Option<Cause>>);

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// SIGINT, usually Ctrl-C.
    Interrupt,
    /// SIGTERM, usually an orchestrator.
    Terminate,
    /// The work is done or cannot go on.
    Program,
}

impl Cause {
    pub fn word(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::Program => "program",
        }
    }

    /// The exit code of a process that such a signal ended: 128 and its number.
    fn exit_code(self) -> i32 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
            Self::Program => 1,
        }
    }
}

impl Shutdown {
    pub fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Asks; the first cause stays.
    pub fn request(&self, cause: Cause) {
        self.0.send_if_modified(|held| {
            let first = held.is_none();
            held.get_or_insert(cause);
            first
        });
    }

    /// Who asked first; `None` while nobody has.
    pub fn cause(&self) -> Option<Cause> {
        *self.0.borrow()
    }

    /// Resolves once somebody has asked, also when that was before the call.
    ///
    /// The future owns what it needs, so it can be handed to a task that knows no `Shutdown`.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + use<> {
        // A sender of its own keeps the channel open for as long as somebody listens.
        let sender = self.0.clone();
        async move {
            // Only a closed channel is an error here, and `sender` holds it open.
            let _open = sender.subscribe().wait_for(Option::is_some).await.is_ok();
        }
    }

    /// Takes over SIGTERM and SIGINT for the life of the process.
    ///
    /// # Errors
    ///
    /// When the handlers cannot be installed. Needs a runtime with I/O.
    pub fn on_signals(&self) -> io::Result<JoinHandle<()>> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let shutdown = self.clone();
        let signals = stream::poll_fn(move |context| {
            if interrupt.poll_recv(context).is_ready() {
                Poll::Ready(Some(Cause::Interrupt))
            } else if terminate.poll_recv(context).is_ready() {
                Poll::Ready(Some(Cause::Terminate))
            } else {
                Poll::Pending
            }
        });
        Ok(tokio::spawn(async move {
            if let Some(code) = obey(signals, &shutdown).await {
                std::process::exit(code);
            }
        }))
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

/// Asks at the first signal and returns the exit code at the second, whichever two they are; `None`
/// if there are no more.
async fn obey(mut signals: impl Stream<Item = Cause> + Unpin, shutdown: &Shutdown) -> Option<i32> {
    let first = signals.next().await?;
    tracing::info!(signal = first.word(), "draining; a second signal ends at once");
    shutdown.request(first);
    let second = signals.next().await?;
    tracing::warn!(signal = second.word(), "ended without draining");
    Some(second.exit_code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn is_heard_by_those_who_came_before_and_after() {
        let shutdown = Shutdown::new();
        let before = tokio::spawn(shutdown.requested());
        assert_eq!(shutdown.cause(), None);

        shutdown.clone().request(Cause::Program);
        shutdown.request(Cause::Terminate);

        before.await.unwrap();
        shutdown.requested().await;
        assert_eq!(shutdown.cause(), Some(Cause::Program), "the first cause stays");
    }

    #[tokio::test]
    async fn drains_at_the_first_signal_and_exits_at_the_second() {
        check(&[], None, None).await;
        check(&[Cause::Terminate], Some(Cause::Terminate), None).await;
        check(&[Cause::Interrupt, Cause::Interrupt], Some(Cause::Interrupt), Some(130)).await;
        check(&[Cause::Interrupt, Cause::Terminate], Some(Cause::Interrupt), Some(143)).await;
        check(&[Cause::Terminate, Cause::Terminate], Some(Cause::Terminate), Some(143)).await;
    }

    async fn check(signals: &[Cause], drains: Option<Cause>, exits: Option<i32>) {
        let shutdown = Shutdown::new();
        let code = obey(stream::iter(signals.iter().copied()), &shutdown).await;
        assert_eq!((shutdown.cause(), code), (drains, exits), "{signals:?}");
    }
}
