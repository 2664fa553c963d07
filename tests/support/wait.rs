//! Waiting that ends, and that says what it saw last.

use std::thread::sleep;
use std::time::Duration;

use crossfade::clock::Clock;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(50);

/// Looks until `look` has an answer; `Err` with what it saw last once `within` has passed.
pub(crate) fn within<T>(
    within: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let clock = Clock::system();
    let began = clock.now();
    loop {
        match look() {
            Ok(answer) => return Ok(answer),
            Err(seen) if clock.now().saturating_duration_since(began) > within => return Err(seen),
            Err(_) => sleep(EVERY),
        }
    }
}

/// The same; panics with what it waited for.
#[track_caller]
pub(crate) fn until<T>(what: &str, limit: Duration, look: impl FnMut() -> Result<T, String>) -> T {
    match within(limit, look) {
        Ok(answer) => answer,
        Err(seen) => panic!("waited {limit:?} for {what}; last seen: {seen}"),
    }
}

/// Holds for the whole time, looked at again and again.
#[track_caller]
pub(crate) fn throughout(what: &str, time: Duration, mut look: impl FnMut() -> Result<(), String>) {
    let clock = Clock::system();
    let began = clock.now();
    while clock.now().saturating_duration_since(began) < time {
        if let Err(seen) = look() {
            panic!("{what} did not hold for {time:?}: {seen}");
        }
        sleep(EVERY);
    }
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
