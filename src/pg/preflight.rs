//! What must be true in the database before a worker starts, and the statement that makes it so.

use tokio_postgres::Client;

use crate::pg::connect::Code;
use crate::pg::ident::Ident;
use crate::table::{Projection, ReplicaIdentity, TypeKind};

/// Something that is missing, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub what: String,
    /// A statement to run, or words where no statement can.
    pub fix: String,
    pub weight: Weight,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// The worker would fail or, worse, do nothing.
    Stops,
    /// It can start now; this must follow.
    Warns,
}

/// What the database says of itself and the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub role: Ident,
    pub database: Ident,
    /// The state's schema is there, or the role may create it.
    pub may_keep_state: bool,
    pub wal_level: String,
    pub row_security: bool,
    /// The role may use the table's schema; without it no other right counts.
    pub schema_usable: bool,
    /// Columns, in the projection's order after the key, that the role may not read.
    pub unreadable: Vec<Ident>,
    /// Targets that the role may not update.
    pub unwritable: Vec<Ident>,
    /// The publication's columns of the table; `None` where it does not publish it.
    pub published: Option<Vec<String>>,
    pub publication_exists: bool,
    /// Whether the publication sends inserts, updates and deletes, and has no row filter.
    pub publishes_all: bool,
    pub slot_exists: bool,
    /// The table is a partitioned root.
    pub partitioned: bool,
    /// The publication sends the changes of its partitions as the root's.
    pub via_root: bool,
    /// As `server_version_num`.
    pub server_version: i32,
}

/// Reads the facts; one round trip each, none changes anything.
pub async fn facts(
    client: &Client,
    projection: &Projection,
    slot: &Ident,
    publication: &Ident,
) -> Result<Facts, Code> {
    let code = |error: tokio_postgres::Error| Code::of(&error);
    let table = &projection.table;
    let row = client
        .query_one(
            "SELECT current_user::text, current_setting('wal_level'), row_security_active($1::oid),
                    current_setting('server_version_num')::integer,
                    EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $2),
                    (SELECT relkind = 'p' FROM pg_class WHERE oid = $1),
                    current_database()::text,
                    to_regnamespace('crossfade') IS NOT NULL
                        OR has_database_privilege(current_database(), 'CREATE'),
                    has_schema_privilege($3::text, 'USAGE')",
            &[&table.oid, &slot.as_str(), &table.schema.as_str()],
        )
        .await
        .map_err(code)?;
    let name = |index| Ident::new(row.get(index)).map_err(|_| Code::Client);
    let may = |right: &'static str, columns: Vec<Ident>| async move {
        let mut missing = Vec::new();
        for column in columns {
            let row = client
                .query_one(
                    "SELECT has_column_privilege($1::oid, $2::text, $3::text)",
                    &[&table.oid, &column.as_str(), &right],
                )
                .await
                .map_err(code)?;
            if !row.get::<_, bool>(0) {
                missing.push(column);
            }
        }
        Ok::<_, Code>(missing)
    };
    let read = table.key_columns().chain(projection.columns()).map(|c| c.name.clone()).collect();
    let write = projection.target_columns().map(|c| c.name.clone()).collect();
    let unreadable = may("SELECT", read).await?;
    let unwritable = may("UPDATE", write).await?;
    let server_version: i32 = row.get(3);
    // Column lists and row filters came with 15.
    let details = if server_version >= 150_000 {
        "SELECT t.attnames::text[], t.rowfilter IS NOT NULL"
    } else {
        "SELECT NULL::text[], false"
    };
    let publishes = client
        .query_opt(
            "SELECT pubviaroot, pubinsert AND pubupdate AND pubdelete FROM pg_publication
              WHERE pubname = $1",
            &[&publication.as_str()],
        )
        .await
        .map_err(code)?;
    let published = client
        .query_opt(
            &format!(
                "{details} FROM pg_publication_tables t
                  WHERE t.pubname = $1 AND t.schemaname = $2 AND t.tablename = $3"
            ),
            &[&publication.as_str(), &table.schema.as_str(), &table.name.as_str()],
        )
        .await
        .map_err(code)?;
    let all = || table.columns.iter().map(|column| column.name.as_str().to_owned()).collect();
    Ok(Facts {
        role: name(0)?,
        database: name(6)?,
        may_keep_state: row.get(7),
        wal_level: row.get(1),
        row_security: row.get(2),
        schema_usable: row.get(8),
        unreadable,
        unwritable,
        publication_exists: publishes.is_some(),
        via_root: publishes.as_ref().is_none_or(|row| row.get(0)),
        publishes_all: publishes.is_none_or(|row| row.get(1))
            && published.as_ref().is_none_or(|row| !row.get::<_, bool>(1)),
        published: published.map(|row| row.get::<_, Option<Vec<String>>>(0).unwrap_or_else(all)),
        slot_exists: row.get(4),
        partitioned: row.get(5),
        server_version,
    })
}

/// What is missing, worst first. Pure.
pub fn judge(
    facts: &Facts,
    projection: &Projection,
    slot: &Ident,
    publication: &Ident,
) -> Vec<Finding> {
    let table = &projection.table;
    let mut findings = Vec::new();
    let mut find = |weight, what: String, fix: String| {
        findings.push(Finding { what, fix, weight });
    };
    let list =
        |names: &[Ident]| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if facts.server_version < 140_000 {
        find(
            Weight::Stops,
            format!("the server is PostgreSQL {}", facts.server_version / 10_000),
            "Upgrade it: 14 is the oldest that is supported.".into(),
        );
    }
    if facts.wal_level != "logical" {
        find(
            Weight::Stops,
            format!("wal_level is {}", facts.wal_level),
            "ALTER SYSTEM SET wal_level = 'logical';  -- then restart the server".into(),
        );
    }
    if !facts.may_keep_state {
        find(
            Weight::Stops,
            format!("role {} may not create the schema of the state tables", facts.role),
            format!("GRANT CREATE ON DATABASE {} TO {};", facts.database, facts.role),
        );
    }
    if !facts.schema_usable {
        find(
            Weight::Stops,
            format!("role {} may not use schema {}", facts.role, table.schema),
            format!("GRANT USAGE ON SCHEMA {} TO {};", table.schema, facts.role),
        );
    }
    if !facts.unreadable.is_empty() {
        find(
            Weight::Stops,
            format!("role {} may not read all columns of {table}", facts.role),
            format!("GRANT SELECT ({}) ON {table} TO {};", list(&facts.unreadable), facts.role),
        );
    }
    if !facts.unwritable.is_empty() {
        find(
            Weight::Stops,
            format!("role {} may not write all targets of {table}", facts.role),
            format!("GRANT UPDATE ({}) ON {table} TO {};", list(&facts.unwritable), facts.role),
        );
    }
    if facts.row_security {
        find(
            Weight::Stops,
            format!("row security hides rows of {table} from role {}", facts.role),
            format!("ALTER ROLE {} BYPASSRLS;", facts.role),
        );
    }
    for column in table.key_columns() {
        if column.ty.kind == TypeKind::Other {
            find(
                Weight::Stops,
                format!("key column {} has type {}", column.name, column.ty.sql),
                "Keys of integer, text, uuid and boolean types are supported.".into(),
            );
        }
    }
    if table.identity == ReplicaIdentity::Nothing {
        find(
            Weight::Stops,
            format!("{table} has no replica identity: updates and deletes are not streamed"),
            format!("ALTER TABLE {table} REPLICA IDENTITY DEFAULT;"),
        );
    }
    match &facts.published {
        None if facts.publication_exists => find(
            Weight::Stops,
            format!("publication {publication} does not publish {table}"),
            format!("ALTER PUBLICATION {publication} ADD TABLE {table};"),
        ),
        None => find(
            Weight::Stops,
            format!("there is no publication {publication}"),
            format!("CREATE PUBLICATION {publication} FOR TABLE {table};"),
        ),
        Some(columns) => {
            let needed = table.key_columns().chain(projection.columns());
            let missing: Vec<Ident> = needed
                .filter(|column| !columns.iter().any(|name| name == column.name.as_str()))
                .map(|column| column.name.clone())
                .collect();
            if !missing.is_empty() {
                find(
                    Weight::Stops,
                    format!("publication {publication} leaves out {}", list(&missing)),
                    // Not SET TABLE: that would take every other table out.
                    format!(
                        "ALTER PUBLICATION {publication} DROP TABLE {table}; \
                         ALTER PUBLICATION {publication} ADD TABLE {table};"
                    ),
                );
            }
        }
    }
    if facts.partitioned && !facts.via_root {
        find(
            Weight::Stops,
            format!(
                "publication {publication} sends changes of {table} as those of its partitions"
            ),
            format!("ALTER PUBLICATION {publication} SET (publish_via_partition_root = true);"),
        );
    }
    let sent = table.columns.iter().filter(|column| !column.generated).count();
    let narrow = facts.published.as_ref().is_some_and(|list| list.len() < sent);
    if table.identity == ReplicaIdentity::Full && narrow {
        find(
            Weight::Stops,
            format!("{table} has replica identity FULL and a column list: its UPDATEs fail"),
            format!("ALTER TABLE {table} REPLICA IDENTITY DEFAULT;"),
        );
    }
    if !facts.publishes_all {
        find(
            Weight::Stops,
            format!("publication {publication} filters rows or operations"),
            format!(
                "ALTER PUBLICATION {publication} SET (publish = 'insert, update, delete, truncate');  -- and drop its WHERE clause"
            ),
        );
    }
    if !facts.slot_exists {
        find(
            Weight::Warns,
            format!("there is no replication slot {slot}"),
            "Register the connector (config/debezium-users.json); it creates the slot. Until then no gate opens.".into(),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Table, sample};
    use std::sync::Arc;

    fn projection(identity: ReplicaIdentity) -> Projection {
        let columns = vec![
            sample::column("id", TypeKind::Uuid),
            sample::column("name", TypeKind::Text),
            sample::column("first_name", TypeKind::Text),
            sample::column("email", TypeKind::Text),
        ];
        let table = Table { identity, ..sample::users(columns, &[0]) };
        Projection { table: Arc::new(table), sources: vec![1], targets: vec![2] }
    }

    fn ready() -> Facts {
        Facts {
            role: Ident::new("worker").unwrap(),
            database: Ident::new("shop").unwrap(),
            may_keep_state: true,
            wal_level: "logical".into(),
            row_security: false,
            schema_usable: true,
            unreadable: Vec::new(),
            unwritable: Vec::new(),
            published: Some(["id", "name", "first_name", "email"].map(String::from).into()),
            publication_exists: true,
            publishes_all: true,
            slot_exists: true,
            partitioned: false,
            via_root: false,
            server_version: 150_018,
        }
    }

    /// The fixes for a database that is ready but for `change`.
    #[track_caller]
    fn check(identity: ReplicaIdentity, change: impl FnOnce(&mut Facts), expected: &[&str]) {
        let mut facts = ready();
        change(&mut facts);
        let name = Ident::new("p").unwrap();
        let found = judge(&facts, &projection(identity), &Ident::new("s").unwrap(), &name);
        let fixes: Vec<_> = found.iter().map(|finding| finding.fix.as_str()).collect();
        assert_eq!(fixes, expected);
    }

    #[test]
    fn a_database_that_is_ready_has_no_findings() {
        check(ReplicaIdentity::Default, |_| {}, &[]);
    }

    #[test]
    fn each_finding_names_the_statement_that_mends_it() {
        let column = |name| vec![Ident::new(name).unwrap()];
        let default = ReplicaIdentity::Default;
        check(
            default,
            |facts| facts.may_keep_state = false,
            &[r#"GRANT CREATE ON DATABASE "shop" TO "worker";"#],
        );
        check(
            default,
            |facts| facts.unreadable = column("name"),
            &[r#"GRANT SELECT ("name") ON "public"."users" TO "worker";"#],
        );
        check(
            default,
            |facts| facts.unwritable = column("first_name"),
            &[r#"GRANT UPDATE ("first_name") ON "public"."users" TO "worker";"#],
        );
        check(
            default,
            |facts| facts.schema_usable = false,
            &[r#"GRANT USAGE ON SCHEMA "public" TO "worker";"#],
        );
        check(default, |facts| facts.row_security = true, &[r#"ALTER ROLE "worker" BYPASSRLS;"#]);
        check(
            default,
            |facts| facts.published = None,
            &[r#"ALTER PUBLICATION "p" ADD TABLE "public"."users";"#],
        );
        check(
            default,
            |facts| (facts.published, facts.publication_exists) = (None, false),
            &[r#"CREATE PUBLICATION "p" FOR TABLE "public"."users";"#],
        );
        check(
            default,
            |facts| facts.published = Some(vec!["id".into(), "name".into()]),
            &[concat!(
                r#"ALTER PUBLICATION "p" DROP TABLE "public"."users"; "#,
                r#"ALTER PUBLICATION "p" ADD TABLE "public"."users";"#
            )],
        );
        check(
            default,
            |facts| facts.partitioned = true,
            &[r#"ALTER PUBLICATION "p" SET (publish_via_partition_root = true);"#],
        );
        check(
            ReplicaIdentity::Nothing,
            |_| {},
            &[r#"ALTER TABLE "public"."users" REPLICA IDENTITY DEFAULT;"#],
        );
        let three = || Some(["id", "name", "first_name"].map(String::from).into());
        check(
            ReplicaIdentity::Full,
            |facts| facts.published = three(),
            &[r#"ALTER TABLE "public"."users" REPLICA IDENTITY DEFAULT;"#],
        );
        check(default, |facts| facts.published = three(), &[]);
    }
}
