use std::collections::VecDeque;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::ops::status::tests::sample;
use crate::pipeline::progress::WorkerState;

const PAGE: &str = include_str!("../../../docs/http.md");

/// Gives prepared answers in order and keeps what it was asked; with none left it never answers.
#[derive(Debug, Default)]
struct FakeGate {
    answers: Mutex<VecDeque<GateAnswer>>,
    asked: Mutex<Vec<GateAsk>>,
}

impl Gate for FakeGate {
    fn defaults(&self) -> GateAsk {
        GateAsk {
            max_lag: Duration::from_secs(5),
            stable: Duration::from_secs(10),
            wait: Duration::ZERO,
        }
    }

    fn evaluate(&self, ask: GateAsk) -> BoxFuture<'_, GateAnswer> {
        self.asked.lock().unwrap().push(ask);
        let answer = self.answers.lock().unwrap().pop_front();
        Box::pin(async move {
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        })
    }
}

/// A server on a port of its own, with everything that feeds it.
struct World {
    address: SocketAddr,
    clock: Clock,
    progress: watch::Sender<Progress>,
    gate: Arc<FakeGate>,
    shutdown: Shutdown,
    server: JoinHandle<Result<(), HttpError>>,
}

impl World {
    async fn start(answers: impl IntoIterator<Item = GateAnswer>) -> Self {
        let clock = Clock::manual();
        let (progress, receiver) = watch::channel(sample(&clock));
        let gate = Arc::new(FakeGate::default());
        gate.answers.lock().unwrap().extend(answers);
        let about = About { migration: "users-name-split".into(), version: "0.1.0" };
        let exporter = Exporter::new().expect("the table is valid");
        let surface = Surface::new(about, receiver, clock.clone(), exporter)
            .with_gate("caught-up", gate.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let server = tokio::spawn(serve(listener, Arc::new(surface), shutdown.requested()));
        Self { address, clock, progress, gate, shutdown, server }
    }

    async fn get(&self, target: &str) -> Answer {
        get(self.address, target).await
    }

    async fn send(&self, head: &str) -> Answer {
        send(self.address, head).await
    }
}

async fn get(address: SocketAddr, target: &str) -> Answer {
    send(address, &format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n")).await
}

/// Sends a request line and headers, and reads to the end of the connection.
async fn send(address: SocketAddr, head: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{head}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    Answer { head: head.to_owned(), body: body.to_owned() }
}

#[derive(Debug)]
struct Answer {
    head: String,
    body: String,
}

impl Answer {
    fn status(&self) -> &str {
        let line = self.head.lines().next().expect("a status line");
        line.split_once(' ').expect("a version and a status").1
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// The limits of the page's question, which every answer repeats.
fn limited(answer: GateAnswer) -> GateAnswer {
    answer.with("max_lag_seconds", 5.0).with("stable_seconds", 10.0)
}

fn open() -> GateAnswer {
    let reason = "everything committed before 0/77C39D0 is applied and durable";
    limited(GateAnswer {
        evidence: Some("caught up as of 0/77C39D0".into()),
        ..GateAnswer::new(Verdict::Open, reason)
    })
    .with("held_seconds", 12.5)
    .with("worst_lag_seconds", 1.5)
}

fn holding() -> GateAnswer {
    limited(GateAnswer {
        retry_after: Some(Duration::from_secs(5)),
        ..GateAnswer::new(Verdict::Holding, "caught up, 6.5 s to hold")
    })
    .with("held_seconds", 3.5)
    .with("remaining_seconds", 6.5)
    .with("worst_lag_seconds", 1.5)
}

fn no_go() -> GateAnswer {
    limited(GateAnswer::new(Verdict::NoGo, "1 unresolved dead letter(s)"))
}

#[tokio::test]
async fn answers_as_the_page_shows() {
    let world = World::start([open(), holding(), no_go()]).await;
    let mut shown = 0;
    let mut fences = PAGE.split("```").skip(1).step_by(2).peekable();
    while let Some(fence) = fences.next() {
        let Some(exchange) = fence.strip_prefix("http\n") else { continue };
        let mut lines = exchange.lines();
        let target = lines.next().and_then(|line| line.strip_prefix("GET ")).expect("a request");
        let answer = world.get(target).await;

        let mut head = lines.skip_while(|line| line.is_empty());
        assert_eq!(Some(answer.status()), head.next(), "{target}");
        for header in head.filter(|line| !line.is_empty()) {
            let (name, value) = header.split_once(": ").expect("a header");
            assert_eq!(answer.header(name), Some(value), "{name} of {target}");
        }
        if let Some(body) = fences.next_if(|fence| fence.starts_with("json\n")) {
            let expected: Value = serde_json::from_str(&body["json\n".len()..]).expect("JSON");
            assert_eq!(answer.json(), expected, "{target}");
        } else if let Some(body) = fences.next_if(|fence| fence.starts_with("text\n")) {
            for line in body["text\n".len()..].lines() {
                assert!(answer.body.contains(line), "{line} in {}", answer.body);
            }
        }
        shown += 1;
    }
    assert!(shown > Route::ALL.len(), "the page shows {shown} exchanges");
}

#[test]
fn the_page_has_a_section_for_each_route() {
    let sections: Vec<&str> =
        PAGE.lines().filter_map(|line| line.strip_prefix("## GET ")).collect();
    assert_eq!(sections, Route::ALL.map(Route::path));
}

#[tokio::test]
async fn a_question_overrides_the_defaults_and_waits_a_minute_at_most() {
    let world = World::start([open(), open(), open()]).await;

    for query in ["", "?max_lag=250ms&stable=2m&wait=30s", "?wait=1h"] {
        assert_eq!(world.get(&format!("/v1/gates/caught-up{query}")).await.status(), "200 OK");
    }

    let ask = |max_lag, stable, wait| GateAsk {
        max_lag: Duration::from_millis(max_lag),
        stable: Duration::from_secs(stable),
        wait: Duration::from_secs(wait),
    };
    let asked = world.gate.asked.lock().unwrap().clone();
    assert_eq!(asked, [ask(5000, 10, 0), ask(250, 120, 30), ask(5000, 10, 60)]);
}

#[tokio::test]
async fn a_bad_question_is_refused_before_the_gate_is_asked() {
    let world = World::start([]).await;
    for (query, complaint) in [
        ("max_lag=5", "parameter \"max_lag\" is not a time"),
        ("max_lag=", "is not a time"),
        ("wait=-1s", "is not a time"),
        ("wait=1.5s", "is not a time"),
        ("wait=99999999999999999999h", "is not a time"),
        ("wait=9999999999999999h", "is not a time"),
        ("stable=5d", "is not a time"),
        ("maxlag=5s", "unknown parameter \"maxlag\": there are max_lag, stable and wait"),
        ("wait=1s&wait=2s", "parameter \"wait\" is given twice"),
    ] {
        let answer = world.get(&format!("/v1/gates/caught-up?{query}")).await;
        assert_eq!(answer.status(), "400 Bad Request", "{query}");
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(complaint), "{query}: {error}");
    }
    assert!(world.gate.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn lists_what_there_is_when_asked_for_what_there_is_not() {
    let world = World::start([]).await;

    let answer = world.get("/v1/gates/parity").await;
    assert_eq!(answer.status(), "404 Not Found");
    assert_eq!(answer.json(), json!({ "error": "no such gate", "gates": ["caught-up"] }));

    let answer = world.get("/v2/status").await;
    assert_eq!(answer.status(), "404 Not Found");
    assert_eq!(answer.json()["paths"], json!(Route::ALL.map(Route::path)));
}

#[tokio::test]
async fn answers_nothing_but_get() {
    let world = World::start([]).await;
    let head = format!("POST /v1/status HTTP/1.1\r\nHost: {}\r\n", world.address);
    let answer = world.send(&head).await;
    assert_eq!(answer.status(), "405 Method Not Allowed");
    assert_eq!(answer.header("allow"), Some("GET,HEAD"));
}

#[tokio::test]
async fn answers_only_those_who_ask_this_machine_by_a_local_name() {
    let world = World::start([]).await;
    for (head, expected) in [
        ("GET /livez HTTP/1.1\r\nHost: localhost\r\n", "200 OK"),
        ("GET /livez HTTP/1.1\r\nHost: LOCALHOST:8787\r\n", "200 OK"),
        ("GET /livez HTTP/1.1\r\nHost: 127.8.9.1\r\n", "200 OK"),
        ("GET /livez HTTP/1.1\r\nHost: [::1]:80\r\n", "200 OK"),
        ("GET http://localhost/livez HTTP/1.1\r\nHost: localhost\r\n", "200 OK"),
        ("GET /livez HTTP/1.1\r\nHost: evil.example\r\n", "403 Forbidden"),
        ("GET /livez HTTP/1.1\r\nHost: localhost.evil.example\r\n", "403 Forbidden"),
        ("GET /livez HTTP/1.1\r\nHost: localhost:evil\r\n", "403 Forbidden"),
        ("GET /livez HTTP/1.1\r\nHost: [::1]evil\r\n", "403 Forbidden"),
        ("GET /livez HTTP/1.1\r\nHost: [::1\r\n", "403 Forbidden"),
        ("GET /livez HTTP/1.1\r\nHost: me@localhost\r\n", "403 Forbidden"),
        ("GET /livez HTTP/1.1\r\nHost: 10.0.0.1\r\n", "403 Forbidden"),
        ("GET /livez HTTP/1.1\r\nHost:\r\n", "403 Forbidden"),
        ("GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n", "403 Forbidden"),
        ("GET http://evil.example/livez HTTP/1.1\r\nHost: localhost\r\n", "403 Forbidden"),
        ("GET /nothing HTTP/1.1\r\nHost: evil.example\r\n", "403 Forbidden"),
        ("GET /livez HTTP/1.0\r\n", "403 Forbidden"),
    ] {
        assert_eq!(world.send(head).await.status(), expected, "{head}");
    }
}

#[tokio::test]
async fn probes_fail_when_a_restart_or_a_wait_would_help() {
    let world = World::start([]).await;
    check_probes(&world, "200 OK", "200 OK").await;

    // The database is down: not ready, and no reason to be restarted.
    world.clock.advance(Duration::from_secs(3600));
    check_probes(&world, "200 OK", "503 Service Unavailable").await;

    world.progress.send_modify(|progress| progress.sampled = Some(world.clock.now()));
    check_probes(&world, "200 OK", "200 OK").await;

    world.progress.send_modify(|progress| progress.state = WorkerState::Failed);
    check_probes(&world, "503 Service Unavailable", "503 Service Unavailable").await;
}

#[tokio::test]
async fn does_not_outlive_a_worker_that_vanished() {
    let World { address, progress, .. } = World::start([]).await;
    drop(progress);

    assert_eq!(get(address, "/livez").await.status(), "503 Service Unavailable");
    assert_eq!(get(address, "/v1/status").await.status(), "200 OK", "its last words are kept");
}

async fn check_probes(world: &World, live: &str, ready: &str) {
    assert_eq!(world.get("/livez").await.status(), live);
    assert_eq!(world.get("/healthz").await.status(), live);
    assert_eq!(world.get("/readyz").await.status(), ready);
}

#[tokio::test]
async fn a_stop_ends_the_questions_that_wait_and_closes_their_gate() {
    // GIVEN a question whose gate never answers
    let mut world = World::start([]).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let request = "GET /v1/gates/caught-up?wait=60s HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    while world.gate.asked.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }

    // WHEN the worker stops
    world.shutdown.request(Cause::Program);

    // THEN it is answered, and the server ends
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 202 Accepted"), "{text}");
    assert!(text.contains("\"closed\"") && text.contains("stopping"), "{text}");
    (&mut world.server).await.unwrap().unwrap();
}

#[tokio::test]
async fn questions_at_once_are_limited() {
    // GIVEN as many questions as there may be
    let world = World::start([]).await;
    let mut waiting = Vec::new();
    for _ in 0..MAX_QUESTIONS {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        let request = "GET /v1/gates/caught-up?wait=60s HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        waiting.push(stream);
    }
    while world.gate.asked.lock().unwrap().len() < MAX_QUESTIONS {
        tokio::task::yield_now().await;
    }

    // WHEN one more is asked
    let answer = world.get("/v1/gates/caught-up").await;

    // THEN it is told to come again, and everything else still answers
    assert_eq!(answer.status(), "202 Accepted");
    assert_eq!(answer.header("retry-after"), Some("5"));
    assert_eq!(world.get("/livez").await.status(), "200 OK");
}

#[tokio::test]
async fn refuses_to_listen_where_others_can_ask() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let clock = Clock::manual();
    let (_sender, receiver) = watch::channel(sample(&clock));
    let exporter = Exporter::new().expect("the table is valid");
    let surface = Surface::new(About::new("users-name-split"), receiver, clock, exporter);

    let ended = serve(listener, Arc::new(surface), std::future::pending()).await;

    assert!(matches!(ended, Err(HttpError::NotLoopback(_))), "{ended:?}");
}
