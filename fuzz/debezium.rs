//! Feeds the Debezium decoder what a fuzzer makes up: the message key, a zero byte, the value.
//!
//! Beyond "never panics": what has been decoded before changes nothing, and whatever is taken is JSON.

#![no_main]

use crossfade::pipeline::envelope::DebeziumDecoder;
use crossfade::pipeline::{PartitionId, Position, RawChange};
use crossfade::table::{Projection, TypeKind, sample};
use libfuzzer_sys::fuzz_target;

/// A record whose schema the second decoder has seen; short, so that a fuzzer finds it.
const SEEN: &str = r#"{"schema":{},"payload":{"op":"r","after":{"id":1},"source":{"schema":"public","table":"users"}}}"#;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let (first, second) = (parts.next(), parts.next());
    let (key, value) = if second.is_some() { (first, second) } else { (None, first) };

    let projection = projection();
    let partition = PartitionId::new("t", 0);
    let raw = |key, value| RawChange { partition: &partition, position: Position(0), key, value };

    let mut seasoned = DebeziumDecoder::new(&projection, "__u");
    seasoned.decode(&raw(None, Some(SEEN.as_bytes()))).expect("the record is valid");
    let outcome = DebeziumDecoder::new(&projection, "__u").decode(&raw(key, value));
    assert_eq!(seasoned.decode(&raw(key, value)), outcome);

    if let (Ok(_), Some(value)) = (outcome, value) {
        let json = std::str::from_utf8(value).expect("what was decoded is UTF-8");
        serde_json::from_str::<serde::de::IgnoredAny>(json).expect("what was decoded is JSON");
    }
});

fn projection() -> Projection {
    let table = sample::users(
        vec![
            sample::required("id", TypeKind::Integer),
            sample::column("a", TypeKind::Text),
            sample::column("b", TypeKind::Bool),
            sample::column("u", TypeKind::Uuid),
        ],
        &[0],
    );
    Projection { table: table.into(), sources: vec![1, 0], targets: vec![2, 3] }
}
