//! The servers that all tests share, and the supervisor that keeps any set of servers alive.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use super::scratch::unique;

const NAMES: [&str; 3] = ["CROSSFADE_PG_URL", "CROSSFADE_KAFKA_BROKERS", "CROSSFADE_CONNECT_URL"];

/// Addresses, never clients: a client belongs to one test.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) pg_url: String,
    pub(crate) brokers: String,
    pub(crate) connect_url: String,
    /// Its standard input keeps the servers alive; it closes when this process ends in any way.
    _servers: Option<Supervisor>,
}

/// The shared servers, started when first asked for.
pub(crate) fn stack() -> &'static Stack {
    static STACK: OnceLock<Stack> = OnceLock::new();
    STACK.get_or_init(|| {
        let given: Vec<String> = NAMES.iter().filter_map(|name| std::env::var(name).ok()).collect();
        if let Ok([pg_url, brokers, connect_url]) = <[String; 3]>::try_from(given) {
            return Stack { pg_url, brokers, connect_url, _servers: None };
        }
        let servers = Supervisor::start("all", &[]);
        let [pg_url, brokers, connect_url] = NAMES.map(|name| servers.env[name].clone());
        Stack { pg_url, brokers, connect_url, _servers: Some(servers) }
    })
}

/// A running `stack run`.
#[derive(Debug)]
pub(crate) struct Supervisor {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    dir: PathBuf,
    env: HashMap<String, String>,
}

impl Supervisor {
    /// Starts `parts`; variables in `without` are hidden from it.
    pub(crate) fn start(parts: &str, without: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("loadtest/stack/stack");
        let dir = std::env::temp_dir().join(unique("crossfade_it"));
        let log = dir.with_extension("log");
        let mut command = Command::new(&script);
        command
            .args(["run", "--with", parts, "--dir"])
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).expect("the temporary folder can be written"));
        for name in without {
            command.env_remove(name);
        }
        let mut child = command.spawn().expect("loadtest/stack/stack can be run");
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().expect("piped above"));
        let mut line = String::new();
        let _ = output.read_line(&mut line);
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let _ = std::fs::remove_file(&log);
        assert_eq!(
            line.trim_end(),
            "ready",
            "these tests need PostgreSQL, Kafka and Kafka Connect, and none is skipped without them.\n\
             Run: loadtest/stack/stack install\n\
             or name servers in {}.\n{said}",
            NAMES.join(", "),
        );
        let env = std::fs::read_to_string(dir.join("env")).expect("written before it is ready");
        let env = env
            .lines()
            .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.replace('\\', "")))
            .collect();
        Self { child, input, output, dir, env }
    }

    pub(crate) fn env(&self, name: &str) -> &str {
        &self.env[name]
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// `kill`, `stop` or `start` and a part.
    pub(crate) fn order(&mut self, order: &str) {
        let input = self.input.as_mut().expect("open until dropped");
        writeln!(input, "{order}").expect("the supervisor runs");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("the supervisor answers");
        assert_eq!(answer.trim_end(), "ok", "{order}");
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
