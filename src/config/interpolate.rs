//! `${VAR}` and `${VAR:default}` in string values.
//!
//! It works on values, after the TOML is read: whatever a variable holds, it cannot add keys or end
//! a string. `${{x}}` gives the literal `${x}`. A default reaches to the next `}` and counts when
//! the variable is not set; one that is set to nothing is nothing.

use std::ops::Range;

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part<'t> {
    Literal(&'t str),
    /// The inside of `${{…}}`.
    Escaped(&'t str),
    Variable {
        name: &'t str,
        default: Option<&'t str>,
        /// The whole `${…}`, in bytes of the text.
        at: Range<usize>,
    },
}

/// A `${` that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Malformed {
    pub(super) at: Range<usize>,
    pub(super) why: &'static str,
}

/// Splits a text at its variables.
pub(super) fn parts(text: &str) -> Result<Vec<Part<'_>>, Malformed> {
    let mut parts = Vec::new();
    let mut from = 0;
    while let Some(found) = text[from..].find("${") {
        let start = from + found;
        if found > 0 {
            parts.push(Part::Literal(&text[from..start]));
        }
        let inside = start + 2;
        let open = Malformed { at: start..text.len(), why: "this `${` has no `}`" };
        if text[inside..].starts_with('{') {
            let length = text[inside + 1..].find("}}").ok_or(open)?;
            parts.push(Part::Escaped(&text[inside + 1..inside + 1 + length]));
            from = inside + length + 3;
            continue;
        }
        let length = text[inside..].find('}').ok_or(open)?;
        let at = start..inside + length + 1;
        let body = &text[inside..inside + length];
        let (name, default) = match body.split_once(':') {
            Some((name, default)) => (name, Some(default)),
            None => (body, None),
        };
        if !is_name(name) {
            let why = "a variable's name has letters, digits and `_`, and starts with no digit";
            return Err(Malformed { at, why });
        }
        from = at.end;
        parts.push(Part::Variable { name, default, at });
    }
    if from < text.len() {
        parts.push(Part::Literal(&text[from..]));
    }
    Ok(parts)
}

/// Joins parts; `value` gives what stands for a variable.
pub(super) fn join<'t>(
    parts: &[Part<'t>],
    mut value: impl FnMut(&'t str, Option<&'t str>) -> String,
) -> String {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Literal(literal) => text.push_str(literal),
            Part::Escaped(inside) => {
                text.push_str("${");
                text.push_str(inside);
                text.push('}');
            }
            Part::Variable { name, default, .. } => text.push_str(&value(name, *default)),
        }
    }
    text
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fill(text: &str) -> Result<String, &'static str> {
        let parts = parts(text).map_err(|malformed| malformed.why)?;
        Ok(join(&parts, |name, default| match name {
            "HOST" => "db".to_owned(),
            "NOTHING" => String::new(),
            "DOLLAR" => "${HOST}".to_owned(),
            _ => default.unwrap_or("?").to_owned(),
        }))
    }

    #[test]
    fn fills_variables_and_defaults() {
        assert_eq!(fill("no variable: $5 {x}").unwrap(), "no variable: $5 {x}");
        assert_eq!(fill("${HOST}:${PORT:5432}").unwrap(), "db:5432");
        assert_eq!(fill("${HOST:other}${NOTHING:x}").unwrap(), "db");
        assert_eq!(fill("${URL:http://a:1/b}").unwrap(), "http://a:1/b");
    }

    #[test]
    fn doubled_braces_are_literal() {
        assert_eq!(fill("${{HOST}}").unwrap(), "${HOST}");
        assert_eq!(fill("a${{}}b").unwrap(), "a${}b");
    }

    #[test]
    fn what_a_variable_holds_is_not_read_again() {
        assert_eq!(fill("${DOLLAR}").unwrap(), "${HOST}");
    }

    #[test]
    fn refuses_what_is_not_closed_or_has_no_name() {
        assert!(fill("${HOST").is_err());
        assert!(fill("${{HOST}").is_err());
        assert!(fill("${}").is_err());
        assert!(fill("${:default}").is_err());
        assert!(fill("${1ST}").is_err());
        assert!(fill("${A-B}").is_err());
    }

    proptest! {
        #[test]
        fn text_without_a_dollar_stays_as_it_is(text in "[^$]*") {
            prop_assert_eq!(fill(&text).unwrap(), text);
        }

        #[test]
        fn an_escaped_text_comes_back(inside in "[^}]*") {
            let escaped = format!("${{{{{inside}}}}}");
            prop_assert_eq!(fill(&escaped).unwrap(), format!("${{{inside}}}"));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[${}:A-Za-zé]*") {
            let _ = fill(&text);
        }
    }
}
