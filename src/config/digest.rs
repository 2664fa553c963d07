//! A fingerprint of what a migration means.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::settings::{Rule, Settings, Take};

/// Hex SHA-256 of the migration's name, table, key and rules.
///
/// Two files with the same digest fill the same columns in the same way, wherever they connect and
/// however fast they are. Stored with a migration's progress, so it must never change for a file
/// that means the same; the order of the rules means nothing, that of the key's columns does.
pub fn digest(settings: &Settings) -> String {
    let mut hash = Sha256::new();
    // Lengths before texts: no two lists of fields run together into the same bytes.
    let mut eat = |field: &str| {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field);
    };
    eat("crossfade 1");
    eat(&settings.name);
    eat(settings.table.schema.as_str());
    eat(settings.table.name.as_str());
    for part in settings.table.key.iter().flatten() {
        eat("key");
        eat(part.as_str());
    }
    let mut rules: Vec<_> = settings.table.up.iter().collect();
    rules.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (target, rule) in rules {
        eat("up");
        eat(target.as_str());
        match rule {
            Rule::Split { column, take } => {
                eat("split");
                eat(column.as_str());
                eat(match take {
                    Take::First => "first",
                    Take::Rest => "rest",
                    Take::Last => "last",
                });
            }
        }
    }
    hash.finalize().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a String takes all that is written");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use std::path::Path;

    const FILE: &str = include_str!("../../config/users_name_split.toml");

    #[track_caller]
    fn settings(text: &str) -> Settings {
        let env =
            |name: &str| (name == "DATABASE_URL").then(|| "postgres://localhost/app".to_owned());
        parse(Path::new("x"), text.as_bytes(), &env).unwrap().settings
    }

    /// The digest after an edit of the example.
    #[track_caller]
    fn of(from: &str, to: &str) -> String {
        assert!(FILE.contains(from), "{from:?} is not in the example");
        digest(&settings(&FILE.replace(from, to)))
    }

    #[test]
    fn is_the_one_of_every_earlier_release() {
        assert_eq!(
            of(FILE, FILE),
            "71cc4faa6106a94d4f28a89a04272dfbca56d5b5a572301e8d6f76fc06955f88"
        );
    }

    #[test]
    fn follows_the_meaning() {
        for (from, to) in [
            ("users-name-split", "users-name-cut"),
            ("public.users", "public.people"),
            ("key = [\"id\"]", "key = [\"tenant\", \"id\"]"),
            ("first_name =", "given_name ="),
            ("take = \"rest\"", "take = \"last\""),
            ("split = \"name\", take = \"first\"", "split = \"label\", take = \"first\""),
        ] {
            assert_ne!(of(from, to), of(FILE, FILE), "{to}");
        }
    }

    #[test]
    fn ignores_how_it_gets_there() {
        for (from, to) in [
            ("localhost:9092", "kafka:9092"),
            ("max_lag = \"5s\"", "max_lag = \"9s\""),
            ("[database]", "[database]\nwriters = 9"),
        ] {
            assert_eq!(of(from, to), of(FILE, FILE), "{to}");
        }
    }

    #[test]
    fn ignores_the_order_of_the_rules() {
        let (first, second) = ("first_name = {", "last_name = {");
        let swapped = FILE
            .replace(first, "? = {")
            .replace(second, first)
            .replace("? = {", second)
            .replace("take = \"first\"", "take = ?")
            .replace("take = \"rest\"", "take = \"first\"")
            .replace("take = ?", "take = \"rest\"");
        let settings = settings(&swapped);
        assert_eq!(settings.table.up[0].0.as_str(), "last_name");
        assert_eq!(digest(&settings), of(FILE, FILE));
    }
}
