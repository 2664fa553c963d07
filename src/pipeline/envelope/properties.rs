//! What must hold for every record, those included that no connector writes.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::json;

use crate::pg::lsn::Lsn;
use crate::pipeline::change::{ChangeEvent, Decoded, Op, Origin};
use crate::pipeline::envelope::conformance::{ID, column, decode, decoder, golden, project, users};
use crate::pipeline::position::DatabaseMicros;
use crate::table::{Key, Projection, TypeKind, Value};

const GOLDEN: [&str; 8] = [
    golden!("create"),
    golden!("create_with_schema"),
    golden!("update"),
    golden!("delete"),
    golden!("tombstone_null_payload"),
    golden!("transaction_end"),
    golden!("notification"),
    golden!("flattened"),
];

/// One change to a record's bytes.
#[derive(Debug, Clone)]
enum Damage {
    Flip(Index, u8),
    Cut(Index),
    Remove(Index, usize),
    Repeat(Index, usize),
    Insert(Index, &'static str),
}

fn damage() -> impl Strategy<Value = Damage> {
    let pieces = select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\\u0000",
        "\\ud800",
        "null",
        "-",
        "1e9",
        " ",
        "\n",
        "\u{1}",
        "é",
        "\"op\":\"d\",",
        "\"payload\":",
    ]);
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Flip(at, byte)),
        any::<Index>().prop_map(Damage::Cut),
        (any::<Index>(), 1_usize..40).prop_map(|(at, length)| Damage::Remove(at, length)),
        (any::<Index>(), 1_usize..40).prop_map(|(at, length)| Damage::Repeat(at, length)),
        (any::<Index>(), pieces).prop_map(|(at, piece)| Damage::Insert(at, piece)),
    ]
}

fn damaged(record: &str, damages: &[Damage]) -> Vec<u8> {
    let mut bytes = record.as_bytes().to_vec();
    for damage in damages {
        if bytes.is_empty() {
            break;
        }
        match damage {
            Damage::Flip(at, byte) => *at.get_mut(&mut bytes) ^= byte,
            Damage::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Damage::Remove(at, length) => {
                let start = at.index(bytes.len());
                bytes.drain(start..(start + length).min(bytes.len()));
            }
            Damage::Repeat(at, length) => {
                let start = at.index(bytes.len());
                let piece = bytes[start..(start + length).min(bytes.len())].to_vec();
                bytes.splice(start..start, piece);
            }
            Damage::Insert(at, piece) => {
                let start = at.index(bytes.len());
                bytes.splice(start..start, piece.bytes());
            }
        }
    }
    bytes
}

/// A table with a column of every kind that is read: bigint key, text, bigint, boolean, uuid.
fn mixed() -> Projection {
    let columns = vec![
        column("id", TypeKind::Integer, true),
        column("té\"xt", TypeKind::Text, false),
        column("number", TypeKind::Integer, false),
        column("flag", TypeKind::Bool, false),
        column("uid", TypeKind::Uuid, false),
    ];
    project(columns, &[0], &[4, 3], &[2, 1])
}

fn value(text: Option<String>) -> Value {
    text.map_or(Value::Null, Value::text)
}

fn int64() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), Just(0)]
}

/// Text as PostgreSQL can hold it, with more of what JSON escapes than chance would give.
fn text() -> impl Strategy<Value = String> {
    let special =
        select(vec!['"', '\\', '/', '\n', '\t', '\u{1}', '\u{7f}', 'é', '\u{2028}', '😀']);
    let any = any::<char>().prop_filter("NUL", |character| *character != '\0');
    vec(prop_oneof![special, any], 0..24).prop_map(String::from_iter)
}

/// The same JSON with every character outside of ASCII written as escapes.
fn in_ascii(json: &str) -> String {
    let mut ascii = String::new();
    for character in json.chars() {
        match character {
            ' '..='~' => ascii.push(character),
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    ascii += &format!("\\u{unit:04X}");
                }
            }
        }
    }
    ascii
}

proptest! {
    #[test]
    fn never_panics_on_any_bytes(bytes in vec(any::<u8>(), 0..200), key in vec(any::<u8>(), 0..50)) {
        let _ = decode(&mut decoder(&users()), Some(&key), Some(&bytes));
    }

    /// Also: JSON is accepted as JSON exactly where serde_json accepts it, skipped parts included.
    #[test]
    fn never_panics_on_damaged_records_and_agrees_with_serde_json(
        record in select(&GOLDEN[..]),
        damages in vec(damage(), 1..4),
    ) {
        let bytes = damaged(record, &damages);
        let mut fresh = decoder(&users());
        let outcome = decode(&mut fresh, Some(&bytes), Some(&bytes));
        let valid = std::str::from_utf8(&bytes)
            .is_ok_and(|json| serde_json::from_str::<serde::de::IgnoredAny>(json).is_ok());
        match outcome.as_ref().map_err(|error| error.reason()) {
            Ok(_) => prop_assert!(valid),
            Err("not_json" | "not_utf8") => {
                // A name that is half a surrogate pair passes there as long as nobody reads it.
                prop_assert!(!valid || bytes.windows(3).any(|piece| piece.eq_ignore_ascii_case(b"\\ud")));
            }
            // Found before the end was seen.
            Err("duplicate_member") => {}
            Err(_) => prop_assert!(valid),
        }
        // One that has seen the schema says the same, errors and offsets included.
        let mut seasoned = decoder(&users());
        decode(&mut seasoned, None, Some(golden!("create_with_schema").as_bytes())).unwrap();
        prop_assert_eq!(decode(&mut seasoned, Some(&bytes), Some(&bytes)), outcome);
    }

    /// Only the part behind the schema is damaged, so that the remembered prefix still matches.
    #[test]
    fn a_remembered_schema_changes_nothing(damages in vec(damage(), 1..3)) {
        let record = golden!("create_with_schema");
        let (schema, payload) = record.split_at(record.find("{\"before\":null").unwrap());
        let bytes = [schema.as_bytes(), &damaged(payload, &damages)].concat();
        let mut seasoned = decoder(&users());
        decode(&mut seasoned, None, Some(record.as_bytes())).unwrap();
        let seasoned = decode(&mut seasoned, None, Some(&bytes));
        prop_assert_eq!(seasoned, decode(&mut decoder(&users()), None, Some(&bytes)));
    }

    #[test]
    fn whatever_an_event_says_comes_out_as_it_was(
        op in select(vec![("c", Op::Create), ("u", Op::Update)]),
        id in int64(),
        text in proptest::option::of(text()),
        number in proptest::option::of(int64()),
        flag in any::<Option<bool>>(),
        uid in any::<Option<u128>>(),
        (xid, lsn, micros) in (any::<u32>(), any::<Option<u64>>(), int64()),
    ) {
        let uid = uid.map(|uid| uuid::Uuid::from_u128(uid).to_string());
        let record = json!({
            "before": {"id": id, "té\"xt": text},
            "after": {"id": id, "té\"xt": text, "number": number, "flag": flag, "uid": uid},
            "source": {"schema": "public", "table": "users", "txId": xid, "lsn": lsn, "ts_us": micros},
            "op": op.0,
        });
        let expected = Decoded::Change(ChangeEvent {
            op: op.1,
            key: Key::one(id.to_string()),
            values: vec![
                value(uid),
                value(flag.map(|flag| flag.to_string())),
                value(number.map(|number| number.to_string())),
                value(text),
            ],
            origin: Origin { xid: Some(xid), lsn: lsn.map(Lsn), committed: Some(DatabaseMicros(micros)) },
        });
        let wrapped = json!({"schema": {"type": "struct"}, "payload": record});
        let pretty = serde_json::to_string_pretty(&wrapped).unwrap();
        let mut decoder = decoder(&mixed());
        for json in [record.to_string(), wrapped.to_string(), wrapped.to_string(), pretty] {
            for json in [in_ascii(&json.replace('\n', " ")), json] {
                let outcome = decode(&mut decoder, None, Some(json.as_bytes()));
                prop_assert_eq!(outcome.as_ref(), Ok(&expected), "{}", json);
            }
        }
    }

    #[test]
    fn a_key_comes_out_of_a_message_key_as_it_was(id in text(), tenant in int64()) {
        let columns = vec![column("id", TypeKind::Text, true), column("tenant", TypeKind::Integer, true)];
        let projection = project(columns, &[1, 0], &[], &[]);
        let key = json!({"tenant": tenant, "id": id}).to_string();
        let wrapped = json!({"schema": {}, "payload": {"tenant": tenant, "id": id}}).to_string();
        let record = json!({"op": "d", "before": null, "source": {"schema": "public", "table": "users", "txId": 9}});
        for key in [key, wrapped] {
            let outcome = decode(
                &mut decoder(&projection),
                Some(key.as_bytes()),
                Some(record.to_string().as_bytes()),
            );
            let Ok(Decoded::Change(event)) = outcome else { panic!("{outcome:?}") };
            prop_assert_eq!(event.key, Key::new(vec![tenant.to_string().into(), id.as_str().into()]));
        }
    }
}

#[test]
fn the_golden_key_is_the_one_that_the_cases_shorten() {
    assert!(golden!("create").contains(ID));
}
