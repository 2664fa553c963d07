//! What the decoder makes of the records that Debezium's documentation and sources describe; kept
//! beside the decoder for its own sake, since the cases outnumber its lines.

use std::fmt::Write;

use crate::pipeline::change::{Decoded, Op, RawChange};
use crate::pipeline::envelope::{DebeziumDecoder, DecodeError};
use crate::pipeline::position::{PartitionId, Position};
use crate::table::{Column, Projection, TypeKind, Value, sample};

pub(super) const ID: &str = "7b0c6f0e-5e9e-4a55-9d6e-3f1f1f6f0001";

macro_rules! golden {
    ($name:literal) => {
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/golden/debezium_docs/",
            $name,
            ".json"
        ))
    };
}
pub(super) use golden;

pub(super) fn column(name: &str, kind: TypeKind, not_null: bool) -> Column {
    Column { not_null, ..sample::column(name, kind) }
}

pub(super) use sample::projection as project;

/// `users(id uuid, name text NOT NULL, email, updated_at, first_name, last_name)`, the name split.
pub(super) fn users() -> Projection {
    let columns = vec![
        column("id", TypeKind::Uuid, true),
        column("name", TypeKind::Text, true),
        column("email", TypeKind::Text, true),
        column("updated_at", TypeKind::Other, true),
        column("first_name", TypeKind::Text, false),
        column("last_name", TypeKind::Text, false),
    ];
    project(columns, &[0], &[1], &[4, 5])
}

pub(super) fn decoder(projection: &Projection) -> DebeziumDecoder {
    DebeziumDecoder::new(projection, "__debezium_unavailable_value")
}

pub(super) fn decode(
    decoder: &mut DebeziumDecoder,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Result<Decoded, DecodeError> {
    let partition = PartitionId::new("t", 0);
    decoder.decode(&RawChange { partition: &partition, position: Position(0), key, value })
}

/// The outcome on one line: `c key: value, value | xid lsn micros`, `-` for what is not there.
fn show(outcome: &Result<Decoded, DecodeError>) -> String {
    let event = match outcome {
        Ok(Decoded::Progress) => return "progress".into(),
        Ok(Decoded::Change(event)) => event,
        Err(error) => return error.reason().into(),
    };
    let mut line = String::from(match event.op {
        Op::Create => "c ",
        Op::Update => "u ",
        Op::Delete => "d ",
        Op::Read => "r ",
    });
    let parts: Vec<_> = (0..event.key.parts()).map(|part| event.key.part(part)).collect();
    line += &parts.join("/").replace(ID, "ID");
    for (index, value) in event.values.iter().enumerate() {
        line += if index == 0 { ": " } else { ", " };
        line += match value {
            Value::Null => "NULL",
            Value::Text(text) => text,
            Value::Unknown => "?",
        };
    }
    let dash = || "-".to_string();
    let origin = event.origin;
    let xid = origin.xid.map_or_else(dash, |xid| xid.to_string());
    let lsn = origin.lsn.map_or_else(dash, |lsn| lsn.0.to_string());
    let at = origin.committed.map_or_else(dash, |at| at.0.to_string());
    write!(line, " | {xid} {lsn} {at}").unwrap();
    line
}

/// Decodes a value twice over by one decoder, and once wrapped in a schema: first unseen, then seen.
#[track_caller]
fn check_with(projection: &Projection, key: Option<&str>, value: &str, expected: &str) {
    let mut decoder = decoder(projection);
    let key = key.map(str::as_bytes);
    let wrapped = format!(r#"{{"schema":{{"type":"struct"}},"payload":{value}}}"#);
    for form in [value, value, &wrapped, &wrapped] {
        let outcome = decode(&mut decoder, key, Some(form.as_bytes()));
        assert_eq!(show(&outcome), expected, "{form}");
    }
}

#[track_caller]
fn check(value: &str, expected: &str) {
    check_with(&users(), None, value, expected);
}

/// A streamed event of `users` without the parts that do not matter.
pub(super) fn event(op: &str, before: &str, after: &str) -> String {
    format!(
        r#"{{"before":{before},"after":{after},"source":{{"schema":"public","table":"users","txId":9}},"op":"{op}"}}"#
    )
}

fn with_name(name: &str) -> String {
    format!(r#"{{"id":"{ID}","name":{name},"first_name":null,"last_name":null}}"#)
}

#[test]
fn reads_every_record_of_the_documentation() {
    let create = "c ID: Ada Lovelace, NULL, NULL | 571 24023128 1778051289123456";
    check(golden!("create"), create);
    check(golden!("update"), "u ID: Ada King, NULL, NULL | 572 24023400 1778051290000000");
    check(golden!("delete"), "d ID | 573 24023600 1778051291000000");
    check(golden!("read_initial"), "r ID: Ada Lovelace, ?, ? | - 24000000 -");
    check(golden!("read_incremental"), "r ID: Ada King, ?, ? | - - -");
    for record in [
        golden!("tombstone_null"),
        golden!("truncate"),
        golden!("message"),
        golden!("heartbeat"),
        golden!("transaction_begin"),
        golden!("transaction_end"),
        golden!("notification"),
        golden!("signal_table"),
    ] {
        check(record, "progress");
    }
}

#[test]
fn reads_a_record_with_its_schema_as_without() {
    let mut decoder = decoder(&users());
    let bare = decode(&mut decoder, None, Some(golden!("create").as_bytes()));
    for _unseen_then_seen in 0..2 {
        let record = golden!("create_with_schema").as_bytes();
        assert_eq!(decode(&mut decoder, None, Some(record)), bare);
    }
    let payload_first = golden!("create_with_schema").replacen("{\"schema\":", "", 1);
    let (schema, payload) = payload_first.split_once(",\"payload\":").unwrap();
    let payload_first =
        format!("{{\"payload\":{},\"schema\":{schema}}} ", &payload[..payload.len() - 1]);
    assert_eq!(decode(&mut decoder, None, Some(payload_first.as_bytes())), bare);
}

#[test]
fn takes_all_forms_of_a_tombstone_for_progress() {
    let mut decoder = decoder(&users());
    let key = format!(r#"{{"id":"{ID}"}}"#).into_bytes();
    assert_eq!(decode(&mut decoder, Some(&key), None), Ok(Decoded::Progress));
    for form in
        ["null", " null\n", golden!("tombstone_null_payload"), r#"{"schema":null,"payload":null}"#]
    {
        assert_eq!(decode(&mut decoder, Some(&key), Some(form.as_bytes())), Ok(Decoded::Progress));
    }
}

#[test]
fn an_empty_value_is_no_tombstone() {
    check_alone("", "not_json");
}

/// Decodes what cannot be wrapped in a schema.
#[track_caller]
fn check_alone(value: &str, expected: &str) {
    let outcome = decode(&mut decoder(&users()), None, Some(value.as_bytes()));
    assert_eq!(show(&outcome), expected, "{value}");
}

#[test]
fn streaming_events_carry_their_transaction_and_snapshot_reads_do_not() {
    let streaming = "c ID: A, ?, ? | 571 9 7";
    let snapshot = "c ID: A, ?, ? | - 9 -";
    for (form, expected) in [
        (r#""snapshot":false,"#, streaming),
        (r#""snapshot":"false","#, streaming),
        (r#""snapshot":null,"#, streaming),
        ("", streaming),
        (r#""snapshot":true,"#, snapshot),
        (r#""snapshot":"true","#, snapshot),
        (r#""snapshot":"first","#, snapshot),
        (r#""snapshot":"first_in_data_collection","#, snapshot),
        (r#""snapshot":"last_in_data_collection","#, snapshot),
        (r#""snapshot":"last","#, snapshot),
        (r#""snapshot":"incremental","#, snapshot),
        (r#""snapshot":0,"#, "bad_source"),
    ] {
        let source = format!(
            r#"{{{form}"schema":"public","table":"users","txId":571,"lsn":9,"ts_us":7,"ts_ms":1}}"#
        );
        check(&sourced("c", &source), expected);
        check(
            &sourced("r", &source),
            &expected.replace("c ID", "r ID").replace("571 9 7", "- 9 -"),
        );
    }
}

fn sourced(op: &str, source: &str) -> String {
    format!(r#"{{"op":"{op}","source":{source},"after":{{"id":"{ID}","name":"A"}}}}"#)
}

#[test]
fn transaction_ids_count_modulo_two_to_the_32() {
    let source = |txid: &str| {
        sourced("c", &format!(r#"{{"schema":"public","table":"users","txId":{txid}}}"#))
    };
    check(&source("4294967295"), "c ID: A, ?, ? | 4294967295 - -");
    check(&source("4294967297"), "c ID: A, ?, ? | 1 - -");
    // Without one nothing tells when the row can be seen.
    for wrong in ["null", "-1", "1.0", "1e2", "\"571\"", "[]", "99999999999999999999"] {
        check(&source(wrong), "bad_source");
    }
}

#[test]
fn commit_times_are_micros_or_else_millis() {
    let source = |times: &str| {
        sourced("c", &format!(r#"{{"schema":"public","table":"users","txId":9,{times}}}"#))
    };
    check(&source(r#""ts_ms":5,"ts_us":5123"#), "c ID: A, ?, ? | 9 - 5123");
    check(&source(r#""ts_ms":5,"ts_us":null"#), "c ID: A, ?, ? | 9 - 5000");
    check(&source(r#""ts_ms":-5"#), "c ID: A, ?, ? | 9 - -5000");
    check(&source(r#""ts_ms":null"#), "c ID: A, ?, ? | 9 - -");
    check(&source(r#""ts_ms":9223372036854775807"#), "bad_source");
}

#[test]
fn members_that_no_release_had_yet_are_passed_over() {
    let source = r#"{"new":{"a":[1]},"schema":"public","table":"users","txId":9,"\u006csn":9}"#;
    let value = sourced("c", source).replacen('{', r#"{"newer":[{"op":"d"}],"#, 1);
    check(&value, "c ID: A, ?, ? | 9 9 -");
}

#[test]
fn an_unknown_operation_is_an_error_that_shows_one_letter_at_most() {
    let row = with_name("\"Ada\"");
    for (op, letter) in [("x", 'x'), ("C", 'C'), ("", '?'), ("create", '?'), ("é", '?'), ("1", '?')]
    {
        let outcome =
            decode(&mut decoder(&users()), None, Some(event(op, "null", &row).as_bytes()));
        assert_eq!(outcome, Err(DecodeError::UnknownOp { op: letter }));
    }
    check(&event("c", "null", &row).replace("\"c\"", "7"), "unknown_op");
}

#[test]
fn a_record_of_another_table_is_never_judged_by_our_columns() {
    let other = event("c", "null", r#"{"id":7,"name":[]}"#);
    check(&other.replace("\"users\"", "\"posts\""), "progress");
    check(&other.replace("\"public\"", "\"Public\""), "progress");
    check(&other, "wrong_kind");
}

#[test]
fn an_event_that_does_not_name_its_table_is_an_error() {
    let row = with_name("\"Ada\"");
    check(&format!(r#"{{"op":"c","after":{row}}}"#), "bad_source");
    check(&format!(r#"{{"op":"c","after":{row},"source":null}}"#), "bad_source");
    check(&sourced("c", r#"{"table":"users"}"#), "bad_source");
    check(&sourced("c", r#"{"schema":"posts"}"#), "bad_source");
    check(&sourced("c", r#"{"schema":"public","table":7}"#), "bad_source");
}

#[test]
fn what_only_resembles_a_heartbeat_is_not_lost_in_silence() {
    check(golden!("flattened"), "not_an_event");
    check(golden!("cloud_event"), "not_an_event");
    check("{}", "not_an_event");
    check(r#"{"ts_ms":1,"name":"Ada"}"#, "not_an_event");
    check(r#"{"id":"1","aggregate_type":"order","type":"paid","payload":"…"}"#, "not_an_event");
    check(r#"{"status":"END","id":"1"}"#, "not_an_event");
    for value in ["7", "\"Ada\"", "\"null\"", "[]", "true"] {
        check(value, "not_an_event");
    }
}

#[test]
fn an_operation_without_its_image_is_an_error() {
    for op in ["c", "u", "r"] {
        check(&event(op, &with_name("\"Ada\""), "null"), "missing_image");
        check(&event(op, "null", "7"), "missing_image");
    }
    check(&event("d", "null", "null"), "missing_image");
}

#[test]
fn nothing_is_derived_from_the_fillers_of_a_delete() {
    let before = r#"{"id":"ID","name":"","first_name":null}"#.replace("ID", ID);
    check(&event("d", &before, "null"), "d ID | 9 - -");
    // Not even from an image that should not be there.
    let other = with_name("\"Ada\"").replace("7b0c", "aaaa");
    check(&event("d", &before, &other), "d ID | 9 - -");
}

#[test]
fn a_changed_key_is_a_delete_of_the_old_and_a_create_of_the_new() {
    let new = with_name("\"Ada\"").replace("7b0c", "bbbb");
    let mut decoder = decoder(&users());
    let mut line = |value: &str| show(&decode(&mut decoder, None, Some(value.as_bytes())));
    let bbbb = ID.replace("7b0c", "bbbb");
    assert_eq!(line(&event("c", "null", &new)), format!("c {bbbb}: Ada, NULL, NULL | 9 - -"));
    assert_eq!(line(&event("d", &with_name("\"\""), "null")), "d ID | 9 - -");
    assert_eq!(line("null"), "progress");
}

#[test]
fn integer_keys_are_exact() {
    let columns = vec![column("id", TypeKind::Integer, true), column("name", TypeKind::Text, true)];
    let users = project(columns, &[0], &[1], &[]);
    for id in ["9007199254740993", "9007199254740992", "-9223372036854775808"] {
        let value = event("c", "null", &format!(r#"{{"id":{id},"name":"A"}}"#));
        check_with(&users, None, &value, &format!("c {id}: A | 9 - -"));
    }
    let value = event("c", "null", r#"{"id":9007199254740993.0,"name":"A"}"#);
    check_with(&users, None, &value, "wrong_kind");
}

#[test]
fn key_columns_that_the_value_lacks_come_from_the_message_key() {
    let value = event("u", "null", r#"{"name":"A"}"#);
    let bare = format!(r#"{{"id":"{ID}"}}"#);
    let wrapped = format!(r#"{{"schema":{{"type":"struct"}},"payload":{bare}}}"#);
    for key in [&bare, &wrapped] {
        check_with(&users(), Some(key), &value, "u ID: A, ?, ? | 9 - -");
        check_with(&users(), Some(key), &event("d", "null", "null"), "d ID | 9 - -");
    }
    check_with(&users(), Some("Struct{id=1}"), &value, "key_not_json");
    check_with(&users(), Some(r#"{"email":"ada@x.io"}"#), &value, "missing_key");
    check_with(&users(), Some(r#"{"id":null}"#), &value, "missing_key");
    check_with(&users(), Some("7"), &value, "missing_key");
    check_with(&users(), Some(r#"{"schema":{},"payload":"{}"}"#), &value, "missing_key");
    check_with(&users(), None, &value, "missing_key");
}

#[test]
fn a_message_key_is_not_read_while_the_value_has_the_key() {
    let value = event("u", "null", &with_name("\"A\""));
    for key in ["Struct{id=1}", r#"{"email":"ada@x.io"}"#, r#"{"id":"other"}"#, ""] {
        check_with(&users(), Some(key), &value, "u ID: A, NULL, NULL | 9 - -");
    }
}

#[test]
fn a_key_of_several_columns_keeps_the_order_of_the_key() {
    let columns = vec![
        column("id", TypeKind::Integer, true),
        column("tenant", TypeKind::Text, true),
        column("name", TypeKind::Text, true),
    ];
    let users = project(columns, &[1, 0], &[2], &[]);
    let value = event("c", "null", r#"{"id":7,"tenant":"a","name":"A"}"#);
    check_with(&users, None, &value, "c a/7: A | 9 - -");
    let value = event("c", "null", r#"{"id":7,"name":"A"}"#);
    check_with(&users, Some(r#"{"tenant":"b","id":8}"#), &value, "c b/7: A | 9 - -");
    check_with(&users, Some(r#"{"id":8}"#), &value, "missing_key");
}

#[test]
fn a_key_may_have_columns_named_as_the_form_with_schema() {
    let columns =
        vec![column("schema", TypeKind::Text, true), column("payload", TypeKind::Text, true)];
    let users = project(columns, &[0, 1], &[], &[]);
    let key = r#"{"schema":"s","payload":"p"}"#;
    check_with(&users, Some(key), &event("u", "null", "{}"), "u s/p | 9 - -");
}

#[test]
fn a_key_whose_json_form_is_not_exact_is_an_error() {
    let columns = vec![column("day", TypeKind::Other, true)];
    let users = project(columns, &[0], &[], &[]);
    check_with(&users, None, &event("c", "null", r#"{"day":19000}"#), "unsupported_key");
}

#[test]
fn the_placeholder_of_an_unchanged_value_is_unknown_in_every_operation() {
    let row = with_name("\"__debezium_unavailable_value\"");
    for (op, xid) in [("c", "9"), ("u", "9"), ("r", "-")] {
        check(&event(op, "null", &row), &format!("{op} ID: ?, NULL, NULL | {xid} - -"));
    }
    let escaped = row.replace("__deb", "\\u005f_deb");
    check(&event("u", "null", &escaped), "u ID: ?, NULL, NULL | 9 - -");
    // Only the whole of it: a longer text is somebody's name.
    let longer = row.replace("_value", "_value ");
    let line = "u ID: __debezium_unavailable_value , NULL, NULL | 9 - -";
    check(&event("u", "null", &longer), line);
}

#[test]
fn a_placeholder_of_ones_own_is_recognised_also_as_octets() {
    for setting in ["n/a", "hex:6e2f61"] {
        let mut decoder = DebeziumDecoder::new(&users(), setting);
        let value = event("u", "null", &with_name("\"n/a\""));
        let outcome = decode(&mut decoder, None, Some(value.as_bytes()));
        assert_eq!(show(&outcome), "u ID: ?, NULL, NULL | 9 - -");
    }
    for odd in ["hex:", "hex:6", "hex:zz", "hex:ff", "hex:é", ""] {
        DebeziumDecoder::new(&users(), odd);
    }
}

#[test]
fn a_column_that_the_event_lacks_is_unknown_and_not_null() {
    check(&event("u", "null", &format!(r#"{{"id":"{ID}"}}"#)), "u ID: ?, ?, ? | 9 - -");
}

#[test]
fn a_null_that_the_catalog_does_not_allow_is_unknown() {
    check(&event("u", "null", &with_name("null")), "u ID: ?, NULL, NULL | 9 - -");
}

#[test]
fn a_value_that_may_be_the_default_in_place_of_null_is_unknown() {
    let mut columns = vec![
        column("id", TypeKind::Uuid, true),
        column("name", TypeKind::Text, false),
        column("nick", TypeKind::Text, true),
        column("first_name", TypeKind::Text, false),
    ];
    for column in &mut columns {
        column.has_default = true;
    }
    let users = project(columns, &[0], &[1, 2], &[3]);
    let row = |name| format!(r#"{{"id":"{ID}","name":{name},"nick":"x","first_name":{name}}}"#);
    check_with(&users, None, &event("u", "null", &row("\"x\"")), "u ID: ?, x, ? | 9 - -");
    check_with(&users, None, &event("u", "null", &row("null")), "u ID: NULL, x, NULL | 9 - -");
}

#[test]
fn values_come_in_the_order_of_the_projection_and_each_by_its_type() {
    let columns = vec![
        column("id", TypeKind::Integer, true),
        column("a", TypeKind::Bool, false),
        column("b", TypeKind::Other, false),
        column("c", TypeKind::Integer, false),
        column("d", TypeKind::Text, false),
    ];
    let users = project(columns, &[0], &[4, 0, 2], &[3, 1]);
    let row = r#"{"id":1,"a":false,"b":"MDk=","c":-5,"d":"é\n"}"#;
    check_with(&users, None, &event("c", "null", row), "c 1: é\n, 1, ?, -5, false | 9 - -");
}

#[test]
fn a_member_that_stands_twice_is_an_error() {
    let value = event("c", "null", &with_name("\"Ada\""));
    check(&value.replace(r#""op":"c""#, r#""op":"c","op":"d""#), "duplicate_member");
    check(&value.replace(r#""name":"#, r#""name":"B","name":"#), "duplicate_member");
    check(&value.replace(r#""table":"#, r#""table":"posts","table":"#), "duplicate_member");
}

#[test]
fn a_record_is_broken_also_where_nobody_looks() {
    let value = event("c", r#"{"x":[1,{"y":null}]}"#, &with_name("\"Ada\""));
    check(&value, "c ID: Ada, NULL, NULL | 9 - -");
    check_alone(&value.replace("{\"y\"", "{y"), "not_json");
    check_alone(&value.replace("[1,", "[1"), "not_json");
    check_alone(&format!("{value},"), "not_json");
    check_alone(&value[..value.len() - 1], "not_json");
    check_alone(&value.replace("null}]", &"[".repeat(1_000)), "too_deep");
    let mut bytes = golden!("create_with_schema").as_bytes().to_vec();
    let mut decoder = decoder(&users());
    decode(&mut decoder, None, Some(&bytes)).unwrap();
    let email = golden!("create_with_schema").find("ada@x.io").unwrap();
    bytes[email] = 0xff;
    let outcome = decode(&mut decoder, None, Some(&bytes));
    assert_eq!(outcome, Err(DecodeError::NotUtf8 { offset: email }));
}

#[test]
fn only_schema_and_payload_together_and_alone_are_the_form_with_schema() {
    let mut decoder = decoder(&users());
    let mut line = |value: &str| show(&decode(&mut decoder, None, Some(value.as_bytes())));
    let value = event("c", "null", &with_name("\"A\""));
    let change = "c ID: A, NULL, NULL | 9 - -";
    for form in [
        format!(r#"{{"payload":{value},"schema":{{}}}}"#),
        format!(r#"{{"schema":{{}},"payload":{value} }}"#),
        format!(r#"{{"schema":{{}},"payload":{value}}}"#),
    ] {
        assert_eq!(line(&form), change);
    }
    for form in [
        format!(r#"{{"payload":{value}}}"#),
        format!(r#"{{"schema":{{}},"payload":{value},"more":1}}"#),
        format!(r#"{{"more":1,"schema":{{}},"payload":{value}}}"#),
        format!(r#"{{"schema":"public","payload":{value}}}"#),
    ] {
        assert_eq!(line(&form), "not_an_event");
    }
}

#[test]
fn a_remembered_schema_does_not_move_the_limit_of_depth() {
    let mut decoder = decoder(&users());
    // Two levels are the record and its payload.
    for (depth, expected) in [(1, None), (126, None), (127, Some("too_deep"))] {
        let extra = format!(r#"{{"x":{}{},"before""#, "[".repeat(depth), "]".repeat(depth));
        let value = event("c", "null", &with_name("\"A\"")).replacen(r#"{"before""#, &extra, 1);
        let record = format!(r#"{{"schema":{{}},"payload":{value}}}"#);
        for decoder in [&mut decoder, &mut self::decoder(&users())] {
            let outcome = decode(decoder, None, Some(record.as_bytes()));
            assert_eq!(outcome.err().map(|error| error.reason()), expected, "{depth}");
        }
    }
}

#[test]
fn an_error_names_the_column_and_never_the_value() {
    let value = event("c", "null", &with_name("4711"));
    let error = decode(&mut decoder(&users()), None, Some(value.as_bytes())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "column \"name\" was expected as a string and came as an integer"
    );
    assert_eq!(error.reason(), "wrong_kind");
}
