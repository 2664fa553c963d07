//! The HTTP side for probes, scripts and orchestrators: read-only, on loopback.
//!
//! There is no token, so there is nothing to send that changes anything, and nobody else may ask:
//! the listener must be on a loopback address, and a request must name one as its host. Without the
//! second check a page in the operator's browser could read everything through a name of its own
//! that resolves to 127.0.0.1 (DNS rebinding).
//!
//! Every route stands in [`Route`]; `docs/http.md` shows each with an answer, and a test replays it.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::clock::Clock;
use crate::ops::gate::{Gate, GateAnswer, GateAsk, Verdict};
use crate::ops::metrics::Exporter;
use crate::ops::shutdown::{Cause, Shutdown};
use crate::ops::status::{self, About, Probe, Status, Watchdog};
use crate::pipeline::progress::{Progress, WorkerState};

/// The longest `wait`: below the patience of the proxies and clients in common use.
pub const MAX_WAIT: Duration = Duration::from_secs(60);

/// How far a gate may overrun its `wait` before the answer is given without it.
const GATE_OVERRUN: Duration = Duration::from_secs(10);

/// Questions to gates that may be open at once; each may hold a database connection.
const MAX_QUESTIONS: usize = 16;

/// When to ask again if the gate has no opinion.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How long a stop waits for the answers under way.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// The server could not go on.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("address \"{0}\" is not a loopback address, and this server has no authentication")]
    NotLoopback(SocketAddr),
    #[error("could not serve HTTP")]
    Serve(#[source] io::Error),
}

/// What the routes answer from.
#[derive(Debug)]
pub struct Surface {
    about: About,
    progress: watch::Receiver<Progress>,
    clock: Clock,
    exporter: Exporter,
    gates: BTreeMap<&'static str, Arc<dyn Gate>>,
    watchdog: Mutex<Watchdog>,
    questions: Semaphore,
    stopping: Shutdown,
}

impl Surface {
    pub fn new(
        about: About,
        progress: watch::Receiver<Progress>,
        clock: Clock,
        exporter: Exporter,
    ) -> Self {
        Self {
            about,
            progress,
            clock,
            exporter,
            gates: BTreeMap::new(),
            watchdog: Mutex::default(),
            questions: Semaphore::new(MAX_QUESTIONS),
            stopping: Shutdown::new(),
        }
    }

    /// Answers `/v1/gates/{name}` with `gate`; a second gate of the same name replaces the first.
    pub fn with_gate(mut self, name: &'static str, gate: Arc<dyn Gate>) -> Self {
        self.gates.insert(name, gate);
        self
    }
}

/// Serves until `shutdown`, then for at most two seconds more.
///
/// # Errors
///
/// [`HttpError::NotLoopback`] before the first request if the listener is reachable from elsewhere.
pub async fn serve(
    listener: TcpListener,
    surface: Arc<Surface>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), HttpError> {
    let address = listener.local_addr().map_err(HttpError::Serve)?;
    if !address.ip().is_loopback() {
        return Err(HttpError::NotLoopback(address));
    }
    tracing::info!(%address, "serving http");
    let stopping = surface.stopping.clone();
    let late = stopping.requested();
    let server = axum::serve(listener, router(surface)).with_graceful_shutdown(async move {
        shutdown.await;
        // Ends the questions that wait for a gate; without it they would hold the stop for a minute.
        stopping.request(Cause::Program);
    });
    tokio::select! {
        ended = server.into_future() => ended.map_err(HttpError::Serve),
        () = async { late.await; sleep(STOP_WITHIN).await } => Ok(()),
    }
}

/// Every route; all answer to GET alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Livez,
    Healthz,
    Readyz,
    Metrics,
    Status,
    Gate,
}

impl Route {
    /// In the order of `docs/http.md`.
    pub const ALL: [Self; 6] =
        [Self::Livez, Self::Healthz, Self::Readyz, Self::Metrics, Self::Status, Self::Gate];

    pub fn path(self) -> &'static str {
        match self {
            Self::Livez => "/livez",
            Self::Healthz => "/healthz",
            Self::Readyz => "/readyz",
            Self::Metrics => "/metrics",
            Self::Status => "/v1/status",
            Self::Gate => "/v1/gates/{name}",
        }
    }

    fn answer(self) -> MethodRouter<Arc<Surface>> {
        match self {
            Self::Livez | Self::Healthz => get(livez),
            Self::Readyz => get(readyz),
            Self::Metrics => get(metrics),
            Self::Status => get(status),
            Self::Gate => get(gate),
        }
    }
}

fn router(surface: Arc<Surface>) -> Router {
    Route::ALL
        .into_iter()
        .fold(Router::new(), |router, route| router.route(route.path(), route.answer()))
        .fallback(no_such_path)
        .method_not_allowed_fallback(read_only)
        .layer(middleware::from_fn(only_local_hosts))
        .with_state(surface)
}

async fn only_local_hosts(request: Request, next: Next) -> Response {
    if !names_local_host(request.headers(), request.uri()) {
        let problem = Problem::new("only requests to localhost are answered: set the Host header");
        return (StatusCode::FORBIDDEN, Json(problem)).into_response();
    }
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whether every host that the request names is this machine, and it names exactly one in its
/// headers.
fn names_local_host(headers: &HeaderMap, uri: &Uri) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let named = host.to_str().is_ok_and(is_local_authority);
    named && uri.authority().is_none_or(|authority| is_local_authority(authority.as_str()))
}

/// `localhost` or a loopback address, with or without a port.
fn is_local_authority(authority: &str) -> bool {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            Some((host, rest)) => (host, rest),
            None => return false,
        },
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port =
        rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    let local = host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    port && local
}

async fn livez(State(surface): State<Arc<Surface>>) -> Response {
    let now = surface.clock.now();
    let gone = surface.progress.has_changed().is_err();
    let progress = surface.progress.borrow();
    if gone && progress.state != WorkerState::Stopped {
        return probe(Probe::Fail("the worker ended without saying so: see the log"));
    }
    let mut watchdog = surface.watchdog.lock().unwrap_or_else(PoisonError::into_inner);
    probe(watchdog.observe(&progress, now))
}

async fn readyz(State(surface): State<Arc<Surface>>) -> Response {
    probe(status::readiness(&surface.progress.borrow(), surface.clock.now()))
}

fn probe(probe: Probe) -> Response {
    #[derive(Serialize)]
    struct Body {
        ok: bool,
        reason: &'static str,
    }
    match probe {
        Probe::Pass(reason) => Json(Body { ok: true, reason }).into_response(),
        Probe::Fail(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(Body { ok: false, reason })).into_response()
        }
    }
}

async fn metrics(State(surface): State<Arc<Surface>>) -> Response {
    let text = surface.exporter.render(&surface.progress.borrow(), surface.clock.now());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn status(State(surface): State<Arc<Surface>>) -> Response {
    let progress = surface.progress.borrow();
    Json(Status::of(&surface.about, &progress, surface.clock.now())).into_response()
}

async fn gate(
    State(surface): State<Arc<Surface>>,
    Path(name): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    let Some((&name, gate)) = surface.gates.get_key_value(name.as_str()) else {
        let problem = Problem {
            error: "no such gate".to_owned(),
            gates: Some(surface.gates.keys().copied().collect()),
            paths: None,
        };
        return (StatusCode::NOT_FOUND, Json(problem)).into_response();
    };
    let ask = match parse_ask(gate.defaults(), &query) {
        Ok(ask) => ask,
        Err(error) => {
            return (StatusCode::BAD_REQUEST, Json(Problem::new(error))).into_response();
        }
    };
    respond(name, &ask_gate(&surface, gate.as_ref(), ask).await)
}

/// Asks within bounds; whatever keeps the gate from answering leaves it closed.
async fn ask_gate(surface: &Surface, gate: &dyn Gate, ask: GateAsk) -> GateAnswer {
    let Ok(_question) = surface.questions.try_acquire() else {
        return GateAnswer::new(Verdict::Closed, "too many questions wait for gates already");
    };
    tokio::select! {
        answer = timeout(ask.wait + GATE_OVERRUN, gate.evaluate(ask)) => {
            answer.unwrap_or_else(|_| {
                GateAnswer::new(Verdict::Closed, "the gate did not answer in time")
            })
        }
        () = surface.stopping.requested() => {
            GateAnswer::new(Verdict::Closed, "the worker is stopping")
        }
    }
}

fn respond(name: &str, answer: &GateAnswer) -> Response {
    #[derive(Serialize)]
    struct Body<'a> {
        gate: &'a str,
        verdict: Verdict,
        reason: &'a str,
        numbers: &'a BTreeMap<&'static str, f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        evidence: Option<&'a str>,
    }
    let body = Json(Body {
        gate: name,
        verdict: answer.verdict,
        reason: &answer.reason,
        numbers: &answer.numbers,
        evidence: answer.evidence.as_deref(),
    });
    match answer.verdict {
        Verdict::Open => body.into_response(),
        Verdict::Holding | Verdict::Closed => {
            let after = answer.retry_after.unwrap_or(RETRY_AFTER);
            let seconds = after.as_millis().div_ceil(1000).max(1).to_string();
            (StatusCode::ACCEPTED, [(header::RETRY_AFTER, seconds)], body).into_response()
        }
        Verdict::NoGo => (StatusCode::UNPROCESSABLE_ENTITY, body).into_response(),
    }
}

/// The gate's defaults, overridden by the query. `wait` is cut to [`MAX_WAIT`].
fn parse_ask(defaults: GateAsk, query: &[(String, String)]) -> Result<GateAsk, String> {
    let mut ask = defaults;
    for (index, (key, value)) in query.iter().enumerate() {
        if query[..index].iter().any(|(earlier, _)| earlier == key) {
            return Err(format!("parameter \"{key}\" is given twice"));
        }
        let field = match key.as_str() {
            "max_lag" => &mut ask.max_lag,
            "stable" => &mut ask.stable,
            "wait" => &mut ask.wait,
            _ => {
                return Err(format!(
                    "unknown parameter \"{key}\": there are max_lag, stable and wait"
                ));
            }
        };
        *field = parse_duration(value).ok_or_else(|| {
            format!("parameter \"{key}\" is not a time: write a whole number and ms, s, m or h")
        })?;
    }
    ask.wait = ask.wait.min(MAX_WAIT);
    Ok(ask)
}

/// Reads `250ms`, `5s`, `2m` or `1h`.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    // A year is more than any gate holds, and keeps sums of times in range.
    number
        .checked_mul(millis)
        .filter(|millis| *millis <= 365 * 24 * 3_600_000)
        .map(Duration::from_millis)
}

async fn no_such_path() -> Response {
    let problem = Problem {
        error: "no such path".to_owned(),
        gates: None,
        paths: Some(Route::ALL.map(Route::path).to_vec()),
    };
    (StatusCode::NOT_FOUND, Json(problem)).into_response()
}

async fn read_only() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, Json(Problem::new("only GET is answered"))).into_response()
}

/// The body of everything that is neither a state nor a verdict.
#[derive(Debug, Serialize)]
struct Problem {
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gates: Option<Vec<&'static str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paths: Option<Vec<&'static str>>,
}

impl Problem {
    fn new(error: impl Into<String>) -> Self {
        Self { error: error.into(), gates: None, paths: None }
    }
}

#[cfg(test)]
mod tests;
