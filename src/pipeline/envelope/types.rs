//! From the JSON form of a column to PostgreSQL's text form.

use std::borrow::Cow;

use crate::pipeline::envelope::json::{Kind, Token};
use crate::table::TypeKind;

/// What an event says of a column.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wire<'a> {
    Null,
    Text(Cow<'a, str>),
    /// Something, in a form that is not exact.
    Inexact,
}

/// Why an event's value is not one of the column's type.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    Kind {
        expected: &'static str,
        found: &'static str,
    },
    /// A NUL character or half a surrogate pair.
    NotText,
}

/// Reads a value of a type.
///
/// Booleans become `true` and `false`, as a cast to text prints them. Integers keep their digits:
/// they never pass through a float. A uuid becomes lower case, as PostgreSQL prints it.
pub(super) fn read(kind: TypeKind, token: Token, document: &str) -> Result<Wire<'_>, Mismatch> {
    let mismatch = |expected| Err(Mismatch::Kind { expected, found: token.kind.words() });
    let string = || {
        let text = token.string(document).ok_or(Mismatch::NotText)?;
        // A NUL is a control character: JSON has it only escaped.
        if token.kind == Kind::EscapedText && text.contains('\0') {
            return Err(Mismatch::NotText);
        }
        Ok(text)
    };
    let text = match (kind, token.kind) {
        // Not even null is: it also stands for values that the connector could not convert.
        (TypeKind::Other, _) => return Ok(Wire::Inexact),
        (_, Kind::Null) => return Ok(Wire::Null),
        (TypeKind::Bool, Kind::True) => "true".into(),
        (TypeKind::Bool, Kind::False) => "false".into(),
        (TypeKind::Bool, _) => return mismatch("a boolean"),
        (TypeKind::Integer, Kind::Integer) => {
            let digits = token.raw(document);
            if digits.parse::<i64>().is_err() || digits == "-0" {
                return mismatch("an integer of 64 bits");
            }
            digits.into()
        }
        (TypeKind::Integer, _) => return mismatch("an integer"),
        (TypeKind::Text, Kind::Text | Kind::EscapedText) => string()?,
        (TypeKind::Text, _) => return mismatch("a string"),
        (TypeKind::Uuid, Kind::Text | Kind::EscapedText) => match uuid(string()?) {
            Some(text) => text,
            None => return mismatch("a uuid"),
        },
        (TypeKind::Uuid, _) => return mismatch("a uuid"),
    };
    Ok(Wire::Text(text))
}

/// The form `7b0c6f0e-5e9e-4a55-9d6e-3f1f1f6f0001`.
fn uuid(text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    let bytes: &[u8; 36] = text.as_bytes().try_into().ok()?;
    let mut upper = false;
    for (index, byte) in bytes.iter().enumerate() {
        match (index, byte) {
            (8 | 13 | 18 | 23, b'-') => {}
            (8 | 13 | 18 | 23, _) => return None,
            (_, b'0'..=b'9' | b'a'..=b'f') => {}
            (_, b'A'..=b'F') => upper = true,
            _ => return None,
        }
    }
    Some(if upper { text.to_ascii_lowercase().into() } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::envelope::json::Scanner;

    #[track_caller]
    fn check(kind: TypeKind, json: &str, expected: &str) {
        let token = Scanner::new(json).value().unwrap();
        let got = match read(kind, token, json) {
            Ok(Wire::Null) => "NULL".into(),
            Ok(Wire::Inexact) => "inexact".into(),
            Ok(Wire::Text(text)) => format!("={text}"),
            Err(Mismatch::Kind { expected, found }) => format!("{found} is not {expected}"),
            Err(Mismatch::NotText) => "not text".into(),
        };
        assert_eq!(got, expected, "{json}");
    }

    #[test]
    fn integers_keep_their_digits() {
        check(TypeKind::Integer, "9007199254740993", "=9007199254740993");
        check(TypeKind::Integer, "-9223372036854775808", "=-9223372036854775808");
        check(TypeKind::Integer, "9223372036854775807", "=9223372036854775807");
        check(TypeKind::Integer, "0", "=0");
        check(TypeKind::Integer, "9223372036854775808", "an integer is not an integer of 64 bits");
        check(TypeKind::Integer, "-0", "an integer is not an integer of 64 bits");
        check(TypeKind::Integer, "1.0", "a number that is no integer is not an integer");
        check(TypeKind::Integer, "1e3", "a number that is no integer is not an integer");
        check(TypeKind::Integer, "\"1\"", "a string is not an integer");
        check(TypeKind::Integer, "null", "NULL");
    }

    #[test]
    fn booleans_read_as_a_cast_to_text_prints_them() {
        check(TypeKind::Bool, "true", "=true");
        check(TypeKind::Bool, "false", "=false");
        check(TypeKind::Bool, "null", "NULL");
        check(TypeKind::Bool, "1", "an integer is not a boolean");
        check(TypeKind::Bool, "\"true\"", "a string is not a boolean");
    }

    #[test]
    fn texts_are_taken_as_they_are() {
        check(TypeKind::Text, r#""""#, "=");
        check(TypeKind::Text, r#""Ada  ""#, "=Ada  ");
        check(TypeKind::Text, r#""a\"b\nc\u00e9""#, "=a\"b\ncé");
        check(TypeKind::Text, r#""null""#, "=null");
        check(TypeKind::Text, "null", "NULL");
        check(TypeKind::Text, "7", "an integer is not a string");
        check(TypeKind::Text, "{}", "an object is not a string");
    }

    #[test]
    fn refuses_characters_that_no_text_column_holds() {
        check(TypeKind::Text, r#""a\u0000b""#, "not text");
        check(TypeKind::Text, r#""\ud800""#, "not text");
    }

    #[test]
    fn a_uuid_is_checked_and_comes_out_in_lower_case() {
        let lower = "=7b0c6f0e-5e9e-4a55-9d6e-3f1f1f6f0001";
        check(TypeKind::Uuid, r#""7b0c6f0e-5e9e-4a55-9d6e-3f1f1f6f0001""#, lower);
        check(TypeKind::Uuid, r#""7B0C6F0E-5e9e-4a55-9d6e-3f1f1f6f0001""#, lower);
        check(TypeKind::Uuid, r#""\u0037b0c6f0e-5e9e-4a55-9d6e-3f1f1f6f0001""#, lower);
        check(TypeKind::Uuid, r#""""#, "a string is not a uuid");
        check(
            TypeKind::Uuid,
            r#""7b0c6f0e05e9e-4a55-9d6e-3f1f1f6f0001""#,
            "a string is not a uuid",
        );
        check(
            TypeKind::Uuid,
            r#""7b0c6f0e-5e9e-4a55-9d6e-3f1f1f6f000é""#,
            "a string is not a uuid",
        );
        check(TypeKind::Uuid, "7", "an integer is not a uuid");
    }

    #[test]
    fn every_other_type_is_left_to_the_table() {
        for json in ["1", "\"MDk=\"", "{\"scale\":4,\"value\":\"AYr3\"}", "[1]", "true", "null"] {
            check(TypeKind::Other, json, "inexact");
        }
    }
}
