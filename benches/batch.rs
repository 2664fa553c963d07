//! A window's worth of change events to the parameters of its statements, one thread.
//!
//! `cargo bench --bench batch`. A window is 16,384 snapshot reads with random uuid keys in the order of
//! the heap, written in bulk in 8 slices: the defaults. Each bench is one stage of what a row costs
//! between decoder and socket; `all` is their sum, with the memory that passes from stage to stage.

use bytes::BytesMut;
use crossfade::config::settings::{Rule, TableSettings, Take};
use crossfade::pg::ident::Ident;
use crossfade::pipeline::batch::{Batch, Window};
use crossfade::pipeline::transform::Mapping;
use crossfade::pipeline::{
    ChangeEvent, Effect, Lane, Mark, Mode, Mutation, Op, Origin, PartitionId, Position,
};
use crossfade::table::{Key, TypeKind, Value, sample};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

/// `batch.window`.
const EVENTS: u64 = 16_384;
/// `batch.slices`, `batch.max_rows` and `batch.max_bytes`.
const SLICES: usize = 8;
const MAX_ROWS: usize = 2_000;
const MAX_BYTES: usize = 1 << 20;

fn main() {
    divan::main();
}

/// Event to effect: the split of a name, and the comparison that finds an echo.
#[divan::bench]
fn transform(bencher: Bencher) {
    let mapping = mapping();
    count(bencher).with_inputs(events).bench_local_values(|events| {
        events.into_iter().map(|event| mapping.effect(event)).collect::<Vec<_>>()
    });
}

/// Effects into the window.
#[divan::bench]
fn gather(bencher: Bencher) {
    count(bencher).with_inputs(effects).bench_local_values(window_of);
}

/// The window into batches: last record of each key, slices, key order.
#[divan::bench(args = [Mode::Bulk, Mode::Tail])]
fn close(bencher: Bencher, mode: Mode) {
    count(bencher)
        .with_inputs(|| window_of(effects()))
        .bench_local_values(|window| window.close(mode, SLICES, MAX_ROWS, MAX_BYTES));
}

/// Batches into array parameters in PostgreSQL's binary form: the keys parsed to uuids, three texts.
#[divan::bench]
fn encode(bencher: Bencher) {
    let batches = window_of(effects()).close(Mode::Bulk, SLICES, MAX_ROWS, MAX_BYTES);
    let mut buffer = BytesMut::new();
    count(bencher).bench_local(|| {
        for batch in &batches {
            parameters(black_box(batch), &mut buffer);
        }
    });
}

/// From event to parameters; a new window each time, dropped at the end, as in the worker.
#[divan::bench]
fn all(bencher: Bencher) {
    let mapping = mapping();
    let mut buffer = BytesMut::new();
    count(bencher).with_inputs(events).bench_local_values(|events| {
        let effects = events.into_iter().map(|event| mapping.effect(event));
        let window = window_of(effects);
        for batch in window.close(Mode::Bulk, SLICES, MAX_ROWS, MAX_BYTES) {
            parameters(&batch, &mut buffer);
        }
    });
}

fn count<'a, 'b>(bencher: Bencher<'a, 'b>) -> Bencher<'a, 'b> {
    bencher.counter(ItemsCount::new(EVENTS))
}

/// What the sink sends for a batch; the buffer is the connection's, and is kept.
fn parameters(batch: &Batch, buffer: &mut BytesMut) {
    let keys: Vec<Uuid> = batch
        .rows
        .iter()
        .map(|row| Uuid::parse_str(row.mutation.key().part(0)).expect("a uuid"))
        .collect();
    buffer.clear();
    keys.to_sql(&Type::UUID_ARRAY, buffer).expect("an array of uuids");
    for column in 0..3 {
        let texts: Vec<Option<&str>> = batch
            .rows
            .iter()
            .map(|row| match &row.mutation {
                Mutation::Fill { seen, values, .. } => match column {
                    0 => seen[0].known(),
                    _ => values[column - 1].known(),
                },
                Mutation::Reread { .. } => unreachable!("every source is known"),
            })
            .collect();
        texts.to_sql(&Type::TEXT_ARRAY, buffer).expect("an array of texts");
    }
    black_box(&buffer);
}

fn window_of(effects: impl IntoIterator<Item = Effect>) -> Window {
    let mut window =
        Window::open(PartitionId::new("cdc.public.users", 0), Lane::ONLY, Position(-1));
    for (position, effect) in (0..).zip(effects) {
        window.change(Position(position), Mark::default(), Origin::default(), effect);
    }
    window
}

fn effects() -> Vec<Effect> {
    let mapping = mapping();
    events().into_iter().map(|event| mapping.effect(event)).collect()
}

fn events() -> Vec<ChangeEvent> {
    // Splitmix64: random keys that are the same in every run.
    let mut state = 0_u64;
    let mut random = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    };
    (0..EVENTS)
        .map(|index| ChangeEvent {
            op: Op::Read,
            key: Key::one(Uuid::from_u64_pair(random(), random()).to_string()),
            values: vec![
                Value::text(if index % 16 == 0 { "Ada" } else { "Margaret Hamilton" }),
                Value::Null,
                Value::Null,
            ],
            origin: Origin::default(),
        })
        .collect()
}

/// The running example: `name` fills `first_name` and `last_name`.
fn mapping() -> Mapping {
    let ident = |name: &str| Ident::new(name).expect("a short name");
    let table = sample::users(
        vec![
            sample::required("id", TypeKind::Uuid),
            sample::column("name", TypeKind::Text),
            sample::column("first_name", TypeKind::Text),
            sample::column("last_name", TypeKind::Text),
        ],
        &[0],
    );
    let split = |take| Rule::Split { column: ident("name"), take };
    let settings = TableSettings {
        schema: ident("public"),
        name: ident("users"),
        key: None,
        up: vec![
            (ident("first_name"), split(Take::First)),
            (ident("last_name"), split(Take::Rest)),
        ],
    };
    Mapping::resolve(&table.into(), &settings).expect("the columns are there").1
}
