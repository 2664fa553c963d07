//! Identifiers that are quoted by construction.

use std::fmt;
use std::sync::Arc;

/// The longest identifier that PostgreSQL keeps, in bytes (`NAMEDATALEN - 1`); longer ones would be
/// cut in silence and could then name something else.
pub const MAX_BYTES: usize = 63;

/// The name of a database object, as the catalog spells it.
///
/// `Display` is the quoted form, safe in any SQL text: double quotes around it, those inside
/// doubled. There is no unquoted way into a statement; [`Ident::as_str`] is for comparison and for
/// messages.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ident(Arc<str>);

/// Why a text cannot be an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentError {
    #[error("an identifier is empty")]
    Empty,
    #[error("identifier \"{start}…\" has {bytes} bytes, PostgreSQL keeps {MAX_BYTES}")]
    TooLong { start: String, bytes: usize },
    #[error("an identifier contains a NUL byte")]
    Nul,
}

impl Ident {
    /// Takes the name as the catalog or a person spells it, without quotes; case matters.
    ///
    /// # Errors
    ///
    /// When PostgreSQL could not hold the name as it stands.
    pub fn new(name: &str) -> Result<Self, IdentError> {
        if name.is_empty() {
            return Err(IdentError::Empty);
        }
        if name.contains('\0') {
            return Err(IdentError::Nul);
        }
        if name.len() > MAX_BYTES {
            let start = name.chars().take(16).collect();
            return Err(IdentError::TooLong { start, bytes: name.len() });
        }
        Ok(Self(name.into()))
    }

    /// The bare name, for comparisons and messages; never for SQL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

impl fmt::Debug for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_and_doubles_the_quotes_inside() {
        let name = Ident::new(r#"a"; DROP TABLE users; --"#).unwrap();
        assert_eq!(name.to_string(), r#""a""; DROP TABLE users; --""#);
    }

    #[test]
    fn refuses_what_postgresql_could_not_hold() {
        assert_eq!(Ident::new(""), Err(IdentError::Empty));
        assert_eq!(Ident::new("a\0b"), Err(IdentError::Nul));
        assert!(matches!(Ident::new(&"x".repeat(64)), Err(IdentError::TooLong { bytes: 64, .. })));
        assert!(Ident::new(&"x".repeat(63)).is_ok());
    }

    proptest! {
        #[test]
        fn a_quoted_name_ends_only_at_its_own_last_quote(name in "[^\0]{1,15}") {
            let quoted = Ident::new(&name).unwrap().to_string();
            let inside = &quoted[1..quoted.len() - 1];
            prop_assert_eq!(inside.replace("\"\"", "\u{1}").matches('"').count(), 0);
            prop_assert_eq!(inside.replace("\"\"", "\""), name);
        }
    }
}
