//! The settings that count, as TOML, for `config print`.

use super::entry::{Entry, Origin, dotted, quoted, spelled};
use super::load::Loaded;
use super::unit;
use super::value::Value;

impl Loaded {
    /// Every value that counts, defaults included, as TOML; secrets are `"***"`.
    ///
    /// With `origin`, a comment behind each value says where it came from.
    pub fn print(&self, origin: bool) -> String {
        let mut text = String::new();
        let mut sections: Vec<&[String]> = Vec::new();
        for entry in &self.entries.0 {
            let section = above(entry);
            if !sections.contains(&section) {
                sections.push(section);
            }
        }
        for section in sections {
            if !section.is_empty() {
                text.push_str(&format!("\n[{}]\n", dotted(section)));
            }
            let lines: Vec<_> = self
                .entries
                .0
                .iter()
                .filter(|entry| above(entry) == section)
                .map(|entry| (format!("{} = {}", spelled(entry.last()), value(entry)), entry))
                .collect();
            let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0);
            for (line, entry) in lines {
                if origin {
                    text.push_str(&format!("{line:width$}  # {}\n", from(&entry.origin)));
                } else {
                    text.push_str(&format!("{line}\n"));
                }
            }
        }
        text
    }
}

fn above(entry: &Entry) -> &[String] {
    &entry.path[..entry.path.len() - 1]
}

/// `line 7`, `line 7, ${DATABASE_URL}` or `default`.
fn from(origin: &Origin) -> String {
    match origin {
        Origin::Default => "default".to_owned(),
        Origin::File { line, variables, .. } => {
            let names = variables.iter().map(|name| format!(", ${{{name}}}"));
            std::iter::once(format!("line {line}")).chain(names).collect()
        }
    }
}

/// The value as TOML spells it.
fn value(entry: &Entry) -> String {
    match &entry.value {
        Value::Secret(_) => "\"***\"".to_owned(),
        Value::Text(text) => quoted(text),
        Value::Flag(flag) => flag.to_string(),
        Value::Whole(whole) if entry.key.kind.is_size() => quoted(&unit::format_size(*whole)),
        Value::Whole(whole) => whole.to_string(),
        Value::Time(time) => quoted(&unit::format_duration(*time)),
        Value::Ident(ident) => quoted(ident.as_str()),
        Value::Idents(idents) => {
            let names: Vec<_> = idents.iter().map(|ident| quoted(ident.as_str())).collect();
            format!("[{}]", names.join(", "))
        }
        Value::Listen(None) => "\"off\"".to_owned(),
        Value::Listen(Some(address)) => quoted(&address.to_string()),
        Value::File(path) => quoted(&path.to_string_lossy()),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::golden::check_file;
    use crate::config::parse;
    use std::path::Path;

    fn env(name: &str) -> Option<String> {
        match name {
            "URL" => Some("postgres://app:hunter2@localhost/app".to_owned()),
            "LAG" => Some("2m".to_owned()),
            _ => None,
        }
    }

    const FILE: &str = r#"version = 1
name = "users"
database.url = "${URL}"
gate.caught_up.max_lag = "${LAG:1s}"
source = { kind = "kafka", brokers = "${BROKERS:a:1}", topic = "t" }
source.properties."sasl.password" = "${URL}"
[table."public.users".up]
first_name = { split = "na\"me", take = "first" }
last_name = { split = "na\"me", take = "rest" }
"#;

    #[test]
    fn shows_values_and_where_they_came_from() {
        let file = FILE.replace("source.properties", "# source.properties");
        let loaded = parse(Path::new("x"), file.as_bytes(), &env).unwrap();
        check_file("tests/golden/config/print.out", &loaded.print(true));
    }

    #[test]
    fn what_is_printed_loads_as_the_same_settings() {
        let file = FILE.replace("url = \"${URL}\"", "url_file = \"url\"");
        let file = file.replace("source.properties", "# source.properties");
        let loaded = parse(Path::new("x"), file.as_bytes(), &env).unwrap();
        for origin in [false, true] {
            let again = parse(Path::new("x"), loaded.print(origin).as_bytes(), &|_| None);
            assert_eq!(again.unwrap().settings, loaded.settings);
        }
    }

    #[test]
    fn shows_no_secret() {
        let file = FILE.replace("source = {", "[source]\n").replace(", topic", "\ntopic");
        let file =
            file.replace(", brokers", "\nbrokers").replace(" }\nsource.properties", "\nproperties");
        let loaded = parse(Path::new("x"), file.as_bytes(), &env).unwrap();
        let shown = format!("{}{loaded:?}", loaded.print(true));
        assert!(
            shown.contains("\"sasl.password\" = \"***\"") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}
