//! The table `users`, its history, and what must be true of both.

use super::postgres::{Database, Sql};

/// Stands in every name, so that a log that holds a row value is recognised.
pub(crate) const CANARY: &str = "Zyxwv";

/// Independent of the product: PostgreSQL's own regular expressions.
const FIRST: &str = r"substring(name from '^\s*(\S+)')";
const REST: &str =
    r"nullif(regexp_replace(regexp_replace(name, '^\s*\S*\s*', ''), '\s+$', ''), '')";

/// Every kind of name, told by a number.
pub(crate) const NAME: &str = r"CASE i % 8
    WHEN 0 THEN NULL
    WHEN 1 THEN E' \t '
    WHEN 2 THEN 'Zyxwv' || i
    WHEN 3 THEN '  Zyxwv' || i || '  de  la Öresund '
    WHEN 4 THEN E'Zyxwv\tTab' || i
    ELSE 'Zyxwv' || i || ' Łukasz' || i
  END";

/// Tables, history trigger, publication and the worker's rights, all named after the migration.
pub(crate) fn create(database: &Database, publication: &str) {
    let role = &database.role;
    database.session("tests").run(&format!(
        "CREATE TABLE users (
             id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text, email text,
             updated_at timestamptz NOT NULL DEFAULT now(), first_name text, last_name text);
         CREATE TABLE users_history (
             n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, op text NOT NULL, id uuid NOT NULL,
             old_name text, new_name text, first_name text, last_name text, application text);
         CREATE FUNCTION users_history() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
             SET search_path = public AS $$
         BEGIN
             -- A row that changes its key ends and begins.
             IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND NEW.id <> OLD.id THEN
                 INSERT INTO users_history (op, id, old_name, application)
                 VALUES ('D', OLD.id, OLD.name, current_setting('application_name'));
             END IF;
             IF TG_OP <> 'DELETE' THEN
                 INSERT INTO users_history (op, id, old_name, new_name, first_name, last_name, application)
                 VALUES (left(TG_OP, 1), NEW.id, CASE WHEN TG_OP = 'UPDATE' THEN OLD.name END, NEW.name,
                         NEW.first_name, NEW.last_name, current_setting('application_name'));
             END IF;
             RETURN NULL;
         END $$;
         CREATE TRIGGER users_history AFTER INSERT OR UPDATE OR DELETE ON users
             FOR EACH ROW EXECUTE FUNCTION users_history();
         CREATE PUBLICATION {publication} FOR TABLE users;
         GRANT SELECT (id, name, first_name, last_name), UPDATE (first_name, last_name)
             ON users TO {role};"
    ));
}

/// What a test asks of the table.
#[derive(Debug)]
pub(crate) struct Users {
    pub(crate) sql: Sql,
}

impl Users {
    pub(crate) fn load(&self, rows: u32) {
        self.sql.run(&format!(
            "INSERT INTO users (name, email) SELECT {NAME}, i || '@example' FROM generate_series(1, {rows}) i"
        ));
    }

    pub(crate) fn count(&self) -> i64 {
        self.sql.one("SELECT count(*) FROM users")
    }

    /// Rows whose targets do not follow from their name.
    pub(crate) fn wrong(&self) -> i64 {
        self.sql.one(&format!(
            "SELECT count(*) FROM users WHERE (first_name, last_name) IS DISTINCT FROM ({FIRST}, {REST})"
        ))
    }

    /// Every row, compared by SQL of its own.
    #[track_caller]
    pub(crate) fn assert_converged(&self) {
        let wrong = self.sql.rows(
            &format!(
                "SELECT format('%s: %L gave %L, %L', id, name, first_name, last_name) FROM users
                  WHERE (first_name, last_name) IS DISTINCT FROM ({FIRST}, {REST})
                  ORDER BY id LIMIT 10"
            ),
            &[],
        );
        let wrong: Vec<String> = wrong.iter().map(|row| row.get(0)).collect();
        let (all, amiss) = (self.count(), self.wrong());
        assert!(wrong.is_empty(), "{amiss} of {all} rows are wrong:\n{}", wrong.join("\n"));
    }

    /// No version of a row that the worker wrote holds targets of another name, and it never wrote a
    /// name.
    #[track_caller]
    pub(crate) fn assert_no_stale_history(&self) {
        let stale: i64 = self.sql.one(&format!(
            "SELECT count(*) FROM (SELECT *, new_name AS name FROM users_history) h
              WHERE application LIKE 'crossfade%'
                AND (op <> 'U' OR old_name IS DISTINCT FROM name
                     OR (first_name, last_name) IS DISTINCT FROM ({FIRST}, {REST}))"
        ));
        assert_eq!(stale, 0, "row versions that the worker wrote are stale");
    }

    /// Versions that the worker wrote.
    pub(crate) fn worker_writes(&self) -> i64 {
        self.sql.one("SELECT count(*) FROM users_history WHERE application LIKE 'crossfade%'")
    }

    /// The most versions that the worker wrote between two changes of one row by others.
    pub(crate) fn most_writes_a_change(&self) -> i64 {
        self.sql.one(
            "SELECT coalesce(max(writes), 0) FROM (
                 SELECT count(*) FILTER (WHERE application LIKE 'crossfade%') AS writes FROM (
                     SELECT id, application, count(*) FILTER (WHERE application NOT LIKE 'crossfade%')
                                OVER (PARTITION BY id ORDER BY n) AS change
                       FROM users_history) h
                  GROUP BY id, change) w",
        )
    }
}
