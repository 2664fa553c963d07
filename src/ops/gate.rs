//! What a gate is to those who ask it over HTTP: a question with limits, an answer with numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Serialize;

/// Answers whether a migration may go on. It decides nothing about data by being asked.
pub trait Gate: Send + Sync + fmt::Debug {
    /// What the gate asks when the caller sets nothing: the settings' limits and no wait.
    fn defaults(&self) -> GateAsk;

    /// Answers as soon as the gate is open or can never be, else when `ask.wait` has passed.
    ///
    /// May be dropped at any time. Fails closed: what it cannot see, it answers with
    /// [`Verdict::Closed`].
    fn evaluate(&self, ask: GateAsk) -> BoxFuture<'_, GateAnswer>;
}

/// The limits of one question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateAsk {
    /// The largest lag at which the gate may open.
    pub max_lag: Duration,
    /// How long the lag must have stayed under it.
    pub stable: Duration,
    /// How long to wait for the gate to open before answering that it has not.
    pub wait: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Open,
    /// Within the limits, but not yet for long enough.
    Holding,
    /// Over a limit, or blind.
    Closed,
    /// Waiting does not help: a person or a sweep must act first.
    NoGo,
}

/// A verdict and what it rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct GateAnswer {
    pub verdict: Verdict,
    /// One sentence for a person: what it waits for, the value and the limit. No row values.
    pub reason: String,
    /// Each figure by a name that carries its unit.
    pub numbers: BTreeMap<&'static str, f64>,
    /// The stored evidence of an open gate: its id or its text.
    pub evidence: Option<String>,
    /// When it may be worth asking again.
    pub retry_after: Option<Duration>,
}

impl GateAnswer {
    /// A verdict with a reason and no figures.
    pub fn new(verdict: Verdict, reason: impl Into<String>) -> Self {
        Self {
            verdict,
            reason: reason.into(),
            numbers: BTreeMap::new(),
            evidence: None,
            retry_after: None,
        }
    }

    /// Adds a figure; `name` carries the unit.
    pub fn with(mut self, name: &'static str, value: f64) -> Self {
        self.numbers.insert(name, value);
        self
    }
}
