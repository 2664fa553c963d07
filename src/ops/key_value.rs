//! `key=value` lines: for logs that are not read at a terminal, and for the status line.
//!
//! One event is one line, whatever a value contains, so a line that greps is never a forged one.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes ` key=value`, quoted where the value would not read back as one word.
pub(crate) fn write_pair(out: &mut impl Write, key: &str, value: &str) -> fmt::Result {
    let word = !value.is_empty()
        && value.chars().all(|c| !c.is_whitespace() && !c.is_control() && !"\"=\\".contains(c));
    if word { write!(out, " {key}={value}") } else { write!(out, " {key}={value:?}") }
}

/// Formats events as `ts=… level=… target=… msg=… key=value …`, the fields of the spans last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyValue;

impl<S, N> FormatEvent<S, N> for KeyValue
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        out.write_str("ts=")?;
        SystemTime.format_time(&mut out)?;
        write!(out, " level={}", metadata.level().as_str().to_ascii_lowercase())?;
        write_pair(&mut out, "target", metadata.target())?;
        let mut pairs = Pairs { out: &mut out, result: Ok(()) };
        event.record(&mut pairs);
        pairs.result?;
        for span in context.event_scope().into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                out.write_str(fields)?;
            }
        }
        out.write_char('\n')
    }
}

impl<'w> FormatFields<'w> for KeyValue {
    fn format_fields<R: RecordFields>(&self, mut out: Writer<'w>, fields: R) -> fmt::Result {
        let mut pairs = Pairs { out: &mut out, result: Ok(()) };
        fields.record(&mut pairs);
        pairs.result
    }
}

struct Pairs<'a, W> {
    out: &'a mut W,
    result: fmt::Result,
}

impl<W: Write> Visit for Pairs<'_, W> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let key = if field.name() == "message" { "msg" } else { field.name() };
        let Self { out, result } = self;
        *result = result.and_then(|()| write_pair(*out, key, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged by `log`, without the time.
    fn logged(log: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(KeyValue)
            .event_format(KeyValue)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = captured.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        let (time, rest) = text.split_once(' ').expect("a time comes first");
        assert!(time.starts_with("ts=20"), "{time}");
        rest.to_owned()
    }

    #[test]
    fn an_event_is_one_line_of_pairs_with_its_spans_last() {
        let line = logged(|| {
            let span = tracing::info_span!("batch", partition = "users/0");
            let _entered = span.enter();
            tracing::warn!(target: "crossfade", rows = 5, code = %"40P01", "batch is retried");
        });
        insta::assert_snapshot!(line, @r#"level=warn target=crossfade msg="batch is retried" rows=5 code=40P01 partition=users/0"#);
    }

    #[test]
    fn a_value_cannot_start_a_line_or_forge_a_pair() {
        let line = logged(|| {
            tracing::info!(target: "t", a = "x\nlevel=error", b = "", c = "\u{1b}[31m", "m=\"q\"");
        });
        insta::assert_snapshot!(line, @r#"level=info target=t msg="m=\"q\"" a="x\nlevel=error" b="" c="\u{1b}[31m""#);
    }
}
