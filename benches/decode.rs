//! Bytes of a Debezium record to an owned change event, one thread.
//!
//! `cargo bench --bench decode`. The record is the `users` event of the golden files, 614 bytes bare
//! and 3,386 with its schema. Few records stay in the processor's cache; many do not, as after a long
//! wait in a consumer's queue.
//!
//! For comparison: `serde_struct` fills a borrowing struct with the members that are needed and makes
//! no event of it; `json_value` and `simd_json` parse into a tree and a tape.

use std::borrow::Cow;

use crossfade::pipeline::envelope::DebeziumDecoder;
use crossfade::pipeline::{Decoded, PartitionId, Position, RawChange};
use crossfade::table::{Projection, TypeKind, sample};
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};

/// Events an iteration: enough that the clock's own cost does not show.
const FEW: usize = 256;
/// 66 MB with their schemas.
const MANY: usize = 20_000;

const UNAVAILABLE: &str = "__debezium_unavailable_value";

const BARE: &str = include_str!("../tests/golden/debezium_docs/create.json");
const WITH_SCHEMA: &str = include_str!("../tests/golden/debezium_docs/create_with_schema.json");

fn main() {
    divan::main();
}

#[divan::bench(args = [FEW, MANY])]
fn bare(bencher: Bencher, events: usize) {
    decode(bencher, &records(BARE, events));
}

#[divan::bench(args = [FEW, MANY])]
fn with_schema(bencher: Bencher, events: usize) {
    decode(bencher, &records(WITH_SCHEMA, events));
}

/// A name that must be unescaped.
#[divan::bench]
fn escapes(bencher: Bencher) {
    let record = BARE.replace("Ada Lovelace", r#"Ada \"Countess\"\tLovel\u00e1ce"#);
    decode(bencher, &records(&record, FEW));
}

/// What an update costs under REPLICA IDENTITY FULL: the old row is checked and skipped.
#[divan::bench]
fn with_before(bencher: Bencher) {
    let start = BARE.find("{\"id\"").expect("the record has an image");
    let end = BARE.find(",\"source\"").expect("the record has a source block");
    let before = format!("\"before\":{}", &BARE[start..end]);
    let record = BARE.replace("\"before\":null", &before).replace("\"c\"", "\"u\"");
    decode(bencher, &records(&record, FEW));
}

/// The first record of a schema, every time.
#[divan::bench]
fn with_schema_unseen(bencher: Bencher) {
    let records = records(WITH_SCHEMA, FEW);
    let partition = PartitionId::new("cdc.public.users", 0);
    let projection = users();
    count(bencher, &records).bench_local(|| {
        for record in &records {
            let mut decoder = DebeziumDecoder::new(&projection, UNAVAILABLE);
            black_box(decoder.decode(&raw(&partition, record)).expect("the record is valid"));
        }
    });
}

/// The cost of [`DebeziumDecoder::new`], which `with_schema_unseen` also pays.
#[divan::bench]
fn new(bencher: Bencher) {
    let projection = users();
    bencher.counter(ItemsCount::new(FEW)).bench_local(|| {
        for _ in 0..FEW {
            black_box(DebeziumDecoder::new(&projection, UNAVAILABLE));
        }
    });
}

#[divan::bench(args = ["bare", "with_schema"])]
fn serde_struct(bencher: Bencher, form: &str) {
    #[derive(serde::Deserialize)]
    struct Wrapped<'a> {
        #[serde(borrow)]
        payload: Envelope<'a>,
    }
    #[derive(serde::Deserialize)]
    #[expect(dead_code, reason = "only parsed")]
    struct Envelope<'a> {
        #[serde(borrow)]
        after: Option<User<'a>>,
        #[serde(borrow)]
        source: Source<'a>,
        op: &'a str,
    }
    #[derive(serde::Deserialize)]
    #[expect(dead_code, reason = "only parsed")]
    struct User<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
        #[serde(borrow)]
        name: Cow<'a, str>,
        #[serde(borrow)]
        first_name: Option<Cow<'a, str>>,
        #[serde(borrow)]
        last_name: Option<Cow<'a, str>>,
    }
    #[derive(serde::Deserialize)]
    #[expect(dead_code, reason = "only parsed")]
    struct Source<'a> {
        snapshot: Option<&'a str>,
        schema: &'a str,
        table: &'a str,
        #[serde(rename = "txId")]
        xid: Option<u64>,
        lsn: Option<u64>,
        ts_us: Option<i64>,
    }
    let records = records(by_name(form), FEW);
    count(bencher, &records).bench_local(|| {
        for record in &records {
            let envelope = if form == "bare" {
                serde_json::from_slice::<Envelope>(record)
            } else {
                serde_json::from_slice::<Wrapped>(record).map(|wrapped| wrapped.payload)
            };
            black_box(envelope.expect("valid JSON"));
        }
    });
}

#[divan::bench(args = ["bare", "with_schema"])]
fn json_value(bencher: Bencher, form: &str) {
    let records = records(by_name(form), FEW);
    count(bencher, &records).bench_local(|| {
        for record in &records {
            let tree: serde_json::Value = serde_json::from_slice(record).expect("valid JSON");
            black_box(tree);
        }
    });
}

/// simd-json works in place, so each record is copied first, into a buffer that is kept.
#[divan::bench(args = ["bare", "with_schema"])]
fn simd_json(bencher: Bencher, form: &str) {
    let records = records(by_name(form), FEW);
    let mut buffers = simd_json::Buffers::new(4_096);
    let mut copy = Vec::new();
    count(bencher, &records).bench_local(|| {
        for record in &records {
            copy.clear();
            copy.extend_from_slice(record);
            let tape = simd_json::to_tape_with_buffers(&mut copy, &mut buffers);
            black_box(tape.expect("valid JSON"));
        }
    });
}

fn by_name(form: &str) -> &'static str {
    if form == "bare" { BARE } else { WITH_SCHEMA }
}

/// Copies that differ in their keys, each in memory of its own, as librdkafka hands them out.
fn records(template: &str, events: usize) -> Vec<Vec<u8>> {
    let key = |index| format!("{index:08x}-5e9e-4a55-9d6e-3f1f1f6f0001");
    (0..events)
        .map(|index| template.replace("7b0c6f0e-5e9e-4a55-9d6e-3f1f1f6f0001", &key(index)))
        .map(String::into_bytes)
        .collect()
}

fn count<'a, 'b>(bencher: Bencher<'a, 'b>, records: &[Vec<u8>]) -> Bencher<'a, 'b> {
    let bytes: usize = records.iter().map(Vec::len).sum();
    bencher.counter(ItemsCount::new(records.len())).counter(BytesCount::new(bytes))
}

fn decode(bencher: Bencher, records: &[Vec<u8>]) {
    let partition = PartitionId::new("cdc.public.users", 0);
    let mut decoder = DebeziumDecoder::new(&users(), UNAVAILABLE);
    let mut events = Vec::with_capacity(records.len());
    count(bencher, records).bench_local(|| {
        events.clear();
        for record in records {
            let decoded = decoder.decode(&raw(&partition, record)).expect("the record is valid");
            if let Decoded::Change(event) = decoded {
                events.push(event);
            }
        }
        assert_eq!(events.len(), records.len());
        black_box(&events);
    });
}

fn raw<'a>(partition: &'a PartitionId, record: &'a [u8]) -> RawChange<'a> {
    RawChange { partition, position: Position(0), key: None, value: Some(record) }
}

/// The table of the golden records; `name` feeds `first_name` and `last_name`.
fn users() -> Projection {
    let table = sample::users(
        vec![
            sample::required("id", TypeKind::Uuid),
            sample::required("name", TypeKind::Text),
            sample::required("email", TypeKind::Text),
            sample::required("updated_at", TypeKind::Other),
            sample::column("first_name", TypeKind::Text),
            sample::column("last_name", TypeKind::Text),
        ],
        &[0],
    );
    Projection { table: table.into(), sources: vec![1], targets: vec![4, 5] }
}
