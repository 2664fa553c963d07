//! Feeds the Debezium decoder what a fuzzer makes up: the message key, a zero byte, the value.
//!
//! Beyond "never panics": what has been decoded before changes nothing, and whatever is taken is JSON.

#![no_main]

use crossfade::pg::ident::Ident;
use crossfade::pipeline::envelope::DebeziumDecoder;
use crossfade::pipeline::{PartitionId, Position, RawChange};
use crossfade::table::{
    Column, ColumnType, Equality, Projection, ReplicaIdentity, Table, TypeKind,
};
use libfuzzer_sys::fuzz_target;

/// A record whose schema the second decoder has seen; short, so that a fuzzer finds it.
const SEEN: &str =
    r#"{"schema":{},"payload":{"op":"c","after":{"id":1},"source":{"schema":"s","table":"t"}}}"#;

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
    let column = |name: &str, kind, not_null| Column {
        name: Ident::new(name).expect("a short name"),
        ty: ColumnType {
            oid: 0,
            typmod: -1,
            sql: "any".into(),
            base_sql: "any".into(),
            kind,
            equality: Equality::Operator,
            toastable: false,
        },
        not_null,
        has_default: false,
        generated: false,
    };
    let table = Table {
        oid: 0,
        schema: Ident::new("s").expect("a short name"),
        name: Ident::new("t").expect("a short name"),
        columns: vec![
            column("id", TypeKind::Integer, true),
            column("a", TypeKind::Text, false),
            column("b", TypeKind::Bool, false),
            column("u", TypeKind::Uuid, false),
        ],
        key: vec![0],
        identity: ReplicaIdentity::Default,
    };
    Projection { table: table.into(), sources: vec![1, 0], targets: vec![2, 3] }
}
