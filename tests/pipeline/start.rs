//! What a worker checks before it does anything.

use crate::support::migration::Migration;
use crate::support::wait::seconds;
use crate::support::worker::Config;

#[test]
fn whatever_the_database_lacks_stops_the_start_with_the_statement_that_mends_it() {
    let migration = Migration::on_the_stack(1);
    let (role, name) = (&migration.database.role, &migration.name);
    // What is broken, and how the statement begins that mends it.
    let broken = [
        (
            format!("REVOKE CREATE ON DATABASE {} FROM {role}", migration.database.name),
            "GRANT CREATE ON DATABASE",
        ),
        (format!("REVOKE SELECT (name) ON users FROM {role}"), "GRANT SELECT (\"name\")"),
        (format!("REVOKE UPDATE (last_name) ON users FROM {role}"), "GRANT UPDATE (\"last_name\")"),
        ("ALTER TABLE users DROP COLUMN last_name".into(), "ALTER TABLE"),
        (format!("DROP PUBLICATION {name}"), "CREATE PUBLICATION"),
        (format!("ALTER PUBLICATION {name} DROP TABLE users"), "ALTER PUBLICATION"),
        (format!("ALTER PUBLICATION {name} SET TABLE users (id, name)"), "ALTER PUBLICATION"),
        (format!("ALTER PUBLICATION {name} SET (publish = 'insert')"), "ALTER PUBLICATION"),
        ("ALTER TABLE users REPLICA IDENTITY NOTHING".into(), "ALTER TABLE"),
        ("ALTER TABLE users ENABLE ROW LEVEL SECURITY".into(), "ALTER ROLE"),
    ];
    for (breaks, mends) in broken {
        // GIVEN a database that lacks one thing
        migration.users.sql.run(&breaks);

        // WHEN a worker starts
        let statements = refusal(&migration.config());

        // THEN it says how to mend it, and what it says is true
        assert!(statements.iter().any(|one| one.starts_with(mends)), "{breaks}: {statements:?}");
        mend(&migration, statements);
        let config = migration.config();
        if breaks.contains("DROP COLUMN") {
            // A new column has no grants yet.
            mend(&migration, refusal(&config));
        }
        config.start().stop();
    }
}

fn mend(migration: &Migration, statements: Vec<String>) {
    statements.iter().for_each(|statement| migration.users.sql.run(statement));
}

/// Starts a worker that must refuse, and returns the statements that it asks for.
#[track_caller]
fn refusal(config: &Config) -> Vec<String> {
    let log = refused(config);
    let statement =
        |line: &&str| ["GRANT ", "ALTER ", "CREATE "].iter().any(|verb| line.starts_with(verb));
    let statements: Vec<_> =
        log.lines().map(str::trim).filter(statement).map(String::from).collect();
    assert!(!statements.is_empty(), "no statement in\n{log}");
    statements
}

/// Starts a worker that must end with status 1, and returns what it said.
#[track_caller]
fn refused(config: &Config) -> String {
    let mut worker = config.spawn();
    let status = worker.ended(seconds(20));
    let log = worker.log();
    assert_eq!(status.code(), Some(1), "{log}");
    log
}

#[test]
fn state_of_a_newer_binary_is_refused_and_so_is_another_transform_under_the_same_name() {
    // GIVEN a migration that has begun
    let migration = Migration::on_the_stack(1);
    migration.worker().stop();

    // WHEN it comes to mean another thing
    let mut config = migration.config();
    config.up = config.up.replace("\"rest\"", "\"last\"");
    assert!(config.up.contains("\"last\""));

    // THEN a worker refuses to mix the two
    let log = refused(&config);
    assert!(log.contains("was started with another meaning"), "{log}");
    migration.worker().stop();

    // AND another name makes it another migration
    config.name.push_str("_again");
    config.start().stop();

    // WHEN a newer binary has been here, THEN this one refuses
    migration.users.sql.run("INSERT INTO crossfade.version VALUES (99)");
    let log = refused(&migration.config());
    assert!(log.contains("has version 99"), "{log}");
    migration.users.sql.run("DELETE FROM crossfade.version WHERE number = 99");
    migration.worker().stop();
}
