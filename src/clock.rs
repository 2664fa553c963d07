//! The only file that may ask what time it is.
//!
//! Everything else takes a [`Clock`] or a reading of one, so a rule about time is tested by handing
//! it times. Durations between two readings are monotonic; nothing here is compared with the clock
//! of a database or a broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Reads the monotonic clock of this process.
#[derive(Debug, Clone)]
pub struct Clock(Reading);

#[derive(Debug, Clone)]
enum Reading {
    System,
    /// A start and the milliseconds that a test has let pass since.
    Manual(Instant, Arc<AtomicU64>),
}

impl Clock {
    /// The clock of the machine.
    pub fn system() -> Self {
        Self(Reading::System)
    }

    /// A clock that stands still until [`Clock::advance`] moves it.
    pub fn manual() -> Self {
        Self(Reading::Manual(now(), Arc::new(AtomicU64::new(0))))
    }

    /// The present reading.
    pub fn now(&self) -> Instant {
        match &self.0 {
            Reading::System => now(),
            Reading::Manual(start, passed) => {
                *start + Duration::from_millis(passed.load(Ordering::SeqCst))
            }
        }
    }

    /// Moves a manual clock and every clone of it; milliseconds are the resolution.
    ///
    /// # Panics
    ///
    /// On the system clock: a test that moves it tests nothing.
    pub fn advance(&self, by: Duration) {
        match &self.0 {
            Reading::System => panic!("the system clock cannot be moved"),
            Reading::Manual(_, passed) => {
                let millis = u64::try_from(by.as_millis()).expect("a test waits less than an age");
                passed.fetch_add(millis, Ordering::SeqCst);
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
fn now() -> Instant {
    Instant::now()
}
