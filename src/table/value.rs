//! A column's value as the pipeline carries it.

use std::fmt;

use compact_str::CompactString;

/// A value in PostgreSQL's text form.
///
/// `Debug` never prints the text: it ends up in logs, and row values do not belong there.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Value {
    Null,
    Text(CompactString),
    /// The event does not say: an unchanged out-of-line value, a filler, or an encoding that loses
    /// something. Never written, never compared: the row is read instead.
    Unknown,
}

impl Value {
    pub fn text(text: impl Into<CompactString>) -> Self {
        Self::Text(text.into())
    }

    /// The text, or `None` for SQL NULL.
    ///
    /// # Panics
    ///
    /// On `Unknown`: whoever gets here would have turned a missing value into data.
    pub fn known(&self) -> Option<&str> {
        match self {
            Self::Null => None,
            Self::Text(text) => Some(text),
            Self::Unknown => panic!("an unknown value was about to become data"),
        }
    }

    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Unknown => f.write_str("Unknown"),
        }
    }
}
