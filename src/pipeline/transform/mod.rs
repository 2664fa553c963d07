//! From a row's source values to its target values: pure, total, versioned.

mod split;

use std::fmt;

pub use split::Split;

use crate::config::settings::{Rule, TableSettings};
use crate::pg::ident::Ident;
use crate::pipeline::change::{ChangeEvent, Op};
use crate::pipeline::mutation::{Effect, Mutation};
use crate::table::{Projection, Table, Value};

/// Computes one target value from the source values of the same row.
///
/// Pure and total: the same sources always give the same value, on every machine and release that
/// has the same [`Transform::version`].
pub trait Transform: fmt::Debug + Send + Sync {
    /// The name in the config file.
    fn name(&self) -> &'static str;

    /// Raised whenever any input gives another output.
    fn version(&self) -> u32;

    /// `sources` are in the order of [`Projection::sources`]; never [`Value::Unknown`].
    fn compute(&self, sources: &[Value]) -> Value;
}

/// The transforms of one table, one a target.
#[derive(Debug)]
pub struct Mapping {
    /// How many of an event's values are sources.
    sources: usize,
    outputs: Vec<Box<dyn Transform>>,
}

/// The config names a column that the table lacks, or cannot serve as what it is named for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    #[error("table {table} has no column {column}")]
    NoColumn { table: String, column: Ident },
    #[error("table {table} has no column {column} to fill")]
    NoTarget { table: String, column: Ident },
    #[error("column {column} is a source and a target at once")]
    Both { column: Ident },
    #[error("column {column} is generated and cannot be {role}")]
    Generated { column: Ident, role: &'static str },
    #[error("column {column} is part of the key and cannot be a target")]
    KeyTarget { column: Ident },
}

impl MappingError {
    /// The statement that mends it, where there is one.
    pub fn fix(&self) -> Option<String> {
        match self {
            Self::NoTarget { table, column } => {
                Some(format!("ALTER TABLE {table} ADD COLUMN {column} text;"))
            }
            Self::NoColumn { .. }
            | Self::Both { .. }
            | Self::Generated { .. }
            | Self::KeyTarget { .. } => None,
        }
    }
}

impl Mapping {
    /// Resolves the rules of a table against its catalog entry.
    ///
    /// # Errors
    ///
    /// All of them at once, so that one start shows what one edit must mend.
    pub fn resolve(
        table: &std::sync::Arc<Table>,
        settings: &TableSettings,
    ) -> Result<(Projection, Self), Vec<MappingError>> {
        let mut errors = Vec::new();
        let mut sources = Vec::new();
        let mut targets = Vec::new();
        for (target, rule) in &settings.up {
            let Rule::Split { column: source, .. } = rule;
            match table.column(source.as_str()) {
                None => errors.push(no_column(table, source)),
                Some(index) if table.columns[index].generated => {
                    errors
                        .push(MappingError::Generated { column: source.clone(), role: "a source" });
                }
                Some(index) if sources.contains(&index) => {}
                Some(index) => sources.push(index),
            }
            match table.column(target.as_str()) {
                None => errors.push(MappingError::NoTarget {
                    table: table.to_string(),
                    column: target.clone(),
                }),
                Some(index) if table.columns[index].generated => {
                    errors
                        .push(MappingError::Generated { column: target.clone(), role: "a target" });
                }
                Some(index) if table.key.contains(&index) => {
                    errors.push(MappingError::KeyTarget { column: target.clone() });
                }
                Some(index) => targets.push(index),
            }
        }
        for target in &targets {
            if sources.contains(target) {
                errors.push(MappingError::Both { column: table.columns[*target].name.clone() });
            }
        }
        if !errors.is_empty() {
            errors.dedup();
            return Err(errors);
        }
        let place = |name: &Ident| {
            let index = table.column(name.as_str()).expect("resolved above");
            sources.iter().position(|source| *source == index).expect("resolved above")
        };
        let outputs = settings
            .up
            .iter()
            .map(|(_, rule)| match rule {
                Rule::Split { column, take } => {
                    Box::new(Split { source: place(column), take: *take }) as Box<dyn Transform>
                }
            })
            .collect();
        let mapping = Self { sources: sources.len(), outputs };
        Ok((Projection { table: table.clone(), sources, targets }, mapping))
    }

    /// Names and versions of the transforms, in the order of the targets: part of what a migration
    /// means, so that no release changes values half-way.
    pub fn versions(&self) -> String {
        let versions = self.outputs.iter().map(|one| format!("{}@{}", one.name(), one.version()));
        versions.collect::<Vec<_>>().join(",")
    }

    /// What an event asks for.
    ///
    /// An unknown source is read from the row; an unknown target only hides an echo.
    pub fn effect(&self, event: ChangeEvent) -> Effect {
        let ChangeEvent { op, key, mut values, .. } = event;
        match op {
            Op::Delete => return Effect::Gone { key },
            Op::Create | Op::Update | Op::Read => {}
        }
        let (seen, targets) = values.split_at(self.sources);
        if seen.iter().any(Value::is_unknown) {
            return Effect::Mutate(Mutation::Reread { key });
        }
        let computed = self.compute(seen);
        if computed.as_slice() == targets {
            return Effect::Echo { key };
        }
        values.truncate(self.sources);
        Effect::Mutate(Mutation::Fill { key, seen: values, values: computed })
    }

    /// The target values that follow from the sources.
    fn compute(&self, sources: &[Value]) -> Vec<Value> {
        self.outputs.iter().map(|output| output.compute(sources)).collect()
    }
}

fn no_column(table: &Table, column: &Ident) -> MappingError {
    MappingError::NoColumn { table: table.to_string(), column: column.clone() }
}
