//! Why a record could not be decoded.

use crate::pg::ident::Ident;
use crate::pipeline::envelope::json::JsonError;

/// Why a record says nothing that could be used. `Display` never holds a part of the record: it may
/// be a row's value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// `offset` is the byte, counted from zero, at which no JSON document could go on.
    #[error("record is not JSON from byte {offset} on")]
    NotJson { offset: usize },
    #[error("record is not UTF-8 from byte {offset} on")]
    NotUtf8 { offset: usize },
    #[error("record nests deeper than {} levels at byte {offset}", super::json::MAX_DEPTH)]
    TooDeep { offset: usize },
    /// Two members of one name: which of them counts, no standard says.
    #[error("record has a member twice, again before byte {offset}")]
    Twice { offset: usize },
    /// JSON, but neither a change event nor one of the records that Debezium writes beside them.
    #[error("record is not a change event")]
    NotAnEvent,
    /// `op` is shown only if it is one letter, else as `?`.
    #[error("operation '{op}' is unknown")]
    UnknownOp { op: char },
    #[error("event of operation '{op}' has no image of the row")]
    MissingImage { op: char },
    #[error("member \"{member}\" of the event's source block is missing or of another kind")]
    Source { member: &'static str },
    #[error("event has no value for key column {column}")]
    MissingKey { column: Ident },
    /// The message key was needed, since the event lacks key columns.
    #[error("message key is not JSON, and the event has no value for key column {column}")]
    KeyNotJson { column: Ident },
    #[error("key column {column} has a type whose JSON form is not exact")]
    KeyType { column: Ident },
    #[error("column {column} was expected as {expected} and came as {found}")]
    WrongKind { column: Ident, expected: &'static str, found: &'static str },
    /// A NUL character or half a surrogate pair: no PostgreSQL text holds them.
    #[error("text of column {column} holds what PostgreSQL cannot")]
    NotText { column: Ident },
}

impl DecodeError {
    /// The reason as the dead-letter table keeps it: the same in every release.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotJson { .. } => "not_json",
            Self::NotUtf8 { .. } => "not_utf8",
            Self::TooDeep { .. } => "too_deep",
            Self::Twice { .. } => "duplicate_member",
            Self::NotAnEvent => "not_an_event",
            Self::UnknownOp { .. } => "unknown_op",
            Self::MissingImage { .. } => "missing_image",
            Self::Source { .. } => "bad_source",
            Self::MissingKey { .. } => "missing_key",
            Self::KeyNotJson { .. } => "key_not_json",
            Self::KeyType { .. } => "unsupported_key",
            Self::WrongKind { .. } => "wrong_kind",
            Self::NotText { .. } => "not_text",
        }
    }

    /// What an operator can do, when there is something to do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotJson { .. } | Self::NotUtf8 { .. } => Some(
                "Is the connector's value.converter the JsonConverter? Avro and Protobuf are not JSON.",
            ),
            Self::NotAnEvent => Some(
                "Flattened records (ExtractNewRecordState) and CloudEvents are not read: remove the \
                 transform from the connector.",
            ),
            Self::KeyNotJson { .. } => Some(
                "Let the value carry the primary key, or set key.converter to the JsonConverter.",
            ),
            Self::MissingKey { .. } => {
                Some("Take the primary key into the connector's column.include.list.")
            }
            Self::TooDeep { .. }
            | Self::Twice { .. }
            | Self::UnknownOp { .. }
            | Self::MissingImage { .. }
            | Self::Source { .. }
            | Self::KeyType { .. }
            | Self::WrongKind { .. }
            | Self::NotText { .. } => None,
        }
    }
}

impl From<JsonError> for DecodeError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Malformed { at } => Self::NotJson { offset: at },
            JsonError::TooDeep { at } => Self::TooDeep { offset: at },
        }
    }
}
