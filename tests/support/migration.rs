//! One migration under test: database, topic, connector, and workers with a config of their own.

use super::connector::Connector;
use super::postgres::{Database, Server};
use super::scratch::{Scratch, unique};
use super::stack::stack;
use super::topic::Topic;
use super::users::{self, Users};
use super::worker::{Config, Worker};

#[derive(Debug)]
pub(crate) struct Migration {
    /// Of the migration, its group, publication, slot, connector and topic prefix.
    pub(crate) name: String,
    pub(crate) users: Users,
    pub(crate) topic: Topic,
    // Dropped in this order: a slot must go before its database.
    pub(crate) connector: Option<Connector>,
    pub(crate) database: Database,
    pub(crate) scratch: Scratch,
}

impl Migration {
    pub(crate) fn on_the_stack(partitions: i32) -> Self {
        Self::on(Server::of(&stack().pg_url), false, partitions)
    }

    /// On a cluster that ends with the test.
    pub(crate) fn on_own(server: &Server, partitions: i32) -> Self {
        Self::on(server.clone(), true, partitions)
    }

    fn on(server: Server, throw_away: bool, partitions: i32) -> Self {
        let name = unique("cf");
        let database = Database::create(server, throw_away);
        users::create(&database, &name);
        let users = Users { sql: database.session("application") };
        let topic = Topic::create(format!("{name}.public.users"), partitions);
        let scratch = Scratch::new(&name);
        Self { name, users, topic, connector: None, database, scratch }
    }

    pub(crate) fn connect(&mut self) {
        self.connect_with(&[]);
    }

    pub(crate) fn connect_with(&mut self, settings: &[(&str, &str)]) {
        let (database, partitions) = (&self.database, self.topic.partitions);
        self.connector = Some(Connector::register(&self.name, database, partitions, settings));
    }

    /// A new session of the application.
    #[track_caller]
    pub(crate) fn application(&self) -> super::postgres::Sql {
        self.database.session("application")
    }

    pub(crate) fn config(&self) -> Config {
        Config::of(self)
    }

    #[track_caller]
    pub(crate) fn worker(&self) -> Worker {
        self.config().start()
    }
}
