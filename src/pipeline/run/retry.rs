//! How long to wait before the same work again, and what to call the reason.

use std::time::Duration;

use crate::metric;
use crate::pg::connect::Code;
use crate::pipeline::sink::SinkError;

/// First wait before the same work is tried again; doubles up to [`LONGEST_WAIT`].
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(5);
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Visibility is asked for often: it ends with a network round trip of a standby, as a rule.
pub(super) const LONGEST_VISIBILITY_WAIT: Duration = Duration::from_millis(100);

/// Waits that double; several writers never wait the same time.
#[derive(Debug, Default)]
pub(super) struct Waits {
    pub(super) count: u32,
    pub(super) invisible_since: Option<std::time::Instant>,
}

impl Waits {
    pub(super) fn next(&mut self, longest: Duration, writer: usize) -> Duration {
        let wait = FIRST_WAIT.saturating_mul(1 << self.count.min(16)).min(longest);
        self.count += 1;
        let share = u32::try_from(writer % 8).expect("less than eight");
        wait + wait * share / 16
    }
}

/// The metric's word for an error after which a batch is tried again.
pub(super) fn reason(error: &SinkError) -> metric::Retry {
    use metric::Retry;
    match error {
        SinkError::NotVisible => Retry::NotVisible,
        SinkError::Connect(_)
        | SinkError::Fenced
        | SinkError::Silent { .. }
        | SinkError::Transaction { .. } => Retry::Connection,
        SinkError::Ownership | SinkError::Key | SinkError::TooLarge { .. } => Retry::Other,
        SinkError::Sql { code: Code::Closed, .. } => Retry::Connection,
        SinkError::Sql { code: Code::Client, .. } => Retry::Other,
        SinkError::Sql { code: Code::State(state), .. } => match state.as_str() {
            "40P01" => Retry::Deadlock,
            "40001" => Retry::Serialization,
            "55P03" => Retry::LockTimeout,
            "57014" => Retry::Canceled,
            "25006" => Retry::Unavailable,
            state if state.starts_with("53") || state.starts_with("57P") => Retry::Unavailable,
            state if state.starts_with("08") => Retry::Connection,
            _ => Retry::Other,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_differ_between_writers() {
        let mut waits = Waits::default();
        let first: Vec<_> = (0..3).map(|_| waits.next(LONGEST_WAIT, 0).as_millis()).collect();
        assert_eq!(first, [5, 10, 20]);
        for _ in 0..40 {
            assert!(waits.next(LONGEST_WAIT, 0) <= LONGEST_WAIT);
        }
        assert_ne!(Waits::default().next(LONGEST_WAIT, 1), Waits::default().next(LONGEST_WAIT, 0));
    }
}
