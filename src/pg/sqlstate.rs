//! What a SQLSTATE means for the batch that met it.

/// What the pipeline does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// The same work may succeed later on the same connection: back off, then try again.
    Retry,
    /// As [`Disposition::Retry`], and smaller, since somebody else's locks were in the way.
    SplitAndRetry,
    /// The connection is of no more use: open another, re-read progress, decide.
    Reconnect,
    /// The plans of this connection no longer fit the tables: prepare again.
    Reprepare,
    /// One row of the batch can never succeed: bisect, park that row, go on.
    Bisect,
    /// Going on could lose or corrupt data: stop and call a person.
    Halt,
}

/// Classifies a SQLSTATE. Unknown codes halt: guessing "retry" hides data loss.
///
/// Source: PostgreSQL manual, Appendix A "PostgreSQL Error Codes".
pub fn disposition(code: &str) -> Disposition {
    match code {
        // serialization_failure, deadlock_detected, lock_not_available
        "40001" | "40P01" | "55P03" => Disposition::SplitAndRetry,
        // query_canceled: a statement time-out, which fewer rows may meet, or a person
        "57014" => Disposition::SplitAndRetry,
        // admin_shutdown, crash_shutdown, cannot_connect_now, database_dropped's siblings; and
        // read_only_sql_transaction: we are on a former primary
        "57P01" | "57P02" | "57P03" | "57P05" | "25006" => Disposition::Reconnect,
        // idle_in_transaction_session_timeout, transaction_timeout: the session is gone
        "25P03" | "25P04" => Disposition::Reconnect,
        // in_failed_sql_transaction: somebody left the session in the middle of one
        "25P02" => Disposition::Reconnect,
        // program_limit_exceeded: a value too large for an index; raise_exception: a trigger's veto
        "54000" | "P0001" => Disposition::Bisect,
        // feature_not_supported: "cached plan must not change result type"
        "0A000" => Disposition::Reprepare,
        code => match code.get(..2) {
            Some("08") => Disposition::Reconnect,
            // insufficient_resources: disk full, too many connections
            Some("53") => Disposition::Retry,
            // data_exception, integrity_constraint_violation
            Some("22" | "23") => Disposition::Bisect,
            _ => Disposition::Halt,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_answer_and_the_unknown_halts() {
        for (code, expected) in [
            ("40001", Disposition::SplitAndRetry),
            ("40P01", Disposition::SplitAndRetry),
            ("55P03", Disposition::SplitAndRetry),
            ("57014", Disposition::SplitAndRetry),
            ("25P03", Disposition::Reconnect),
            ("25P02", Disposition::Reconnect),
            ("54000", Disposition::Bisect),
            ("P0001", Disposition::Bisect),
            ("53100", Disposition::Retry),
            ("57P01", Disposition::Reconnect),
            ("25006", Disposition::Reconnect),
            ("08006", Disposition::Reconnect),
            ("0A000", Disposition::Reprepare),
            ("22001", Disposition::Bisect),
            ("23505", Disposition::Bisect),
            ("42703", Disposition::Halt),
            ("XX001", Disposition::Halt),
            ("", Disposition::Halt),
        ] {
            assert_eq!(disposition(code), expected, "{code}");
        }
    }
}
