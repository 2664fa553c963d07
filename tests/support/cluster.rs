//! A PostgreSQL of a test's own: to restart, crash and break.

use super::postgres::{Server, Sql};
use super::stack::Supervisor;

/// Gone with the test, or with this process.
#[derive(Debug)]
pub(crate) struct Cluster {
    supervisor: Supervisor,
    pub(crate) server: Server,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let supervisor = Supervisor::start("postgres", &["CROSSFADE_PG_URL", "CROSSFADE_PG_PORT"]);
        let server = Server::of(supervisor.env("CROSSFADE_PG_URL"));
        Self { supervisor, server }
    }

    #[track_caller]
    pub(crate) fn session(&self) -> Sql {
        Sql::open(&self.server.url("postgres"), "tests")
    }

    /// `ALTER SYSTEM`, and makes the server read it.
    #[track_caller]
    pub(crate) fn set(&self, setting: &str) {
        self.session().run(&format!("ALTER SYSTEM {setting}"));
        self.session().run("SELECT pg_reload_conf()");
    }

    /// As after a power cut: what was not flushed is gone.
    pub(crate) fn crash(&mut self) {
        self.supervisor.order("kill postgres");
    }

    /// A fast shutdown: sessions are told to go.
    pub(crate) fn stop(&mut self) {
        self.supervisor.order("stop postgres");
    }

    pub(crate) fn start_again(&mut self) {
        self.supervisor.order("start postgres");
    }

    pub(crate) fn dir(&self) -> &std::path::Path {
        self.supervisor.dir()
    }
}
