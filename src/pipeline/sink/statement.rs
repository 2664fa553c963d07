//! The text of the statements: pure, and the only place where names become SQL.
//!
//! Values never become text here; they are parameters, one array a column, cast to the column's
//! [`cast`](crate::table::ColumnType::cast) type.

use crate::table::{Column, Equality, Projection, TypeKind};

/// Sets the targets where the sources still are what was seen and the targets differ.
///
/// Parameters: an array a key column, an array a source, an array a target.
pub(crate) fn update(projection: &Projection) -> String {
    let arrays = arrays(projection, projection.columns().count());
    let names = names(projection, "s", "d");
    let set = projection
        .target_columns()
        .enumerate()
        .map(|(index, column)| {
            format!("{} = {}", column.name, cast(column, &format!("v.d{index}")))
        })
        .collect::<Vec<_>>()
        .join(", ");
    let unchanged = projection
        .source_columns()
        .enumerate()
        .map(|(index, column)| same(column, &format!("v.s{index}")))
        .collect::<Vec<_>>()
        .join(" AND ");
    let already = projection
        .target_columns()
        .enumerate()
        .map(|(index, column)| same(column, &format!("v.d{index}")))
        .collect::<Vec<_>>()
        .join(" AND ");
    format!(
        "UPDATE {table} t SET {set}\n  FROM unnest({arrays}) AS v({names})\n WHERE {key}\n   AND \
         {unchanged}\n   AND NOT ({already})",
        table = projection.table,
        key = key(projection),
    )
}

/// The current sources and targets of rows, all as text, behind the place of their key in the arrays,
/// from 1: a key that comes back as text need not be the text that was sent.
///
/// Parameters: an array a key column.
pub(crate) fn current(projection: &Projection) -> String {
    let columns = projection
        .columns()
        .map(|column| format!("t.{}::text", column.name))
        .collect::<Vec<_>>()
        .join(", ");
    format!(
        "SELECT v.place, {columns}\n  FROM unnest({arrays}) WITH ORDINALITY AS v({names}, place)\n  JOIN {table} t ON {key}",
        arrays = arrays(projection, 0),
        names = key_names(projection),
        table = projection.table,
        key = key(projection),
    )
}

/// The array type in which a key column travels: binary where that is worth it.
pub(crate) fn key_array(column: &Column) -> &'static str {
    match column.ty.kind {
        TypeKind::Uuid => "uuid[]",
        TypeKind::Bool | TypeKind::Integer | TypeKind::Text | TypeKind::Other => "text[]",
    }
}

fn arrays(projection: &Projection, texts: usize) -> String {
    let keys = projection.table.key_columns().map(key_array);
    keys.chain(std::iter::repeat_n("text[]", texts))
        .enumerate()
        .map(|(index, ty)| format!("${}::{ty}", index + 1))
        .collect::<Vec<_>>()
        .join(", ")
}

fn key_names(projection: &Projection) -> String {
    (0..projection.table.key.len()).map(|index| format!("k{index}")).collect::<Vec<_>>().join(", ")
}

fn names(projection: &Projection, source: &str, target: &str) -> String {
    let sources = (0..projection.sources.len()).map(|index| format!("{source}{index}"));
    let targets = (0..projection.targets.len()).map(|index| format!("{target}{index}"));
    let values = sources.chain(targets).collect::<Vec<_>>().join(", ");
    format!("{}, {values}", key_names(projection))
}

fn key(projection: &Projection) -> String {
    projection
        .table
        .key_columns()
        .enumerate()
        .map(|(index, column)| {
            format!("t.{} = {}", column.name, cast(column, &format!("v.k{index}")))
        })
        .collect::<Vec<_>>()
        .join(" AND ")
}

/// Whether the row's column and the value are one representation; NULL equals NULL.
fn same(column: &Column, value: &str) -> String {
    let value = cast(column, value);
    match column.ty.equality {
        Equality::Operator => format!("t.{} IS NOT DISTINCT FROM {value}", column.name),
        Equality::Image => format!("ROW(t.{})::record *= ROW({value})::record", column.name),
    }
}

fn cast(column: &Column, value: &str) -> String {
    format!("{value}::{}", column.ty.cast)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::sample::{self, projection};

    fn column(name: &str, sql: &str, kind: TypeKind, equality: Equality) -> Column {
        let mut column = sample::column(name, kind);
        column.ty.sql = sql.into();
        column.ty.cast = sql.replace("(5)", "");
        column.ty.equality = equality;
        column
    }

    fn users() -> Projection {
        let text = |name| column(name, "text", TypeKind::Text, Equality::Operator);
        let id = column("id", "uuid", TypeKind::Uuid, Equality::Operator);
        projection(
            vec![id, text("name"), text("first_name"), text("last_name")],
            &[0],
            &[1],
            &[2, 3],
        )
    }

    #[test]
    fn the_running_example() {
        insta::assert_snapshot!(update(&users()), @r#"
        UPDATE "public"."users" t SET "first_name" = v.d0::text, "last_name" = v.d1::text
          FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) AS v(k0, s0, d0, d1)
         WHERE t."id" = v.k0::uuid
           AND t."name" IS NOT DISTINCT FROM v.s0::text
           AND NOT (t."first_name" IS NOT DISTINCT FROM v.d0::text AND t."last_name" IS NOT DISTINCT FROM v.d1::text)
        "#);
        insta::assert_snapshot!(current(&users()), @r#"
        SELECT v.place, t."name"::text, t."first_name"::text, t."last_name"::text
          FROM unnest($1::uuid[]) WITH ORDINALITY AS v(k0, place)
          JOIN "public"."users" t ON t."id" = v.k0::uuid
        "#);
    }

    #[test]
    fn composite_keys_lengths_weak_equality_and_hostile_names() {
        let projection = projection(
            vec![
                column("tenant", "bigint", TypeKind::Integer, Equality::Operator),
                column("i\"d; --", "text", TypeKind::Text, Equality::Operator),
                column("doc", "json", TypeKind::Other, Equality::Image),
                column("code", "character varying(5)", TypeKind::Text, Equality::Operator),
                column("amount", "numeric(10,2)", TypeKind::Other, Equality::Image),
            ],
            &[0, 1],
            &[2],
            &[3, 4],
        );
        insta::assert_snapshot!(update(&projection), @r#"
        UPDATE "public"."users" t SET "code" = v.d0::character varying, "amount" = v.d1::numeric(10,2)
          FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) AS v(k0, k1, s0, d0, d1)
         WHERE t."tenant" = v.k0::bigint AND t."i""d; --" = v.k1::text
           AND ROW(t."doc")::record *= ROW(v.s0::json)::record
           AND NOT (t."code" IS NOT DISTINCT FROM v.d0::character varying AND ROW(t."amount")::record *= ROW(v.d1::numeric(10,2))::record)
        "#);
    }
}
