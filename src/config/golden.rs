//! Texts that are kept in files: what errors look like, the schema, the reference.
//!
//! `UPDATE_GOLDEN=1 cargo test --lib config` writes them anew; review the difference.

use std::path::{Path, PathBuf};

use super::keys::KEYS;
use super::{Code, load, parse, reference, schema};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compares with a file of the repository, or writes it under `UPDATE_GOLDEN=1`.
#[track_caller]
pub(super) fn check_file(path: &str, actual: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        return std::fs::write(root(path), actual).expect("the repository can be written");
    }
    let expected = std::fs::read_to_string(root(path)).unwrap_or_default();
    assert_eq!(actual, expected, "{path} is stale: UPDATE_GOLDEN=1 cargo test --lib config");
}

/// No variable's value may show up in any message: these would be seen at once.
fn env(name: &str) -> Option<String> {
    match name {
        "DATABASE_URL" => Some("postgres://app:hunter2@db.leak.example/app".to_owned()),
        "PORT" => Some("5432".to_owned()),
        "SECRET" => Some("hunter2".to_owned()),
        "WRITERS" => Some("hunter2".to_owned()),
        "LAG" => Some("hunter2 leak".to_owned()),
        _ => None,
    }
}

/// The wrong files, by name.
fn wrong_files() -> Vec<(String, String)> {
    let folder = std::fs::read_dir(root("tests/golden/config")).expect("the folder is there");
    let mut files: Vec<_> = folder
        .map(|entry| entry.expect("a readable folder").file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".toml"))
        .map(|name| {
            let text = std::fs::read_to_string(root("tests/golden/config").join(&name)).unwrap();
            (name, text)
        })
        .collect();
    files.sort();
    files
}

#[test]
fn errors_look_as_they_are_kept() {
    for (name, text) in wrong_files() {
        let errors = parse(Path::new(&name), text.as_bytes(), &env).expect_err(&name);
        let shown = errors.to_string();
        for secret in ["hunter2", "leak"] {
            assert!(!shown.contains(secret), "{name} shows a secret:\n{shown}");
        }
        let golden = format!("tests/golden/config/{}", name.replace(".toml", ".txt"));
        check_file(&golden, &shown);
    }
}

#[test]
fn every_kind_of_mistake_in_a_file_has_an_example() {
    let seen: Vec<_> = wrong_files()
        .iter()
        .flat_map(|(name, text)| {
            let errors = parse(Path::new(name), text.as_bytes(), &env).expect_err(name);
            errors.problems().iter().map(|problem| problem.code).collect::<Vec<_>>()
        })
        .collect();
    for code in Code::ALL.into_iter().filter(|code| *code != Code::Unreadable) {
        assert!(seen.contains(&code), "no golden file shows {code:?}");
    }
}

#[test]
fn the_schema_is_the_one_in_the_repository() {
    check_file("config/schema.json", &schema());
}

#[test]
fn the_reference_is_the_one_in_the_repository() {
    check_file("config/reference.toml", &reference());
}

#[test]
fn the_reference_names_every_key_and_its_defaults_are_the_real_ones() {
    let minimal = r#"
version = 1
name = "users-name-split"
database.url = "${DATABASE_URL}"
source = { kind = "kafka", brokers = "localhost:9092", topic = "cdc.public.users" }
[table."public.users".up]
first_name = { split = "name", take = "first" }
"#;
    let reference = reference();
    let written_out = parse(Path::new("reference.toml"), reference.as_bytes(), &env);
    let written_out = written_out.unwrap_or_else(|errors| panic!("{errors}"));
    let left_out = parse(Path::new("minimal.toml"), minimal.as_bytes(), &env).unwrap();
    assert_eq!(written_out.settings, left_out.settings);
    for key in KEYS {
        assert!(
            reference.contains(&format!("{} = ", key.name())) || key.name() == "*",
            "{}",
            key.path
        );
    }
}

#[test]
fn the_reference_still_loads_with_its_comments_taken_off() {
    let text: String = reference()
        .lines()
        .filter(|line| !line.contains("url_file"))
        .map(|line| match line.strip_prefix("# ") {
            Some(setting) if setting.starts_with('[') || setting.contains(" = ") => setting,
            _ => line,
        })
        .map(|line| {
            line.replace("properties_files", "properties_files ").replace("files ]", "files]")
        })
        .map(|line| line + "\n")
        .collect();
    // A property may stand in one of its two sections only.
    let text = text.replacen("\"sasl.password\"", "\"ssl.key.password\"", 1);
    let env = |name: &str| env(name).or_else(|| Some("x".to_owned()));
    let loaded = parse(Path::new("reference.toml"), text.as_bytes(), &env);
    assert!(loaded.is_ok(), "{}\n{text}", loaded.unwrap_err());
}

#[test]
fn paths_start_at_the_folder_of_the_file() {
    let folder = std::env::temp_dir().join(format!("crossfade-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("users.toml");
    let text = include_str!("../../config/users_name_split.toml").replace(
        "url = \"${DATABASE_URL}\"",
        "url_file = \"secrets/url\"\nca_file = \"/etc/ca.pem\"",
    );
    std::fs::write(&file, text).unwrap();
    let settings = load(&file, &env).unwrap().settings;
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(settings.database.url, super::settings::Url::File(folder.join("secrets/url")));
    assert_eq!(settings.database.ca_file, Some("/etc/ca.pem".into()));
}
