//! Splits a text at its blanks: `{ split = "name", take = "first" }`.
//!
//! A *blank* is a character with Unicode's `White_Space` property: spaces and tabs, line ends, the
//! no-break space (U+00A0), the ideographic space (U+3000). A zero-width space (U+200B) is none. A
//! *word* is a longest run without blanks; blanks at both ends belong to no word.
//!
//! | source | `first` | `rest` | `last` |
//! |---|---|---|---|
//! | NULL, empty, or blanks only | NULL | NULL | NULL |
//! | one word | the word | NULL | NULL |
//! | two or more | the first word | all after the blanks behind it, inner blanks as they are | the last word |
//!
//! So `first` and `rest` together lose nothing but blanks, and a target is never the empty string.

use super::Transform;
use crate::config::settings::Take;
use crate::table::Value;

/// Takes one part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// The place of the text among the sources.
    pub source: usize,
    pub take: Take,
}

impl Transform for Split {
    fn name(&self) -> &'static str {
        "split"
    }

    fn version(&self) -> u32 {
        1
    }

    fn compute(&self, sources: &[Value]) -> Value {
        sources[self.source]
            .known()
            .and_then(|text| part(text, self.take))
            .map_or(Value::Null, Value::text)
    }
}

fn part(text: &str, take: Take) -> Option<&str> {
    let text = text.trim();
    let Some((first, rest)) = text.split_once(char::is_whitespace) else {
        return match take {
            Take::First if !text.is_empty() => Some(text),
            Take::First | Take::Rest | Take::Last => None,
        };
    };
    Some(match take {
        Take::First => first,
        Take::Rest => rest.trim_start(),
        Take::Last => rest.rsplit(char::is_whitespace).next().expect("a split has a last part"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, first: Option<&str>, rest: Option<&str>, last: Option<&str>) {
        assert_eq!(
            (part(text, Take::First), part(text, Take::Rest), part(text, Take::Last)),
            (first, rest, last),
            "{text:?}"
        );
    }

    #[test]
    fn every_row_of_the_table_above() {
        check("", None, None, None);
        check(" \t\n", None, None, None);
        check("Cher", Some("Cher"), None, None);
        check("  Cher  ", Some("Cher"), None, None);
        check("Ada Lovelace", Some("Ada"), Some("Lovelace"), Some("Lovelace"));
        check("  Jean  Le  Rond ", Some("Jean"), Some("Le  Rond"), Some("Rond"));
        check("Ada\u{a0}King\u{3000}Noel", Some("Ada"), Some("King\u{3000}Noel"), Some("Noel"));
        check("zero\u{200b}width", Some("zero\u{200b}width"), None, None);
    }

    #[test]
    fn null_stays_null() {
        for take in [Take::First, Take::Rest, Take::Last] {
            assert_eq!(Split { source: 0, take }.compute(&[Value::Null]), Value::Null);
        }
    }

    proptest! {
        #[test]
        fn first_and_rest_lose_nothing_but_blanks(text in any::<String>()) {
            let words = |text: &str| text.split_whitespace().map(String::from).collect::<Vec<_>>();
            let mut joined: Vec<_> = part(&text, Take::First).into_iter().map(String::from).collect();
            joined.extend(part(&text, Take::Rest).map(words).unwrap_or_default());
            prop_assert_eq!(joined, words(&text));
        }

        #[test]
        fn no_part_is_empty_or_has_blanks_at_its_ends(text in "[ \ta-c\u{a0}\u{3000}]{0,12}") {
            for take in [Take::First, Take::Rest, Take::Last] {
                if let Some(part) = part(&text, take) {
                    prop_assert!(!part.is_empty());
                    prop_assert_eq!(part.trim(), part);
                }
            }
        }

        #[test]
        fn last_is_the_end_of_rest_and_a_single_word(text in "[ a-c]{0,12}") {
            let last = part(&text, Take::Last);
            let of_rest = part(&text, Take::Rest).map(|rest| rest.split_whitespace().last().unwrap());
            prop_assert_eq!(last, of_rest);
        }
    }
}
