//! Named points at which a test can hold the worker, to kill it just there.
//!
//! Compiled to nothing without the feature `failpoints`. Set by the environment: `FAILPOINTS=name=pause`.

/// All points on a record's way, in its order; tests kill the worker at each.
pub const POINTS: [&str; 5] =
    ["source::polled", "batch::closed", "sink::before_send", "sink::sent", "sink::committed"];

/// Does what the environment asks for at this point; says so first, so that a test can wait for it.
pub fn reached(point: &'static str) {
    debug_assert!(POINTS.contains(&point), "{point} is not in the list");
    #[cfg(feature = "failpoints")]
    {
        if fail::list().iter().any(|(name, _)| name == point) {
            tracing::info!(point, "failpoint reached");
        }
        fail::eval(point, |_| ());
    }
}
