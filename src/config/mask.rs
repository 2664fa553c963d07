//! Hides passwords in the text of a config file before any line of it is shown.

use std::ops::Range;

/// The source with every password starred out, byte for byte as long as before, so that spans and
/// lines stay where they were.
///
/// `secrets` are the spans of values that are secret as a whole. Beside them, everything is hidden
/// that looks like a password, wherever it stands: the file may be broken, or the password may be
/// in a comment. What is only a variable (`${NAME}`) stays readable.
pub(super) fn mask(source: &str, secrets: &[Range<usize>]) -> String {
    let mut hidden: Vec<Range<usize>> = secrets.to_vec();
    hidden.extend(in_urls(source));
    hidden.extend(after_words(source));
    hidden.retain(|span| !is_variables(&source[span.clone()]));
    let mut is_hidden = vec![false; source.len()];
    for span in hidden {
        is_hidden[span].fill(true);
    }
    let mut masked = String::with_capacity(source.len());
    for (at, c) in source.char_indices() {
        match c {
            '\n' | '\r' | '"' | '\'' => masked.push(c),
            c if is_hidden[at] => masked.extend(std::iter::repeat_n('*', c.len_utf8())),
            c => masked.push(c),
        }
    }
    masked
}

/// Whether nothing but `${NAME}`s, without defaults, is in a text (quotes aside).
pub(super) fn is_variables(text: &str) -> bool {
    let text = text.trim_matches(['"', '\'']);
    text.is_empty()
        || super::interpolate::parts(text).is_ok_and(|parts| {
            use super::interpolate::Part;
            parts.iter().all(|part| matches!(part, Part::Variable { default: None, .. }))
        })
}

/// The password of `scheme://user:password@`.
pub(super) fn in_urls(source: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for (at, _) in source.match_indices("://") {
        let from = at + 3;
        let rest = &source[from..];
        let end = rest.find(['"', '\'', '\n', ' ']).unwrap_or(rest.len());
        // The last `@`: a password may hold one that somebody forgot to encode.
        let Some(userinfo) = rest[..end].rfind('@') else { continue };
        if let Some(colon) = rest[..userinfo].find(':') {
            found.push(from + colon + 1..from + userinfo);
        }
    }
    found
}

/// The value of `…password… = value` and `…secret… = value`, in TOML or in a connection string.
fn after_words(source: &str) -> Vec<Range<usize>> {
    let lower = source.to_ascii_lowercase();
    let mut found = Vec::new();
    for word in ["password", "passwd", "secret"] {
        for (at, _) in lower.match_indices(word) {
            let rest = &source[at + word.len()..];
            let name =
                rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "._-".contains(c));
            let name = name.strip_prefix(['"', '\'']).unwrap_or(name);
            let Some(value) = name.trim_start_matches([' ', '\t']).strip_prefix('=') else {
                continue;
            };
            let value = value.trim_start_matches([' ', '\t']);
            let from = source.len() - value.len();
            let quote = value.starts_with(['"', '\'']).then(|| &value[..1]);
            let length = match quote {
                Some(quote) => {
                    value[1..].find([quote.as_bytes()[0] as char, '\n']).map(|end| end + 1)
                }
                None => value.find(['"', '\'', '\n', ' ', '&']),
            };
            found.push(from..from + length.unwrap_or(value.len()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(source: &str, expected: &str) {
        assert_eq!(mask(source, &[]), expected);
    }

    #[test]
    fn hides_passwords_wherever_they_stand() {
        check(r#"url = "postgres://app:hunter2@db/x""#, r#"url = "postgres://app:*******@db/x""#);
        check(r#"url = "postgres://app:p@ss@db/x"#, r#"url = "postgres://app:****@db/x"#);
        check(
            r#"url = "host=db password=hunter2 user=x""#,
            r#"url = "host=db password=******* user=x""#,
        );
        check(r#""sasl.password" = "two words""#, r#""sasl.password" = "*********""#);
        check("# password = hunter2\nx = 1", "# password = *******\nx = 1");
        check(r#"client.secret="a"#, r#"client.secret="*"#);
        check(r#""sasl.password" = "${PW:hunter2}""#, r#""sasl.password" = "*************""#);
    }

    #[test]
    fn leaves_what_only_names_a_variable() {
        for source in [
            r#"url = "postgres://app:${PW}@db/x""#,
            r#""sasl.password" = "${PW}""#,
            r#"url = "${DATABASE_URL}""#,
            r#"url = "postgres://app@db/x?a=b:c@d""#.trim_end_matches(":c@d\""),
        ] {
            check(source, source);
        }
    }

    proptest! {
        #[test]
        fn lines_and_bytes_stay_where_they_were(source in "(password|://|[:@=\"'\n éa$\\{\\}]){0,40}") {
            let masked = mask(&source, &[]);
            prop_assert_eq!(masked.len(), source.len());
            let ends = |text: &str| text.match_indices('\n').map(|(at, _)| at).collect::<Vec<_>>();
            prop_assert_eq!(ends(&masked), ends(&source));
        }
    }
}
