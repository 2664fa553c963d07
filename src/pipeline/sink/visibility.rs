//! Which transactions of a batch must still be seen to have ended.
//!
//! A commit is streamed when it is flushed, and becomes visible later: for as long as a synchronous
//! standby is silent. A write that finds no row may then have come too early, so a batch's streamed
//! events are judged only once their transactions are visible in a new snapshot on the primary. Asking
//! for every one of them would cost more than the write, so the sessions remember a *horizon*: the
//! oldest transaction that was still running. What is older has ended for good.

use crate::pg::lsn::Lsn;
use crate::pipeline::batch::Streamed;

/// What is known to have ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Horizon {
    /// Flushed when the session began.
    start: Lsn,
    /// Our own transaction, taken after `start` was read: whatever wrote at or before `start` had its
    /// id before.
    own: u64,
    /// The latest known oldest running transaction.
    xmin: u64,
}

impl Horizon {
    pub(super) fn new(start: Lsn, own: u64, xmin: u64) -> Self {
        Self { start, own, xmin }
    }

    /// Takes a newer reading of the oldest running transaction.
    pub(super) fn observe(&mut self, xmin: u64) {
        self.xmin = self.xmin.max(xmin);
    }

    /// Whether the transaction must be looked for in a new snapshot.
    ///
    /// Its id has 32 bits and is taken for the nearest to the horizon; one that is older than 2³¹
    /// transactions looks like the future, which is why events from before the session began are
    /// recognised by their position.
    pub(super) fn must_ask(&self, event: Streamed) -> bool {
        let before_start = self.xmin > self.own && event.lsn.is_some_and(|lsn| lsn <= self.start);
        let horizon = u32::try_from(self.xmin & 0xFFFF_FFFF).expect("masked to 32 bits");
        let ended = event.xid.wrapping_sub(horizon).cast_signed() < 0;
        !before_start && !ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(xid: u32, lsn: u64) -> Streamed {
        Streamed { xid, lsn: Some(Lsn(lsn)) }
    }

    #[test]
    fn what_is_older_than_the_horizon_has_ended() {
        let horizon = Horizon::new(Lsn(100), 1_000, 990);
        assert!(!horizon.must_ask(event(989, 500)));
        assert!(horizon.must_ask(event(990, 500)));
        assert!(horizon.must_ask(event(1_001, 500)));
    }

    #[test]
    fn the_comparison_survives_the_wrap_of_the_id() {
        let horizon = Horizon::new(Lsn(100), 1 << 32, (1 << 32) + 5);
        assert!(!horizon.must_ask(event(u32::MAX, 500)));
        assert!(!horizon.must_ask(event(4, 500)));
        assert!(horizon.must_ask(event(5, 500)));
    }

    #[test]
    fn an_event_from_before_the_start_needs_no_question_once_all_of_then_have_ended() {
        let mut horizon = Horizon::new(Lsn(100), 1_000, 990);
        let ages_ago = event(0x5000_0000, 50);
        assert!(horizon.must_ask(ages_ago), "a transaction of the start may still run");
        horizon.observe(1_001);
        assert!(!horizon.must_ask(ages_ago));
        assert!(horizon.must_ask(event(0x5000_0000, 101)), "it came after the start");
    }

    #[test]
    fn an_older_reading_changes_nothing() {
        let mut horizon = Horizon::new(Lsn(100), 1_000, 990);
        horizon.observe(5);
        assert!(!horizon.must_ask(event(989, 500)));
    }
}
