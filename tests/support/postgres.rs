//! A blocking client, and a database with a role of least privilege for one test.

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::types::{FromSqlOwned, ToSql};
use tokio_postgres::{Client, Config, Error, NoTls, Row};

use super::scratch::unique;

/// One session. Blocking: a test reads from top to bottom, and threads make what is concurrent.
#[derive(Debug)]
pub(crate) struct Sql {
    runtime: Runtime,
    client: Client,
}

impl Sql {
    pub(crate) fn try_open(url: &str, application: &str) -> Result<Self, Error> {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut config: Config = url.parse()?;
        config.application_name(application);
        let (client, connection) = runtime.block_on(config.connect(NoTls))?;
        runtime.spawn(connection);
        Ok(Self { runtime, client })
    }

    #[track_caller]
    pub(crate) fn open(url: &str, application: &str) -> Self {
        match Self::try_open(url, application) {
            Ok(sql) => sql,
            Err(error) => panic!("could not connect to {url}: {}", text(&error)),
        }
    }

    pub(crate) fn try_run(&self, statements: &str) -> Result<(), Error> {
        self.runtime.block_on(self.client.batch_execute(statements))
    }

    #[track_caller]
    pub(crate) fn run(&self, statements: &str) {
        if let Err(error) = self.try_run(statements) {
            panic!("{}\n{statements}", text(&error));
        }
    }

    #[track_caller]
    pub(crate) fn rows(&self, query: &str, parameters: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
        match self.runtime.block_on(self.client.query(query, parameters)) {
            Ok(rows) => rows,
            Err(error) => panic!("{}\n{query}", text(&error)),
        }
    }

    /// The first column of the only row.
    #[track_caller]
    pub(crate) fn one<T: FromSqlOwned>(&self, query: &str) -> T {
        let rows = self.rows(query, &[]);
        assert_eq!(rows.len(), 1, "{query}");
        rows[0].get(0)
    }
}

/// A log sequence number as PostgreSQL writes it.
pub(crate) fn lsn(text: &str) -> u64 {
    let (high, low) = text.split_once('/').expect("an LSN has a slash");
    let part = |text| u64::from_str_radix(text, 16).expect("an LSN is hexadecimal");
    part(high) << 32 | part(low)
}

fn text(error: &Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned())
}

/// Where a server is, as its superuser sees it.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: Option<String>,
}

impl Server {
    pub(crate) fn of(url: &str) -> Self {
        use tokio_postgres::config::Host;
        let config: Config = url.parse().expect("a PostgreSQL URL");
        let host = match config.get_hosts() {
            [Host::Tcp(host)] => host.clone(),
            hosts => panic!("the tests need a host reached by TCP, not {hosts:?}"),
        };
        Self {
            host,
            port: config.get_ports().first().copied().unwrap_or(5432),
            user: config.get_user().unwrap_or("postgres").to_owned(),
            password: config.get_password().map(|p| String::from_utf8_lossy(p).into_owned()),
        }
    }

    pub(crate) fn url(&self, database: &str) -> String {
        let Self { host, port, user, password } = self;
        let password = password.as_ref().map(|p| format!(":{p}")).unwrap_or_default();
        format!("postgresql://{user}{password}@{host}:{port}/{database}")
    }
}

/// A database and the worker's role; both go at the end.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) server: Server,
    pub(crate) name: String,
    pub(crate) role: String,
    /// On a cluster of the test's own there is nothing to tidy up.
    throw_away: bool,
}

/// Some servers take passwords from everybody; a role without one could not log in there.
pub(crate) const PASSWORD: &str = "of-the-worker-s-role";

impl Database {
    pub(crate) fn create(server: Server, throw_away: bool) -> Self {
        let name = unique("it");
        let role = format!("{name}_worker");
        let admin = Sql::open(&server.url("postgres"), "tests");
        admin.run(&format!("CREATE DATABASE {name} TEMPLATE template0"));
        admin.run(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}' NOSUPERUSER NOBYPASSRLS NOREPLICATION
                 NOCREATEDB NOCREATEROLE;
             GRANT CREATE ON DATABASE {name} TO {role}"
        ));
        Self { server, name, role, throw_away }
    }

    pub(crate) fn url(&self) -> String {
        self.server.url(&self.name)
    }

    pub(crate) fn worker_url(&self) -> String {
        let Server { host, port, .. } = &self.server;
        format!("postgresql://{}:{PASSWORD}@{host}:{port}/{}", self.role, self.name)
    }

    /// The end of what has been written so far.
    #[track_caller]
    pub(crate) fn lsn(&self) -> u64 {
        lsn(&self.session("tests").one::<String>("SELECT pg_current_wal_insert_lsn()::text"))
    }

    #[track_caller]
    pub(crate) fn session(&self, application: &str) -> Sql {
        Sql::open(&self.url(), application)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.throw_away {
            return;
        }
        let Ok(admin) = Sql::try_open(&self.server.url("postgres"), "tests") else { return };
        for statement in [
            format!("DROP DATABASE {} WITH (FORCE)", self.name),
            format!("DROP ROLE {}", self.role),
        ] {
            if let Err(error) = admin.try_run(&statement) {
                eprintln!("{statement}: {}", text(&error));
            }
        }
    }
}
