//! The reading thread, one turn at a time, on the source in memory.

use super::*;
use crate::pg::connect::Connector;
use crate::pg::server::ServerIdentity;
use crate::pipeline::source::Logs;
use crate::pipeline::source::script::{Record, ScriptSource};
use crate::state::ownership::{self, Ownership};
use crate::table::{TypeKind, sample};
use crossbeam::channel;

const CONFIG: &str = r#"
version = 1
name = "test"
[database]
url = "postgresql://localhost/test"
tls = "disable"
writers = 1
[source]
kind = "kafka"
brokers = "localhost:1"
topic = "t"
[table."public.users".up]
first_name = { split = "name", take = "first" }
[batch]
window = 4
slices = 1
"#;

/// Claims are answered by the tests.
struct NoLogs;

impl Logs for NoLogs {
    fn bounds(&self, _: &PartitionId) -> Result<Log, String> {
        Err("not asked".into())
    }
}

/// A thread whose turns a test takes, with all its ends in the test's hands.
struct Bench {
    ingest: Ingest<ScriptSource>,
    source: ScriptSource,
    windows: Receiver<Work>,
    commands: Sender<Command>,
    claims: mpsc::Receiver<ClaimRequest>,
    clock: Clock,
}

fn partition() -> PartitionId {
    PartitionId::new("t", 0)
}

impl Bench {
    fn new() -> Self {
        let loaded = crate::config::parse("test.toml".as_ref(), CONFIG.as_bytes(), &|_| None);
        let settings = Arc::new(loaded.expect("the config is right").settings);
        let columns = vec![
            sample::required("id", TypeKind::Integer),
            sample::column("name", TypeKind::Text),
            sample::column("first_name", TypeKind::Text),
        ];
        let table = Arc::new(sample::users(columns, &[0]));
        let (projection, mapping) = Mapping::resolve(&table, &settings.table).unwrap();
        let decoder = DebeziumDecoder::new(&projection, "unavailable");
        let clock = Clock::manual();
        let plan = Plan {
            connector: Connector::new(&settings.database, "test"),
            projection: Arc::new(projection),
            mapping: Arc::new(mapping),
            ownership: Ownership { mode: ownership::Mode::Derive, epoch: Epoch(1) },
            server: ServerIdentity { system: "1".into(), timeline: 1 },
            source: "here".into(),
            owner: "test".into(),
            logs: Arc::new(NoLogs),
            clock: clock.clone(),
            settings,
        };
        let (sender, windows) = channel::bounded(1);
        let lanes = vec![WriterLane { windows: sender, wake: Arc::new(Notify::new()) }];
        let (commands, inbox) = channel::bounded(16);
        let (claim, claims) = mpsc::channel(16);
        let source = ScriptSource::default();
        let progress = Arc::new(watch::Sender::new(Progress::starting()));
        let ingest = Ingest::new(&plan, decoder, source.clone(), lanes, inbox, claim, &progress);
        Self { ingest, source, windows, commands, claims, clock }
    }

    /// One turn of the loop.
    fn turn(&mut self) {
        while let Ok(command) = self.ingest.inbox.try_recv() {
            assert!(self.ingest.obey(command), "no test stops the thread");
        }
        let exhausted = self.ingest.read().expect("a script does not fail");
        self.ingest.claim_again();
        self.ingest.hand_over(exhausted);
        self.ingest.relieve();
        self.ingest.publish();
    }

    /// Assigns the partition and answers its claim with `position`.
    fn begin(&mut self, position: i64, mark: Option<Mark>) {
        self.source.assign(&partition());
        self.turn();
        let request = self.claims.try_recv().expect("a claim was asked for");
        self.answer(request, position, mark);
        self.turn();
    }

    fn answer(&mut self, request: ClaimRequest, position: i64, mark: Option<Mark>) {
        let ClaimRequest { partition, live, .. } = request;
        let log = self.source.log(&partition);
        let position = Position(position);
        let (epoch, gap, first) = (Epoch(7), None, false);
        let claim = Claim { epoch, position, mark, gap, foreign_before: 0, first };
        let claimed = Command::Claimed { partition, live, log, claim };
        self.commands.try_send(claimed).expect("room");
    }

    /// The positions that the next window accounts for, exclusive and inclusive.
    #[track_caller]
    fn window(&mut self) -> (i64, i64, Arc<AtomicBool>) {
        let work = self.windows.try_recv().expect("a window was handed over");
        let batch = work.window.close(Mode::Tail, 1, 1_000, 1 << 20).pop().expect("one");
        (batch.delta.from.0, batch.delta.to.0, work.live)
    }
}

fn change(id: u32) -> Record {
    let value = format!(
        r#"{{"before":null,"after":{{"id":{id},"name":"Ada L","first_name":null}},"source":{{"snapshot":"false","schema":"public","table":"users","txId":9,"lsn":{id},"ts_us":1}},"op":"c"}}"#
    );
    (Some(format!(r#"{{"id":{id}}}"#).into_bytes()), Some(value.into_bytes()))
}

fn tombstone(id: u32) -> Record {
    (Some(format!(r#"{{"id":{id}}}"#).into_bytes()), None)
}

fn mark_of(record: &Record) -> Mark {
    let partition = partition();
    let (key, value) = (record.0.as_deref(), record.1.as_deref());
    let raw = RawChange { partition: &partition, position: Position(0), key, value };
    Mark { lsn: None, digest: digest(&raw) }
}

#[test]
fn nothing_is_read_before_the_claim_and_all_behind_its_position_after() {
    let mut bench = Bench::new();
    bench.source.append(&partition(), (0..3).map(change));
    bench.source.assign(&partition());
    for _ in 0..3 {
        bench.turn();
    }
    assert!(bench.windows.is_empty());

    let request = bench.claims.try_recv().expect("a claim was asked for");
    bench.answer(request, 0, None);
    bench.turn();
    let (from, to, _) = bench.window();
    assert_eq!((from, to), (0, 2));
}

#[test]
fn the_record_at_the_stored_position_is_recognised_and_not_applied_again() {
    let mut bench = Bench::new();
    bench.source.append(&partition(), (0..3).map(change));
    bench.begin(1, Some(mark_of(&change(1))));
    let (from, to, _) = bench.window();
    assert_eq!((from, to), (1, 2));
}

#[test]
fn another_record_in_its_place_is_a_gap_and_nothing_is_applied() {
    let mut bench = Bench::new();
    bench.source.append(&partition(), (0..3).map(change));
    bench.begin(1, Some(mark_of(&change(99))));
    assert!(bench.windows.is_empty());
    let request = bench.claims.try_recv().expect("the partition is claimed anew");
    assert_eq!(request.found, Some(Gap::OtherRecord { position: 1 }));
}

#[test]
fn a_seek_back_voids_what_is_queued_and_reads_it_again() {
    let mut bench = Bench::new();
    bench.source.append(&partition(), (0..2).map(change));
    bench.begin(-1, None);
    let (_, to, live) = bench.window();
    assert_eq!(to, 1);
    assert!(live.load(Ordering::SeqCst));

    let back =
        || Command::SeekBack { partition: partition(), position: Position(-1), live: live.clone() };
    // Two windows of the same stretch may tell of the same loss.
    bench.commands.try_send(back()).expect("room");
    bench.commands.try_send(back()).expect("room");
    bench.turn();
    assert!(!live.load(Ordering::SeqCst), "a writer that still has it must drop it");
    let (from, to, live) = bench.window();
    assert_eq!((from, to), (-1, 1));
    assert!(live.load(Ordering::SeqCst));
}

#[test]
fn a_command_about_a_window_that_is_void_changes_nothing() {
    let mut bench = Bench::new();
    bench.source.append(&partition(), (0..2).map(change));
    bench.begin(-1, None);
    let (_, _, live) = bench.window();
    let command = Command::Fenced { partition: partition(), live: Arc::new(false.into()) };
    bench.commands.try_send(command).expect("room");
    bench.turn();
    assert!(live.load(Ordering::SeqCst));
}

#[test]
fn a_fenced_partition_is_left_alone_and_claimed_again_if_it_stays_ours() {
    let mut bench = Bench::new();
    bench.source.append(&partition(), (0..2).map(change));
    bench.begin(-1, None);
    let (_, _, live) = bench.window();
    let command = Command::Fenced { partition: partition(), live };
    bench.commands.try_send(command).expect("room");
    bench.source.append(&partition(), [change(3)]);
    for _ in 0..3 {
        bench.turn();
    }
    assert!(bench.windows.is_empty() && bench.claims.try_recv().is_err());

    bench.clock.advance(FENCED_FOR);
    bench.turn();
    bench.turn();
    assert!(bench.claims.try_recv().is_ok());
}

#[test]
fn a_revoked_partition_voids_its_windows() {
    let mut bench = Bench::new();
    bench.source.append(&partition(), (0..2).map(change));
    bench.begin(-1, None);
    let (_, _, live) = bench.window();
    bench.source.revoke(&partition());
    bench.turn();
    assert!(!live.load(Ordering::SeqCst));
}

#[test]
fn a_partition_that_the_database_does_not_take_is_paused_while_polling_goes_on() {
    let mut bench = Bench::new();
    bench.source.append(&partition(), (0..200).map(change));
    bench.begin(-1, None);
    for _ in 0..20 {
        bench.turn();
    }
    assert!(!bench.source.is_paused(&partition()), "a short wait is not worth a pause");

    bench.clock.advance(PATIENCE);
    bench.turn();
    assert!(bench.source.is_paused(&partition()));
    let polls = bench.source.polls();
    bench.turn();
    assert!(bench.source.polls() > polls, "the group must not think that we are gone");

    // The writer comes back: it takes the window that waits, then the one that was too full.
    let (_, first, _) = bench.window();
    bench.turn();
    let (from, _, _) = bench.window();
    assert_eq!(from, first);
    assert!(!bench.source.is_paused(&partition()));
}

#[test]
fn poison_is_parked_and_what_follows_is_applied() {
    let mut bench = Bench::new();
    let poison = (None, Some(b"{\"op\":".to_vec()));
    bench.source.append(&partition(), [poison, change(1)]);
    bench.begin(-1, None);
    let work = bench.windows.try_recv().expect("a window");
    let batch = work.window.close(Mode::Tail, 1, 1_000, 1 << 20).pop().expect("one");
    assert_eq!(batch.rows.len(), 1);
    let [letter] = &batch.dead[..] else { panic!("one dead letter") };
    assert_eq!((letter.position, letter.reason.as_str()), (Position(0), "not_json"));
}

#[test]
fn a_window_that_only_moves_the_position_waits_a_little_for_company() {
    let mut bench = Bench::new();
    bench.source.append(&partition(), [tombstone(1)]);
    bench.begin(-1, None);
    bench.turn();
    assert!(bench.windows.is_empty());
    bench.clock.advance(IDLE_PROGRESS);
    bench.turn();
    let (from, to, _) = bench.window();
    assert_eq!((from, to), (-1, 0));
}
